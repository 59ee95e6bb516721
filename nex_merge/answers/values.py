"""The values in a sentence: tokens -> items, each with its value, or with none where digits are no single number.

Knows arithmetic, units and labels; knows nothing of which item is the conclusion.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nex_merge.answers.announcements import word_set
from nex_merge.answers.arithmetic import Expression, TooLarge, Value
from nex_merge.answers.tokens import SCALES, SMALL, Token


@dataclass(frozen=True)
class Mention:
    """One value among the tokens [start, end). `value` is None where digits are no single number."""

    value: Value | None
    start: int
    end: int
    in_words: bool
    is_exact: bool = False  # whether it is written as an expression, 1/3, rather than as a decimal number


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Behind these a value is stated, and a minus is a sign.
STATES = words(
    "is are was were be equals equal = ≈ to by costs pays has have gets earns spends makes takes needs so thus "
    "therefore hence then total"
) | word_set("states")
_FUNCTIONS = words(
    "log ln lg sin cos tan cot sec csc arcsin arccos arctan exp gcd lcm max min mod binom choose lfloor lceil"
)
HAS_DIGIT = re.compile(r"\d|[¼-¾⅐-⅞]|\\pi|π")
# What is numbered, and days of months, are no values. (May is left out: it is a verb.)
_LABELS = words(
    "step equation eq problem question exercise part section figure table case method example attempt lemma q january "
    "february march april june july august september october november december"
)
# Letters that are quantities in algebra rather than units.
_VARIABLES = frozenset("xyzabcnkpqruvwij")
_NO_NUMBER_AFTER = words("this that the which each every any no another these those both other")
_MODAL_VERBS = words("cannot could may might must should would")
_IN_TUPLES = words("infinity infty root sqrt")


def text_at(tokens: Sequence[Token], i: int) -> str:
    """The text of token i, '' beyond the ends."""
    return tokens[i].text if 0 <= i < len(tokens) else ""


def gap_between(tokens: Sequence[Token], one: Mention, other: Mention) -> list[str]:
    """What stands between two items."""
    return [token.text for token in tokens[one.end : other.start]]


def find_items(tokens: list[Token], factorials: bool = False) -> list[Mention]:
    """All items of a sentence, in order."""
    items: list[Mention] = []
    i = 0
    while i < len(tokens):
        item, after = _item_at(tokens, i, factorials)
        if item is not None:
            items.append(item)
        i = max(after, i + 1)
    return items


def _item_at(tokens: list[Token], i: int, factorials: bool) -> tuple[Mention | None, int]:
    """The item that begins at token i, if any, and the token to go on with."""
    token, before = tokens[i], text_at(tokens, i - 1)
    if token.kind == "puzzle":
        return Mention(None, i, i + 1, False), i + 1
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
    if token.text in ("(", "[", "{") and (after := _after_tuple(tokens, i, factorials)):
        return Mention(None, i, after, False), after
    expression = Expression(tokens, start, factorials)
    try:
        value = expression.read()
    except TooLarge:
        return Mention(None, i, max(expression.at, start + 1), False), max(expression.at, start + 1)
    if value is None or expression.at == start:
        # binom(n; 2) has no value, and neither have its parts.
        closes = (j + 1 for j in range(start, min(start + 20, len(tokens))) if tokens[j].text == ")")
        after = next(closes, 0) if tokens[start].text == "binom" else 0
        return (Mention(None, i, after, False), after) if after else (None, i + 1)
    end = expression.at
    in_words = all(t.kind == "word" for t in tokens[start:end])
    if in_words and (before in _NO_NUMBER_AFTER or (end == i + 1 and (token.text == "e" or _is_pronoun(tokens, i)))):
        return None, end
    value = None if _is_no_number(tokens, i, start, end) else sign * value
    return Mention(value, i, end, in_words, _is_exact(expression, tokens[start:end])), end


def _is_exact(expression: Expression, span: Sequence[Token]) -> bool:
    """Whether tokens are a closed form, such as 1/3 or 2 sqrt(3), rather than a decimal number or a calculation."""
    texts = [token.text for token in span]
    if any("." in text for text in texts) or "+" in texts or "-" in texts[1:]:
        return any(text in ("sqrt", "root", "pi") for text in texts) and not any("." in text for text in texts)
    if any(text in ("sqrt", "root", "pi") for text in texts):
        return True
    digits = [int(token.value) for token in span if token.value is not None]
    return expression.computed and "/" in texts and "*" not in texts and (len(digits) != 2 or math.gcd(*digits) == 1)


def _is_pronoun(tokens: list[Token], i: int) -> bool:
    """Whether token i is "one" as in "a smaller one" and "one cannot"."""
    return tokens[i].text == "one" and (text_at(tokens, i - 2) in ("a", "an") or text_at(tokens, i + 1) in _MODAL_VERBS)


def _may_begin(tokens: list[Token], i: int) -> bool:
    token = tokens[i]
    if token.kind == "number" or token.text in ("(", "[", "{", "root", "sqrt", "binom", "pi", "-", "+", "half"):
        return True
    scale = token.text in ("a", "an", "one") and text_at(tokens, i + 1) in {*SCALES, "half", "third", "quarter"}
    return token.text in SMALL or scale or token.text in SCALES


def _after_label(tokens: list[Token], i: int) -> int:
    """The token after the number of a label: Step 2, Equation (3)."""
    bracket = text_at(tokens, i) in ("(", ".", "#")
    if i + bracket < len(tokens) and tokens[i + bracket].kind in ("number", "puzzle"):
        return i + bracket + 1 + (text_at(tokens, i + bracket + 1) == ")")
    return 0


def _after_exponent(tokens: list[Token], i: int) -> int:
    while i < len(tokens) and (tokens[i].kind == "number" or tokens[i].text in ("(", ")", "-")):
        i += 1
        if tokens[i - 1].kind == "number" and text_at(tokens, i) != ")":
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
    return before.kind != "word" or before.text in STATES or glued or tokens[i].text == "+"


def _after_tuple(tokens: list[Token], i: int, factorials: bool) -> int:
    """The token after (1, 5), [1, 5), {1, 2}; 0 if there is none at i."""
    expression = Expression(tokens, i + 1, factorials)
    try:
        if expression.read() is None or text_at(tokens, expression.at) not in (",", ";", "…"):
            listed = i + 1 < len(tokens) and tokens[i + 1].kind == "puzzle" and "," in tokens[i + 1].text
            return i + 2 if listed else 0
    except TooLarge:
        return 0
    for j in range(expression.at, min(len(tokens), expression.at + 60)):
        if tokens[j].text in (")", "]", "}"):
            return j + 1
        if tokens[j].kind == "word" and len(tokens[j].text) > 2 and tokens[j].text not in _IN_TUPLES:
            return 0
    return 0


def _is_no_number(tokens: list[Token], i: int, start: int, end: int) -> bool:
    """Whether the value of tokens [start, end) is a range, part of an inequality or of algebra."""
    before, after = text_at(tokens, i - 1), text_at(tokens, end)
    span = tokens[start:end]
    if len(span) == 3 and span[1].text == "-" and span[0].value is not None and span[2].value is not None:
        glued = span[0].end == span[1].start and span[1].end == span[2].start
        if glued or span[0].value < span[2].value:
            return True
    if before in ("<", ">", "±", "_") or after in ("<", ">", "±", "_") or _is_argument(tokens, i):
        return True
    if before in ("+", "*", "/", "^") and i > 1:
        return tokens[i - 2].kind == "word" or tokens[i - 2].text in (")", "]") or _ends_algebra(tokens, i - 2)
    is_signed = i > 0 and tokens[i].text in ("-", "+")
    if is_signed and (before == ")" or _is_variable(tokens, i - 1) or _ends_algebra(tokens, i - 1)):
        return True
    glued_letter = end < len(tokens) and tokens[end].kind == "word" and tokens[end].start == tokens[end - 1].end
    if glued_letter and after in _VARIABLES:
        return True
    operator = after in ("+", "-", "*", "/") and end + 1 < len(tokens) and _is_variable(tokens, end + 1)
    spaced = after in _VARIABLES and text_at(tokens, end + 1) in ("^", "+", "-", "*")
    return operator or (spaced and after != "a")


def _ends_algebra(tokens: list[Token], i: int) -> bool:
    """Whether token i ends a power of a variable: the 2 of x^2, the bracket of x^(2)."""
    while i > 1 and tokens[i].text in ("(", ")", "-"):
        i -= 1
    if i < 2 or tokens[i].kind != "number":
        return False
    i -= 1
    while i > 1 and tokens[i].text in ("(", "-"):
        i -= 1
    return tokens[i].text == "^" and (tokens[i - 1].kind == "word" or tokens[i - 1].text == ")")


def _is_argument(tokens: list[Token], i: int) -> bool:
    """Whether a function's name precedes token i: log 8, sin(30), binom{5}."""
    i -= 1
    while text_at(tokens, i) in ("(", "{"):
        i -= 1
    return text_at(tokens, i) in _FUNCTIONS


def _is_variable(tokens: list[Token], i: int) -> bool:
    return tokens[i].kind == "word" and tokens[i].text in _VARIABLES
