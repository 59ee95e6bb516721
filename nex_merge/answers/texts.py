"""What a text says, apart from how it is written: case, articles, quotes, white space, punctuation at the ends."""

import re
import unicodedata

from nex_merge.answers import spans
from nex_merge.answers.announcements import spaced, unspaced
from nex_merge.answers.notation import plain

_QUOTES = str.maketrans({
    "’": "'", "‘": "'", "‚": "'", "`": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "「": '"', "」": '"', "『": '"', "』": '"',
    "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-",
    "\u200b": "", "\u200c": "", "\u200d": "", "\u2060": "", "\ufeff": "", "\u00ad": "",
})  # fmt: skip
_BOLD = re.compile(r"\*\*(\S(?:[^*\n]*\S)?)\*\*|`([^`\n]+)`")
_ARTICLE = re.compile(r"(?:the|an?) (?=\w{2})")
_BLANKS = re.compile(r"[^\S\n]{2,}")
_WRAPPED = re.compile(r"(?:\((?=[^()]+\)$)|\[(?=[^\[\]]+\]$)|\$(?=[^$]+\$$))\s*(.+?)\s*[)\]$]")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\{")
_ENDS = " \t\n\"'*¿¡"
_STOPS = ".,;:!?。"
# An announced answer ends with its sentence, or where its reason begins. Initials and short words before a stop are
# abbreviations: St. Petersburg, Washington D.C.
_END_OF_ANSWER = re.compile(
    r"\n|(?<=\w{3}[.!?])\s+(?=[A-ZÀ-ÖØ-ÞА-Я])|(?<=[。！？])|,?\s+(?:because|since)\b|,\s+as\b"
    rf"|,\s+(?:{spaced('reason')})(?!\w)|[,，、]\s*(?:{unspaced('reason')})"
)
# "答えはパリです": the verb behind an announced answer.
_ENDING = re.compile(rf"(?<=[^\x00-\x7f])(?:{unspaced('endings')})[\s。.!！]*\Z")


def text_answer(text: str) -> str | None:
    """The canonical spelling of what a text (without thinking) concludes; None where that is nothing.

    That is the last box, else what the last announcement names, else the whole text.
    """
    text = _BLANKS.sub(" ", text)
    box = spans.boxed(text)
    if box is not None:
        return canonical(plain(box).strip(" {}") if "\\" in box else box)
    for piece in reversed(spans.announced(text[-spans.LONGEST :])):
        retracted = spans.corrected(piece)
        span = _END_OF_ANSWER.split((retracted if retracted is not None else piece).strip(" \n\t*_:"), maxsplit=1)[0]
        span = _ENDING.sub("", span)
        if (key := canonical(plain(span) if _TEXT_COMMAND.search(span) else span)) is not None:
            return key
    return canonical(text)


def canonical(text: str) -> str | None:
    """Equal for texts that a reader takes for the same: NFKC, case, quotes, white space, ends, one leading article."""
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold().replace("⁄", "/")
    text = unicodedata.normalize("NFKC", " ".join(_BOLD.sub(lambda found: found[1] or found[2], text).split()))
    bare = text.strip(_ENDS).rstrip(_STOPS + _ENDS).strip(_ENDS)
    bare = wrapped[1] if (wrapped := _WRAPPED.fullmatch(bare)) else bare
    return _ARTICLE.sub("", bare, count=1) if _ARTICLE.match(bare) else bare or text or None
