"""Which number a text concludes, as a canonical key.

Every value in a sentence is an *item*. The one a reader takes is chosen by what stands around it: what is denied ("not
12 but 13") or only qualifies ("29 for 3 shirts") steps back, and several values side by side ("2 or 3") conclude nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from nex_merge.answers import spans
from nex_merge.answers.arithmetic import Expression, TooLarge, Value
from nex_merge.answers.notation import plain
from nex_merge.answers.tokens import NUMBER_WORD, SCALES, SMALL, Token, tokenize

# Significant digits of a key that is no whole number, and decimals it has at least.
_DIGITS, _DECIMALS = 12, 2


@dataclass(frozen=True)
class Item:
    """One value among the tokens [start, end). `value` is None where digits are no single number."""

    value: Value | None
    start: int
    end: int
    in_words: bool


_FUNCTIONS = frozenset(
    ["log", "ln", "lg", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "exp", "gcd", "lcm", "max", "min", "mod", "binom", "choose"]
)
_LABELS = frozenset(
    ["step", "equation", "eq", "problem", "question", "exercise", "part", "section", "figure", "table", "case", "method", "example", "attempt", "lemma", "q"]
)
# Letters that are quantities in algebra rather than units.
_VARIABLES = frozenset("xyzabcnkpqrtuvwij") - {"t"}
_IS = frozenset(
    ["is", "are", "was", "were", "be", "equals", "equal", "=", "to", "by", "costs", "pays", "has", "have", "gets", "earns", "spends", "makes", "takes", "needs"]
)
_DENIES = frozenset(["not", "never", "cannot", "neither", "nor"])
_STOPS = frozenset([".", ";", ":", ",", "but", "so", "=", "because", "(", ")"])
_QUALIFIES = frozenset(
    ["for", "in", "after", "at", "on", "by", "with", "per", "of", "since", "because", "within", "over", "from", "during", "every", "each", "across", "among", "into", "under", "when", "given", "using", "through"]
)
_NO_NUMBER_AFTER = frozenset(["this", "that", "the", "which", "each", "every", "any", "no", "another", "these", "those", "both", "other"])
_FILLERS = frozenset(
    ["a", "an", "the", "about", "approximately", "approx", "roughly", "around", "nearly", "exactly", "precisely", "just", "only", "simply", "therefore", "thus", "then", "hence", "so", "also", "indeed", "again", "total", "of", "number", "value", "equal", "equals", "to", "is", "are", "be", "=", ":", ".", ",", '"', "'", "(", "[", "{", "*", "#", "-", "~", "given", "by", "option", "minus", "negative", "answer", "final", "it", "that's", "it's"]
)
_EQUALS = frozenset(["=", "equals", "makes", "gives"])
_ARE_SEVERAL = frozenset([",", ";", "and", "or", "&", "to", "…", "through", "until", "versus", "vs"])
_CONCLUDES = re.compile(
    r"\b(?:so|thus|therefore|hence|is|are|was|were|there|remain\w*|left|total|equals|has|have|makes|gives|leav\w+|needs?"
    r"|costs?)\b|=",
    re.IGNORECASE,
)
_HAS_DIGIT = re.compile(r"\d|[¼-¾⅐-⅞]|\\pi|π")
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
        return _first(box, factorials=True)
    for piece in reversed(spans.announced(text)):
        retracted = spans.corrected(piece)
        if retracted is not None and (value := _last(retracted)) is not None:
            return value.value
        for sentence in spans.sentences(piece)[:3]:
            if _items(tokenize(plain(sentence))):
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
    items = _items(tokens, factorials or _FACTORIAL.search(text) is not None)
    kept = [item for item in items if not _denied(tokens, item)]
    if not kept:
        return None
    if not all(_is_filler(token) for token in tokens[: kept[0].start]) and not (len(kept) < len(items)):
        item = _choose(tokens, items)
        return item.value if item else None
    i = 0
    while i + 1 < len(kept) and _is_chained(tokens, kept[i], kept[i + 1]):
        i += 1
    if i + 1 < len(kept) and _are_several(tokens, kept[i], kept[i + 1]):
        return None
    return kept[i].value


def _last(text: str) -> Item | None:
    """The item that a text without announcement ends with."""
    text = spans.without_check(text)
    listed = _LIST.search(text) is not None
    has_digits = _HAS_DIGIT.search(text) is not None
    denied: set[str] = set()
    for sentence in reversed(spans.sentences(_TAG.sub(" ", text))):
        if not _HAS_DIGIT.search(sentence) and not NUMBER_WORD.search(sentence):
            continue
        stripped = _LIST_LABEL.sub("", sentence) if listed else sentence
        tokens = tokenize(plain(stripped))
        items = _items(tokens, _FACTORIAL.search(sentence) is not None)
        denied |= {number_key(i.value) for i in items if i.value is not None and _denied(tokens, i)}
        if has_digits and not _CONCLUDES.search(sentence):
            items = [item for item in items if not item.in_words]
        items = [item for item in items if item.value is None or number_key(item.value) not in denied]
        item = _choose(tokens, items)
        if item is not None:
            return item
    return None


def _choose(tokens: Sequence[Token], items: Sequence[Item]) -> Item | None:
    """The last item of a sentence that is not denied; an earlier one that is stated, where the later ones qualify it."""
    kept = [item for item in items if not _denied(tokens, item)]
    if not kept:
        return None
    i = len(kept) - 1
    while i > 0 and _qualifies(tokens, kept[i]):
        i -= 1
    if i < len(kept) - 1 and not _is_stated(tokens, kept[i]):
        i = len(kept) - 1
    around = [(a, b) for a, b in ((i - 1, i), (i, i + 1)) if a >= 0 and b < len(kept)]
    if any(_are_several(tokens, kept[a], kept[b]) for a, b in around):
        return Item(None, kept[i].start, kept[i].end, False)
    return kept[i]


def _text(tokens: Sequence[Token], i: int) -> str:
    return tokens[i].text if 0 <= i < len(tokens) else ""


def _is_filler(token: Token) -> bool:
    return token.text in _FILLERS or (token.kind == "word" and len(token.text) == 1)


def _denied(tokens: Sequence[Token], item: Item) -> bool:
    """Whether "not", "rather than" or "instead of" precedes an item within its clause."""
    for i in range(item.start - 1, max(item.start - 6, -1), -1):
        text = tokens[i].text
        if text in _DENIES or text.endswith("n't"):
            return True
        if (_text(tokens, i - 1), text) in (("rather", "than"), ("instead", "of")):
            return True
        if text in _STOPS:
            return False
    return False


def _before(tokens: Sequence[Token], item: Item) -> str:
    i = item.start - 1
    while _text(tokens, i) in (
        "a",
        "the",
        "all",
        "only",
        "about",
        "these",
        "those",
        "just",
        "exactly",
        "her",
        "his",
        "total",
    ):
        i -= 1
    return _text(tokens, i)


def _qualifies(tokens: Sequence[Token], item: Item) -> bool:
    return _before(tokens, item) in _QUALIFIES


def _is_stated(tokens: Sequence[Token], item: Item) -> bool:
    return _before(tokens, item) in _IS


def _gap(tokens: Sequence[Token], one: Item, other: Item) -> list[str]:
    return [token.text for token in tokens[one.end : other.start]]


def _is_chained(tokens: Sequence[Token], one: Item, other: Item) -> bool:
    """2 + 3 = 5, 2 cm * 3 cm = 6 cm^2."""
    gap = _gap(tokens, one, other)
    return bool(gap) and gap[-1] in _EQUALS and all(text.isalpha() or text in "^*/()=°%" for text in gap[:-1])


def _are_several(tokens: Sequence[Token], one: Item, other: Item) -> bool:
    """Whether two items are one list, range or choice: "2, 3", "3 to 5", "5 apples and 3 pears", "x = 2 or x = 3"."""
    if one.value is not None and other.value is not None and number_key(one.value) == number_key(other.value):
        return False
    gap = _gap(tokens, one, other)
    if not gap:
        return True
    named = len(gap) >= 2 and gap[-1] == "=" and gap[-2].isalpha() and len(gap[-2]) == 1
    gap = gap[:-2] if named else gap
    units = 0
    while units < len(gap) and (gap[units].isalpha() or gap[units] in "%°)") and gap[units] not in _ARE_SEVERAL:
        units += 1
    joint = [text for text in gap[units:] if text not in ("(", "either", "=")]
    if not joint or units > 2 or not set(joint) <= _ARE_SEVERAL:
        return False
    if set(joint) == {"to"}:
        return not units
    if set(joint) <= {",", ";"}:
        after = tokens[other.end] if other.end < len(tokens) else None
        bare = after is None or after.kind != "word" or after.text in ("and", "or")
        return named or (bare and not units)
    return True


def _items(tokens: list[Token], factorials: bool = False) -> list[Item]:
    """All items of a sentence, in order."""
    items: list[Item] = []
    i = 0
    while i < len(tokens):
        item, after = _item_at(tokens, i, factorials)
        if item is not None:
            items.append(item)
        i = max(after, i + 1)
    return items


def _item_at(tokens: list[Token], i: int, factorials: bool) -> tuple[Item | None, int]:
    """The item that begins at token i, if any, and the token to go on with."""
    token, before = tokens[i], _text(tokens, i - 1)
    if token.kind == "puzzle":
        return Item(None, i, i + 1, False), i + 1
    if token.text in _LABELS and (skip := _after_label(tokens, i + 1)):
        return None, skip
    if token.text == "^":  # the exponent of a unit
        return None, _after_exponent(tokens, i + 1)
    sign = 1
    start = i
    if token.text in ("minus", "negative") and i + 1 < len(tokens):
        sign, start = -1, i + 1
    elif token.text in ("-", "+") and not _is_sign(tokens, i):
        return None, i + 1
    if not _may_begin(tokens, start):
        return None, i + 1
    if token.text in "([{" and token.text and (after := _after_tuple(tokens, i, factorials)):
        return Item(None, i, after, False), after
    expression = Expression(tokens, start, factorials)
    try:
        value = expression.read()
    except TooLarge:
        return Item(None, i, max(expression.at, start + 1), False), max(expression.at, start + 1)
    if value is None or expression.at == start:
        return None, i + 1
    end = expression.at
    in_words = all(t.kind == "word" for t in tokens[start:end])
    if in_words and (before in _NO_NUMBER_AFTER or (end == start + 1 and token.text == "e")):
        return None, end
    value = None if _is_no_number(tokens, i, start, end) else sign * value
    return Item(value, i, end, in_words), end


def _may_begin(tokens: list[Token], i: int) -> bool:
    token = tokens[i]
    if token.kind == "number" or token.text in ("(", "[", "{", "root", "sqrt", "pi", "-", "+", "half"):
        return True
    scale = token.text in ("a", "an", "one") and _text(tokens, i + 1) in {*SCALES, "half", "third", "quarter"}
    return token.text in SMALL or scale or token.text in SCALES


def _after_label(tokens: list[Token], i: int) -> int:
    """The token after the number of a label: Step 2, Equation (3)."""
    bracket = _text(tokens, i) in ("(", ".", "#")
    if i + bracket < len(tokens) and tokens[i + bracket].kind in ("number", "puzzle"):
        return i + bracket + 1 + (_text(tokens, i + bracket + 1) == ")")
    return 0


def _after_exponent(tokens: list[Token], i: int) -> int:
    while i < len(tokens) and (tokens[i].kind == "number" or tokens[i].text in ("(", ")", "-")):
        i += 1
        if tokens[i - 1].kind == "number" and _text(tokens, i) != ")":
            break
        if tokens[i - 1].text == ")":
            break
    return i


def _is_sign(tokens: list[Token], i: int) -> bool:
    """Whether a minus or plus is a sign: not a dash between words, nor behind something that is no number."""
    if i == 0 or i + 1 >= len(tokens):
        return True
    glued = tokens[i].end == tokens[i + 1].start
    before = tokens[i - 1]
    return before.kind != "word" or before.text in _IS or glued or tokens[i].text == "+"


def _after_tuple(tokens: list[Token], i: int, factorials: bool) -> int:
    """The token after (1, 5), [1, 5), {1, 2}; 0 if there is none at i."""
    expression = Expression(tokens, i + 1, factorials)
    try:
        if expression.read() is None or _text(tokens, expression.at) not in (",", ";", "…"):
            listed = i + 1 < len(tokens) and tokens[i + 1].kind == "puzzle" and "," in tokens[i + 1].text
            return i + 2 if listed else 0
    except TooLarge:
        return 0
    for j in range(expression.at, min(len(tokens), expression.at + 60)):
        if tokens[j].text in ")]}" and tokens[j].text:
            return j + 1
        if tokens[j].kind == "word" and len(tokens[j].text) > 2 and tokens[j].text not in ("infinity", "root", "sqrt"):
            return 0
    return 0


def _is_no_number(tokens: list[Token], i: int, start: int, end: int) -> bool:
    """Whether the value of tokens [start, end) is a range, part of an inequality or of algebra."""
    before, after = _text(tokens, i - 1), _text(tokens, end)
    span = tokens[start:end]
    if len(span) == 3 and span[1].text == "-" and span[0].value is not None and span[2].value is not None:
        glued = span[0].end == span[1].start and span[1].end == span[2].start
        if glued or span[0].value < span[2].value:
            return True
    if before in ("<", ">", "±", "_") or after in ("<", ">", "±", "_") or before in _FUNCTIONS:
        return True
    if before in ("+", "*", "/", "^") and i > 1 and before:
        return tokens[i - 2].kind == "word" or tokens[i - 2].text in ")]"
    if (
        tokens[i].text in ("-", "+")
        and i
        and (before == ")" or (tokens[i - 1].kind == "word" and _is_variable(tokens, i - 1)))
    ):
        return True
    glued_letter = end < len(tokens) and tokens[end].kind == "word" and tokens[end].start == tokens[end - 1].end
    if glued_letter and after in _VARIABLES:
        return True
    operator = after in ("+", "-", "*", "/") and end + 1 < len(tokens) and _is_variable(tokens, end + 1)
    spaced = after in _VARIABLES and len(after) == 1 and _text(tokens, end + 1) in ("^", "+", "-", "*")
    return bool(after) and (operator or (spaced and after != "a"))


def _is_variable(tokens: list[Token], i: int) -> bool:
    return tokens[i].kind == "word" and tokens[i].text in _VARIABLES
