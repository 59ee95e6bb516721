"""Which number a text concludes, as a canonical key.

The one a reader takes among the values of a sentence is chosen by what stands around it: what is denied ("not 12 but
13") or only qualifies ("29 for 3 shirts") steps back, and several values side by side ("2 or 3") conclude nothing.
"""

import re
from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction

from nex_merge.answers import spans
from nex_merge.answers.announcements import word_set
from nex_merge.answers.arithmetic import Value
from nex_merge.answers.notation import plain
from nex_merge.answers.restating import is_none_left, without_repeats
from nex_merge.answers.tokens import NUMBER_WORD, Token, tokenize
from nex_merge.answers.values import HAS_DIGIT, STATES, Mention, find_items, gap_between, text_at, words

# Significant digits of a key that is no whole number, and decimals it has at least.
_DIGITS, _DECIMALS = 12, 2
# Characters of a box and sentences from the end in which a value is looked for.
_LONGEST, _SENTENCES = 1_000, 60

_DENIES = words("not never cannot neither nor nicht kein keine pas não не không niet nie bukan")
# What ends a word before a value that is denied, and begins one behind it.
_DENIES_BEFORE, _DENIES_AFTER = ("不是", "并非", "並非"), ("ではな", "でな", "じゃな", "아니")
_DETERMINES = words("a the all only about these those just exactly her his total")
_STOPS = words(". ; : , but so = because ( ) sino mais sondern ma mas а но maar mà 而是")
_QUALIFIES = words(
    "for in after at on by with per of since because within over from during every each across among into "
    "under when given using through"
) | word_set("qualifies")
_FILLERS = words(
    "a an the about approximately approx roughly around nearly exactly precisely just only simply therefore "
    "thus then hence so also indeed again total of number value equal equals to is are be = : . , \" ' ( [ { * "
    "# - ~ given by option minus negative answer final it that's it's ≈"
) | word_set("filler")
_EQUALS = words("= ≈ equals makes gives")
# "12 is the answer", "8 is the sum of 3 and 5".
_IS_THE_RESULT = words("answer result sum product difference quotient total average number value correct right")
# The answer is announced as none.
_NO_ANSWER = re.compile(
    r"\W*(?:unknown|undefined|undetermined|indeterminate|none|impossible|infinit\w+|unclear)\b", re.IGNORECASE
)
_ARE_SEVERAL = words(
    ", ; 、 and or & y o u e ou et und oder и или và hoặc 和 或 と か 到 至 から bis à até до 〜 ~ "
    "to … through until versus vs by"
)
# "A change of 8" states a value.
_AMOUNTS = words(
    "total sum change difference product increase decrease average mean value profit loss distance rise drop gain"
)
# Between two numbers that make one quantity: 2 hours 30 minutes, 5'10".
_COMPOUND = words(
    "hours hour hrs hr h minutes minute min feet foot ft pounds lbs days weeks months years ' "
    "小时 小時 時間 分钟 分鐘 分 시간 heures heure horas hora stunden ore"
)
_CONCLUDES = re.compile(
    r"\b(?:so|thus|therefore|hence|is|are|was|were|there|remain\w*|left|total|equals|has|have|makes|gives|leav\w+|needs?"
    r"|costs?)\b|=",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[A-Za-z]+>")
# "1." or "1)" at the beginning of a line shows that numbers there count a list.
_LIST = re.compile(r"^\s*(?:\*\*)?\(?1[.)]\s", re.MULTILINE)
_LIST_LABEL = re.compile(r"^\s*(?:\*\*)?\(?\d{1,2}[.)]\s+(?=\S)")
# A factorial rather than an exclamation: "5!$", "5! =".
_FACTORIAL = re.compile(r"[\d)]!+\s*(?:\$|\\|[-+*/=^)}])")


def read_number(text: str) -> Value | None:
    """The value that a text (without thinking) concludes; None where it concludes none."""
    box = spans.boxed(text)
    if box is not None:
        return _first(box[:_LONGEST], factorials=True)
    for piece in reversed(spans.announced(text)):
        retracted = spans.corrected(piece)
        if retracted is not None and (value := _last(retracted)) is not None:
            return value.value
        for sentence in spans.sentences(piece)[:3]:
            if spans.refuses(sentence):
                return None
            if is_none_left(sentence):
                return Fraction(0)
            if HAS_DIGIT.search(sentence) or NUMBER_WORD.search(sentence):
                return _first(sentence)
    item = _last(text)
    return item.value if item else None


def number_key(value: Value) -> str:
    """Equal for equal values: whole numbers exactly, others to 12 significant digits and no coarser than 0.01."""
    if isinstance(value, Fraction) and value.denominator == 1:
        return str(value.numerator)
    exact = Fraction(value)
    number = Context(prec=450).divide(Decimal(exact.numerator), Decimal(exact.denominator))
    places = max(_DIGITS - 1 - number.adjusted(), _DECIMALS) if number else 0
    rounded = number.quantize(Decimal(1).scaleb(-places), context=Context(prec=500))
    if rounded == rounded.to_integral_value():
        return str(int(rounded))
    key = rounded.normalize(Context(prec=500))
    return format(key, "f") if key.adjusted() >= -_DIGITS else str(key).lower()


def _first(text: str, factorials: bool = False) -> Value | None:
    """What an announcement or a box is followed by."""
    tokens = tokenize(plain(_TAG.sub(" ", text)))
    if _NO_ANSWER.match(text):
        return None
    items = without_repeats(tokens, find_items(tokens, factorials or _FACTORIAL.search(text) is not None), text)
    kept = [item for item in items if not _denied(tokens, item)]
    if not kept:
        return None
    if len(kept) == len(items) and not all(_is_filler(token) for token in tokens[: kept[0].start]):
        item = _choose(tokens, items)
        return item.value if item else None
    i = 0
    while i + 1 < len(kept) and _is_chained(tokens, kept[i], kept[i + 1]):
        i += 1
    if i + 1 < len(kept) and _are_several(tokens, kept[i], kept[i + 1], shown=True):
        return None
    return kept[i].value


def _last(text: str) -> Mention | None:
    """The item that a text without announcement ends with."""
    text = spans.without_check(text)
    listed = _LIST.search(text) is not None
    has_digits = HAS_DIGIT.search(text) is not None
    denied: set[str] = set()
    for sentence in spans.sentences(_TAG.sub(" ", text))[: -_SENTENCES - 1 : -1]:
        if spans.refuses(sentence):
            return Mention(None, 0, 0, False)
        if is_none_left(sentence):
            return Mention(Fraction(0), 0, 0, True)
        if not HAS_DIGIT.search(sentence) and not NUMBER_WORD.search(sentence):
            continue
        stripped = _LIST_LABEL.sub("", sentence) if listed else sentence
        tokens = tokenize(plain(stripped))
        items = without_repeats(tokens, find_items(tokens, _FACTORIAL.search(sentence) is not None), sentence)
        denied |= {number_key(i.value) for i in items if i.value is not None and _denied(tokens, i)}
        if has_digits and not _CONCLUDES.search(sentence):
            items = [item for item in items if not item.in_words]
        items = [item for item in items if item.value is None or number_key(item.value) not in denied]
        item = _choose(tokens, items)
        if item is not None:
            return item
    return None


def _choose(tokens: Sequence[Token], items: Sequence[Mention]) -> Mention | None:
    """The last item of a sentence that is not denied, or one before it that is stated, where the last qualifies it."""
    kept = [item for item in items if not _denied(tokens, item)]
    if not kept:
        return None
    for item in kept:
        after = [text_at(tokens, j) for j in range(item.end, item.end + 3)]
        if after[0] in ("is", "was") and (after[2] if after[1] == "the" else after[1]) in _IS_THE_RESULT:
            return item
    i = len(kept) - 1
    while i > 0 and _is_aside(tokens, kept[i - 1], kept[i]):
        i -= 1
    kept = kept[: i + 1]
    while i > 0 and _qualifies(tokens, kept[i]):
        i -= 1
    if i < len(kept) - 1 and not _is_stated(tokens, kept[i]):
        i = len(kept) - 1
    around = [(a, b) for a, b in ((i - 1, i), (i, i + 1)) if a >= 0 and b < len(kept)]
    if any(_are_several(tokens, kept[a], kept[b]) for a, b in around):
        return Mention(None, kept[i].start, kept[i].end, False)
    return kept[i]


def _is_filler(token: Token) -> bool:
    return token.text in _FILLERS or (token.kind == "word" and len(token.text) == 1)


def _denied(tokens: Sequence[Token], item: Mention) -> bool:
    """Whether "not", "rather than" or "instead of" precedes an item within its clause, or ではない follows it."""
    if any(text_at(tokens, j).startswith(_DENIES_AFTER) for j in (item.end, item.end + 1)):
        return True
    for i in range(item.start - 1, max(item.start - 6, -1), -1):
        text = tokens[i].text
        if text in _DENIES or text.endswith(("n't", *_DENIES_BEFORE)):
            return True
        if (text_at(tokens, i - 1), text) in (("rather", "than"), ("instead", "of"), ("contrary", "to")):
            return True
        if text in _STOPS:
            return False
    return False


def _before(tokens: Sequence[Token], item: Mention) -> str:
    i = item.start - 1
    while text_at(tokens, i) in _DETERMINES:
        i -= 1
    return text_at(tokens, i)


def _qualifies(tokens: Sequence[Token], item: Mention) -> bool:
    before = _before(tokens, item)
    gerund = before.endswith("ing") and text_at(tokens, item.start - 2) in _QUALIFIES
    if before == "of" and text_at(tokens, item.start - 2) in _AMOUNTS:
        return False
    return before in _QUALIFIES or gerund


def _is_aside(tokens: Sequence[Token], one: Mention, other: Mention) -> bool:
    """Whether an item stands in brackets behind another one: "80 (20% off)"."""
    gap = gap_between(tokens, one, other)
    return "(" in gap and ")" not in gap


def _is_stated(tokens: Sequence[Token], item: Mention) -> bool:
    return _before(tokens, item) in STATES or item.start == 0


def _is_chained(tokens: Sequence[Token], one: Mention, other: Mention) -> bool:
    """2 + 3 = 5, 2 cm * 3 cm = 6 cm^2."""
    gap = gap_between(tokens, one, other)
    return bool(gap) and gap[-1] in _EQUALS and all(text.isalpha() or text in "^*/()=°%" for text in gap[:-1])


def _are_several(tokens: Sequence[Token], one: Mention, other: Mention, shown: bool = False) -> bool:
    """Whether two items are one list, range or choice: "2, 3", "3 to 5", "5 apples and 3 pears", "x = 2 or x = 3".

    shown: whether they stand in a box or behind an announcement, where "2 3" is a list as well.
    """
    if one.value is not None and other.value is not None and number_key(one.value) == number_key(other.value):
        return False
    gap = gap_between(tokens, one, other)
    if not gap:
        return shown
    if (len(gap) == 1 and gap[0] in _COMPOUND) or gap == ["}", "{"]:
        return True
    named = len(gap) >= 2 and gap[-1] == "=" and _is_quantity(gap[-2])
    gap = gap[:-2] if named else gap
    # "2x = 6, x = 3" goes on; "x = 2, y = 3" lists.
    derived = named and one.start >= 3 and _is_multiple(tokens, one.start - 2)
    units = 0
    while units < len(gap) and (gap[units].isalpha() or gap[units] in "%°)") and gap[units] not in _ARE_SEVERAL:
        units += 1
    joint = [text for text in gap[units:] if text not in ("(", "either", "=")]
    if not joint or units > 2 or not set(joint) <= _ARE_SEVERAL:
        return False
    if "to" in joint:
        return not units and len(joint) == 1
    if set(joint) <= {",", ";"}:
        if derived:
            return False
        after = tokens[other.end] if other.end < len(tokens) else None
        bare = after is None or after.kind != "word" or after.text in ("and", "or")
        return named or (bare and not units)
    return True


def _is_quantity(text: str) -> bool:
    """x, x_1, x1."""
    return text[:1].isalpha() and (len(text) == 1 or (len(text) <= 5 and not text.isalpha()))


def _is_multiple(tokens: Sequence[Token], i: int) -> bool:
    """Whether token i is a letter with a factor or a term before it, as in 2x."""
    return _is_quantity(text_at(tokens, i)) and (
        tokens[i - 1].kind == "number" or tokens[i - 1].text in ("+", "-", "*")
    )
