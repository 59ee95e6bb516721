"""Which option of a multiple-choice question a text concludes, as a capital letter.

A letter counts where it is offered as the answer: announced, called right, picked, boxed, or at the head of the text.
The words "A" and "I" are no options, and several options named together conclude nothing.
"""

import re
from collections.abc import Callable, Sequence

from nex_merge.answers import spans
from nex_merge.answers.announcements import alternatives, spaced, unspaced
from nex_merge.answers.notation import plain, unmarked
from nex_merge.answers.texts import canonical

# A letter as an option: (B), [B], B), B. -- and what makes a letter another thing: 20 °C, x_B, B-flat.
_LETTER = r"(?:[(\[]\s*(?P<{0}_in>[A-Za-z])\s*[)\]]|(?<![\w°])(?<!\w')(?P<{0}>[A-Z])(?![\w°]|'\w|-\w))"
# Articles in lower case only, because "A" is an option.
_ARTICLE = rf"(?-i:{spaced('article')})"
_NOUN = alternatives("option")
_OPTION = rf"(?:(?:{_ARTICLE}\s*)?(?:{_NOUN})\s+)?"
_ANY = re.compile(_LETTER.format("any"))
# What may be an option: not the article "a", nor the pronoun "I".
_MENTION = re.compile(
    r"(?<!\w)(?:[A-HJ-Z](?![\w'])|I(?![\w']|\s+[a-z])|I(?=\s+(?:is|are|must|would|seems|being|as|and|or|but|because|since)\b)"
    r"|[a-z](?=\s*(?:[).:,;!\]\n]|$)))"
)
# The whole text is one letter, in whatever dress.
_ALONE = re.compile(rf"\W{{0,20}}{_OPTION}\W{{0,20}}([A-Za-z])\s?[项項番번]?\W{{0,20}}", re.IGNORECASE)
# The text begins with an option and its text or reason: "B) 5 N", "B because", "(B) Paris", "B - Paris".
_HEAD = re.compile(
    rf"\W{{0,20}}?{_OPTION}(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?:[).:,。、]|\s+[-:]\s"
    r"|\s+(?:because|since|as it|is (?:the )?"
    r"(?:correct|right|best|answer)))|([a-z])\))",
)
_LISTED = re.compile(r"^\W{0,20}([A-Z])[).:]\s", re.MULTILINE)
# What may stand between an announcement and its letter.
_FILLER = re.compile(
    r"(?:[\s:\"'*]|(?:clearly|therefore|thus|then|most likely|probably|definitely|indeed|simply|just"
    r"|that of|given by)\b"
    rf"|{spaced('so')}|(?:{unspaced('pick')}|{unspaced('so')})"
    rf"|{_ARTICLE}\s*(?=[(\[]?(?-i:[A-Z])(?![\w'])|(?:{_NOUN})\b)"
    rf"|(?:the )?(?:correct |right |best )?(?:{_NOUN})\b(?: is\b)?)*",
    re.IGNORECASE,
)
_ANNOUNCED = re.compile(
    rf"\b(?:{_NOUN}|one)\b[^\n.:!?=]{{0,30}}?\b(?:{spaced('verb')})(?!\w):?"
    r"|\bI(?:'d| would|'ll| will)? (?:\w+ )?"
    r"(?:choose|pick|select|go with|chose|picked|selected|answer|say|went with)\b"
    r"|\bI'm going with\b|\b(?:choose|select|pick|selecting|choosing)\b"
    r"|\b(?:it|this|that) (?:\w+ )?(?:must|has to|should|can only) be\b|\bit's\b"
    rf"|\b(?:{spaced('pick')})\b|(?:{unspaced('pick')})",
    re.IGNORECASE,
)
_VERDICT = (
    r"(?:(?:the |a )?(?:only )?(?:most |more )?"
    r"(?:correct|right|best|better|true|answer|accurate|appropriate|proper|solution)\b)"
)
# "C is correct", "(C) is the best choice", "A is the answer".
_CALLED_RIGHT = re.compile(
    rf"{_LETTER.format('right')}(?:\s\([^()\n]{{0,30}}\))?"
    r"(?:\s+(?:is|(?P<plural>are)|must be|would be|seems|being)\s+"
    rf"(?:clearly |therefore |thus |indeed |obviously |both )?{_VERDICT}(?! wrong)"
    rf"|\s+(?:{spaced('right')})(?!\w)|\s*(?:{unspaced('right')}))",
)
# "B: right", "B - correct".
_MARKED = re.compile(rf"{_LETTER.format('marked')}\)?\s*[:-]\s*(?:correct|right|true|yes|✓|✔|✅)(?!\w)", re.IGNORECASE)
_SO = re.compile(
    rf"(?:\b(?:so|{spaced('so')}|{unspaced('so')}|therefore|thus|hence"
    r"|leaves(?: us with)?|no|wait|actually|but|correction|it's|it is|leaving"
    r"|definitely|clearly|probably|certainly|surely|obviously)\b[\s,:、]*"
    rf"(?:(?:it's|it is|the|only|{_NOUN}|{unspaced('pick')}|it must be|it should be|leaves)\s+)*){_LETTER.format('so')}"
    r"(?=\s*(?:[.,;!)\n。、]|$))",
    re.IGNORECASE,
)
# A letter that names something else.
_NAMES = re.compile(
    r"\b(?:vitamins?|hepatitis|plan|type|class|grade|group|section|figure|fig|point|side|angle|team|appendix|table|set|line"
    r"|part|case|phase|column|row|event|matrix|model|person|student|city|town|box|bag|machine|pipe|train)\s+$",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?(?!answer\b)(?:[A-Za-z]{2,}|[bipu])>")
_ENGLISH = re.compile(r"[AI]\s+[a-z]")  # "A car", "I computed"
_GOES_ON = re.compile(r"[AI]\s+(?:because|since|as|and|or|is|are|but|while|whereas|not|with|for|rather|instead)\b")
_JOINED = re.compile(
    rf"\s*(?:,?\s*(?:\b(?:and(?: also)?|or|{spaced('joint')}|{unspaced('joint')})\b|[&/、])|,)\s*"
    rf"{_OPTION}{_LETTER.format('next')}",
    re.IGNORECASE,
)
# Another option before one called right: "A and C are", "A, C are"; in "Unlike B, C is" the comma is no list's.
_BESIDE = re.compile(
    rf"{_LETTER.format('other')}\s*(?:,?\s*(?P<and>\b(?:and|or|{spaced('joint')}|{unspaced('joint')})\b|[&、])|,)\s*{_OPTION}$",
    re.IGNORECASE,
)
_LIST_HEAD = re.compile(rf"\W*{_OPTION}(?:\W*\b[A-Z]\b\W*,)+\W*{_OPTION}$", re.IGNORECASE)
_NOT = rf"(?:\b(?:not|{spaced('denies')})\b|(?:{unspaced('denies')}))"
_BUT = re.compile(
    rf"{_NOT}[^.\n]{{0,30}}?(?:\b(?:but|{spaced('but')})\b|(?:{unspaced('but')}))"
    rf"(?:\s+(?:rather|it is|it's|{_ARTICLE}|{_NOUN}))*\s*{_LETTER.format('but')}"
)
_DENIED = re.compile(rf"\W*(?:\b(?:neither|never)\b|{_NOT})", re.IGNORECASE)
_DENIED_BEFORE = re.compile(
    r"\b(?:not|never|neither|nor|cannot|\w+n't|rather than|instead of)\s+(?:be\s+)?(?:option\s+|choice\s+)?$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?:and\b|or\b|[,)\]\s]|[A-Z]\b)*(?:is|are|was|were|can|could|has|seems?)\b[^.,;\n]{0,15}?"
    r"\b(?:not|wrong|incorrect|false|n't|out|too|eliminated|ruled)\b|\s*(?:cannot|\w+n't)"
    rf"|\s*(?:{spaced('wrong')})(?!\w)|\s*(?:{unspaced('wrong')})"
)
# What is said of an option at the beginning of a sentence.
_FITS = re.compile(r"\W*$|[.,:;!]|\s+(?:fits|seems|works|is|appears|looks|would|must|applies|makes|matches|it is)\b")
_STATES = re.compile(
    r"(?:^|\b(?:is|be|are|with|to|matches|match|get|gives|equals|think|say|believe|me|only)|[:=])\s*(?:option\s+|choice\s+)?[(\[]?$",
    re.IGNORECASE,
)


def read_choice(text: str, options: int = 26) -> str | None:
    """The option that a text (without thinking) concludes, among the first `options` letters; None without one."""
    box = spans.boxed(text)
    if box is not None:
        return _whole(plain(box), options)
    text = _plain(text)
    if (letter := _whole_letter(text, options)) is not None:
        return letter
    for piece in reversed(spans.announced(text)):
        if (found := _announced(piece, options)) is not _NOTHING:
            return found
    return _last(text, options)


def read_gold_choice(answer: str, options: int, texts: Sequence[str] = ()) -> str:
    """The letter of a known answer: B, b, (B), B., "B. Paris", or an option's own text, where `texts` has them all.

    Raises ValueError, saying what to write, where it is no single option.
    """
    last = chr(ord("A") + options - 1)
    if answer.strip().isdecimal():
        raise ValueError('it may count from 0 or from 1; write the letter of the option, such as "B"')
    if (letter := _whole(plain(answer), options)) is not None:
        return letter
    same = [i for i, text in enumerate(texts) if canonical(text) == canonical(answer)]
    if len(same) == 1:
        return chr(ord("A") + same[0])
    if (letter := read_choice(answer, options)) is not None:
        return letter
    raise ValueError(f'expected the letter of one option, "A" to "{last}"' + (", or its text" if texts else ""))


def _plain(text: str) -> str:
    return unmarked(_TAG.sub(" ", text)).replace("$", "")


_Stated = list[tuple[int, str | None]]
_Excluded = Callable[[re.Match[str]], bool]
_NOTHING = ""  # no statement, where None is one that names no single option


def _letter(found: re.Match[str], name: str, options: int) -> str | None:
    letter = (found[f"{name}_in"] or found[name]).upper()
    return letter if ord(letter) - ord("A") < options else None


def _whole_letter(text: str, options: int) -> str | None:
    found = _ALONE.fullmatch(text)
    return found[1].upper() if found and ord(found[1].upper()) - ord("A") < options else None


def _whole(text: str, options: int) -> str | None:
    """A box or a gold answer: a letter alone or with its text."""
    if (letter := _whole_letter(text, options)) is not None:
        return letter
    found = _HEAD.match(text)
    if found is None or _JOINED.match(text, found.end() - (found[2] is not None)):
        return None
    letter = next(group for group in found.groups() if group).upper()
    return letter if ord(letter) - ord("A") < options else None


def _announced(piece: str, options: int) -> str | None:
    """What an announcement is followed by: a letter, None for several, `_NOTHING` if it names no option."""
    retracted = spans.corrected(piece)
    if retracted is not None and (letter := _last(retracted, options)) is not None:
        return letter
    if _DENIED.match(piece):
        found = _BUT.search(spans.sentences(piece)[0])
        return _letter(found, "but", options) if found else None
    start = _FILLER.match(piece)
    at = start.end() if start else 0
    either = re.compile(r"(?:both|either)\s+", re.IGNORECASE).match(piece, at)
    at = either.end() if either else at
    found = _ANY.match(piece, at)
    if found is None:
        # Lower case counts where nothing but a bracket or the end of the sentence follows.
        low = re.compile(r"([a-z])(?=\s*(?:[).:,;!]|\]|\n|$))").match(piece, at)
        return low[1].upper() if low and ord(low[1]) - ord("a") < options else _NOTHING
    if found["any"] in ("A", "I") and _ENGLISH.match(piece, found.start()) and not _GOES_ON.match(piece, found.start()):
        return _NOTHING
    if _denied_after(piece, found.end()):
        return _NOTHING
    if _is_joined(piece, found.end()):
        # "B or D, but I'd go with D"
        later = _stated(piece[found.end() :].split("\n")[0], options)
        return max(later, key=lambda item: item[0])[1] if later else None
    return _letter(found, "any", options)


def _is_joined(text: str, at: int) -> bool:
    """Whether another option is named beside the one that ends here: "A and C", "A, B"."""
    following = re.compile(r"\s*\)?").match(text, at)
    found = _JOINED.match(text, following.end() if following else at)
    if found is None:
        return False
    bare = found["next"]
    if bare is not None and bare.islower():
        return False
    at_next = found.start("next")
    is_word = bare in ("A", "I") and _ENGLISH.match(text, at_next) and not _GOES_ON.match(text, at_next)
    return not is_word and not _denied_after(text, found.end())


def _denied_after(text: str, at: int) -> bool:
    return _DENIED_AFTER.match(text, at) is not None


def _last(text: str, options: int) -> str | None:
    """The option that a text without announcement comes to."""
    for sentence in reversed(spans.sentences(text)):
        if _MENTION.search(sentence) and (stated := _stated(sentence, options)):
            return max(stated, key=lambda item: item[0])[1]
    # A line that is nothing but a letter, before or after its explanation.
    alone = {letter for line in text.split("\n") if (letter := _whole_letter(line, options)) is not None}
    if len(alone) == 1:
        return alone.pop()
    if (letter := _head(text, options)) is not _NOTHING:
        return letter
    return _alone_in_last_sentence(text, options)


def _stated(text: str, options: int) -> _Stated:
    """(place, letter) of each option that a sentence states; None where it states several."""
    stated: _Stated = []
    for found in _ANNOUNCED.finditer(text):
        letter = _announced(text[found.end() :], options)
        if letter is not _NOTHING:
            stated.append((found.start(), letter))
    _collect(stated, _BUT, "but", text, options, lambda found: False)
    _collect(stated, _SO, "so", text, options, lambda found: _is_name(text, found, "so"))
    _collect(stated, _CALLED_RIGHT, "right", text, options, lambda found: _is_denied(text, found, "right"))
    _collect(stated, _MARKED, "marked", text, options, lambda found: False)
    return stated


def _collect(
    stated: _Stated, pattern: re.Pattern[str], name: str, text: str, options: int, excluded: _Excluded
) -> None:
    for found in pattern.finditer(text):
        bare = found[name]
        # re.IGNORECASE of the words around it must not let lower-case letters in.
        if (bare is not None and bare.islower()) or excluded(found) or _letter(found, name, options) is None:
            continue
        several = _is_joined(text, found.end()) or (name == "right" and _is_beside(text, found))
        at = found.start(f"{name}_in" if bare is None else name)
        stated.append((at, None if several else _letter(found, name, options)))


def _is_beside(text: str, found: re.Match[str]) -> bool:
    """Whether another option is named before the one that is called right."""
    before = text[: _start(found, "right")]
    other = _BESIDE.search(before[-40:])
    return other is not None and bool(other["and"] or found["plural"] or _LIST_HEAD.match(before))


def _is_name(text: str, found: re.Match[str], name: str) -> bool:
    return _NAMES.search(text, 0, _start(found, name)) is not None


def _is_denied(text: str, found: re.Match[str], name: str) -> bool:
    before = text[max(_start(found, name) - 40, 0) : _start(found, name)]
    within = spans.NEGATION.search(found.group()) is not None
    return within or _DENIED_BEFORE.search(before) is not None


def _start(found: re.Match[str], name: str) -> int:
    return found.start(f"{name}_in") - 1 if found[name] is None else found.start(name)


def _head(text: str, options: int) -> str | None:
    found = _HEAD.match(text)
    if found is None:
        return _NOTHING
    letter = next(group for group in found.groups() if group).upper()
    listed = {item[1] for item in _LISTED.finditer(text)} - {letter}
    if ord(letter) - ord("A") >= options or listed or _denied_after(text, found.end()):
        return _NOTHING
    end = found.end() - 1 if text[found.end() - 1] == "," else found.end()
    return None if _is_joined(text, end) else letter


def _alone_in_last_sentence(text: str, options: int) -> str | None:
    """The only letter of the last sentence, where it is stated and neither denied nor the name of something."""
    parts = spans.sentences(text)
    for sentence in reversed(parts):
        every = _ANY.finditer(sentence)
        letters = [it for it in every if not (it["any"] in ("A", "I") and _ENGLISH.match(sentence, it.start()))]
        if not letters:
            continue
        distinct = {_letter(found, "any", options) for found in letters}
        found = letters[-1]
        before = sentence[: found.start()]
        if len(distinct) > 1 or _NAMES.search(before) or _DENIED_BEFORE.search(before + " "):
            return None
        if spans.NEGATION.search(before) or _denied_after(sentence, found.end()):
            return None
        if not before.strip():
            return _letter(found, "any", options) if found["any_in"] or _FITS.match(sentence, found.end()) else None
        return _letter(found, "any", options) if found["any_in"] or _STATES.search(before) else None
    return None
