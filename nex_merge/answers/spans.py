"""Which part of an answer is its conclusion: in a box, behind an announcement, after a correction.

Knows nothing of what a conclusion is worth: numbers.py, choices.py and texts.py read what is found here.
"""

import re
import unicodedata

from nex_merge.answers import cjk
from nex_merge.answers.announcements import spaced, unspaced, word_set, written_in

LONGEST = 20_000  # characters at the end of a response among which its conclusion is looked for
_LONGEST_SENTENCE = 1_000
_RUN = re.compile(r"([^\w{}()])\1{6,}")
# Outside of brackets, where commas list.
_DECIMAL_COMMA = re.compile(r"(?<![\d.,(\[{])(\d+),(\d{1,2}|\d{4,})(?![\d,.]*\d|[)\]}])")
_SEPARATED = re.compile(r"\d[.,]\d")
_DOTTED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})\.(\d{3})(?![\d,.]*\d)")
_DECIMAL_POINT = re.compile(r"\d\.(?:\d{1,2}|\d{4,})(?!\d)")
# What a box is written as; `\boxed 5` without braces is valid LaTeX as well.
_BOX = re.compile(r"\\(?:boxed|fbox)\s?(?:\{|\d|[A-Za-z]\b)")
_BOX_NAME = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BOX_OR_BRACE = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s?)(?:(?P<bare>\d|[A-Za-z]\b)|(?=\{))(?P<first>\{)?|\\.|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)

# "The answer is", "Final answer:", "#### ", "Antwort:"; between noun and verb, a few words ("to this question").
_NOUN, _VERB = spaced("answer"), spaced("verb")
ANNOUNCEMENT = re.compile(
    rf"\#\#\#\#[ \t]*|<(?:final[_ ])?answer>|(?:\#{{1,6}} |final |correct )answers?\b[*_ \t]*\n+"
    rf"|\b(?:{_NOUN})\b[*_\s\"']{{0,6}}"
    rf"(?:(?:[^\n.:!?=]{{0,60}}?\b(?:{_VERB})(?!\w)[ \t]*:?)|(?:\([^()\n]{{0,30}}\)\s*)?[:：=]|[ \t]+[-–—][ \t])"
    r"[*_\s]{0,8}"
    rf"|(?:{unspaced('announcement')})[*_\s]{{0,8}}",
    re.IGNORECASE,
)
# One of these is in whatever announces; looked for first, because it is faster.
_NEEDLES = ("####", "<answer>", *word_set("needles"))
_BEFORE_NEEDLE = 8  # characters of an announcement before its needle: "correct ", "## "
# "is", before which a negation was found, as in "the answer is not".
NEGATION = re.compile(r"\b(?:not|never|cannot|neither|nor|\w+n['’]t)\b", re.IGNORECASE)
_DENIES = re.compile(
    rf"(?:{NEGATION.pattern}|\b(?:{spaced('denies')})\b|n'est pas|{unspaced('denies')})"
    r"[^,\d]*\Z",
    re.IGNORECASE,
)
# The writer takes something back.
CORRECTION = re.compile(
    r"(?:^|(?<=[.!?\n—–-]\s)|(?<=[.!?\n]))[*_(\s]{0,8}"
    r"(?:no\b(?=[,:.! —–-])|(?:oh |but )?wait\b|actually\b|correction\b|oops\b"
    r"|sorry\b|hmm\b|scratch that\b|on second thou?ght\b"
    r"|(?:that|this)(?:['’]s| is| was) (?:wrong|incorrect|not right)\b"
    r"|i made (?:a|an) (?:mistake|error)\b|let me correct\b)"
    r"|(?<=,\s)(?:no(?=,)|wait|or rather|i mean)\b",
    re.IGNORECASE,
)
_AFTER_CORRECTION = re.compile(
    r"\A(?:[\s,:;!]*\b(?:no|wait|actually|sorry|rather|it's|it is|it should be|that should be|i meant?|make that)\b)*"
    r"[\s,:;!]*",
    re.IGNORECASE,
)
# A check of what was concluded, at the end of a response.
_CHECK = re.compile(
    r"(?:^|(?<=[.!?✓]\s)|(?<=\n))\W{0,8}"
    r"(?:(?:now )?let me |let['’]s |to |we can |quick |(?:oh |but )?wait,? (?:let me )?)?"
    r"(?:(?:double[- ]?)?check|verif|confirm|sanity check|proof\b|probe\b)",
    re.IGNORECASE,
)
_RESUMED = re.compile(r"\b(?:so|therefore|thus|hence|should|instead|wrong|incorrect|mistake|error|no)\b", re.IGNORECASE)
# The writer says that there is no answer, or that it can't be known.
_FIND = r"(?:determin|tell|say|know|find out|calculat|comput|answer|figure out|work out|infer|deduc|conclud)"
_INFORMATION = r"(?:information|info|data|details?|context)\b"
_REFUSAL = re.compile(
    rf"\b(?:(?:I|we|you) (?:simply |really |just )?(?:can(?:not|['’]t| not)|could(?:n['’]t| not)|do(?:n['’]t| not))"
    rf"|unable to|not able to|impossible to|not possible to|no way (?:to|of))\s+(?:\w+ly )?{_FIND}\w*\b"
    rf"(?! (?:more|no)\b)"
    rf"|\b(?:can(?:not|['’]t| not)|could(?:n['’]t| not)) (?:\w+ly )?be (?:\w+ly )?(?:{_FIND}\w*|found|known|solved)\b"
    rf"|(?:\bnot|n['’]t)(?: \w+){{0,3}}? (?:enough|sufficient) {_INFORMATION}|\binsufficient {_INFORMATION}"
    rf"|\bplease (?:provide|share|give|supply|specify|clarify)\b[^.\n]{{0,30}}?(?:{_INFORMATION}|\bmissing\b)",
    re.IGNORECASE,
)
# Something else is concluded before or after it: "Since we don't know x, ...", "... but it is 12".
_DESPITE_BEFORE = re.compile(
    r"\b(?:since|as|if|though|although|while|whether|when|because|note)\b[^,;:.]*$", re.IGNORECASE
)
_DESPITE_AFTER = re.compile(
    r"\b(?:but|however|so|therefore|thus|hence|still|yet|until|unless|directly|instead|roughly|approximately)\b|=",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)|(?<=[。！？؟।])|\n")


def readable(text: str) -> str:
    """The end of a text, as far as conclusions are looked for, without long runs of one sign.

    Texts of any size and shape are read in a time that is bounded.
    """
    text = _RUN.sub(r"\1\1\1\1\1\1", unicodedata.normalize("NFC", text[-LONGEST:]))
    return cjk.spaced(_with_decimal_points(text))


def _with_decimal_points(text: str) -> str:
    """A text in a language that writes 3,5 and 1.250 for 3.5 and 1250, with these as English writes them."""
    if _SEPARATED.search(text) and (language := written_in(text)) is not None:
        if language.dotted_thousands and _DECIMAL_POINT.search(text) is None:
            text = _DOTTED.sub(r"\1\2", text)
        text = _DECIMAL_COMMA.sub(r"\1.\2", text)
    return text


def boxed(text: str) -> str | None:
    """The content of the last box, without boxes inside it; None without a box, '' for one that is not closed."""
    if "\\" not in text or _BOX.search(text) is None:
        return None
    opened: list[int] = []  # where the content of each open brace's box begins; -1 for a brace without box
    found: tuple[int, int] | None = None
    for mark in _BOX_OR_BRACE.finditer(text):
        if mark["bare"] is not None and not any(start >= 0 for start in opened):
            found = mark.span("bare")
        elif mark["first"] is not None or mark["open"] is not None:
            opened.append(-1 if mark["first"] is None else mark.end())
        elif mark["close"] is not None and opened:
            start = opened.pop()
            if start >= 0 and not any(outer >= 0 for outer in opened):
                found = start, mark.start()
    if found is None or any(start > found[1] for start in opened):
        return ""
    return _BOX_NAME.sub(" ", text[slice(*found)])


def announced(text: str) -> list[str]:
    """What follows each announcement of an answer, up to the next one; in order."""
    lower = text.lower()
    starts = [at for needle in _NEEDLES if (at := lower.find(needle)) >= 0]
    # A few letters have another length in lower case.
    first = max(min(starts) - _BEFORE_NEEDLE, 0) if starts and len(lower) == len(text) else 0
    found = list(ANNOUNCEMENT.finditer(text, first)) if starts else []
    ends = [*[later.start() for later in found[1:]], len(text)][: len(found)]
    return [
        _with_negation(this.group()) + text[this.end() : end].split("</", 1)[0]
        for this, end in zip(found, ends, strict=True)
    ]


def _with_negation(announcement: str) -> str:
    """`not `, if the announcement itself denies ("the answer can't be")."""
    return "not " if _DENIES.search(announcement) else ""


def corrected(text: str) -> str | None:
    """What follows the last correction that is more than a check; None without one."""
    found = list(CORRECTION.finditer(text))
    for this in reversed(found):
        tail = _AFTER_CORRECTION.sub("", text[this.end() :])
        if not _is_check(text[this.start() :]):
            return tail
    return None


def _is_check(text: str) -> bool:
    return _CHECK.match(text) is not None and _RESUMED.search(text) is None


def without_check(text: str) -> str:
    """The text without a check of the conclusion at its end, unless the check goes on to another conclusion."""
    lower = text.lower()
    if not any(needle in lower for needle in ("check", "verif", "confirm", "proof", "probe")):
        return text
    for this in _CHECK.finditer(text):
        if this.start() and _RESUMED.search(text, this.end()) is None:
            return text[: this.start()]
    return text


def refuses(sentence: str) -> bool:
    """Whether a sentence says that no answer can be given, and gives none itself."""
    found = list(_REFUSAL.finditer(sentence))
    return bool(
        found
        and _DESPITE_BEFORE.search(sentence[: found[-1].start()]) is None
        and _DESPITE_AFTER.search(sentence, found[-1].end()) is None
    )


def sentences(text: str) -> list[str]:
    """The sentences and lines that are not blank; of one that is very long, its end."""
    return [part.strip()[-_LONGEST_SENTENCE:] for part in _SENTENCE_END.split(text) if part and part.strip()]
