"""What in a sentence says another value once more or measures it: wholes of parts, roundings; and what says "none".

Knows items and their neighbours; knows nothing of which one is the conclusion.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from nex_merge.answers.announcements import alternatives, spaced
from nex_merge.answers.tokens import Token
from nex_merge.answers.values import HAS_DIGIT, Mention, gap_between, text_at, words

_ABOUT = words("≈ about approximately roughly around")
_OR = words(", or ( which is that")
# Between a part and its whole: 7 out of 12, 7 keys of the 12, 7 of 12.
_OUT_OF = re.compile(
    r"(?:[^\W\d]+ ){0,2}?(?<!\w)"
    rf"(?:{spaced('out_of')}|of (?:the|his|her|its|their|my|our|these|those|a total of)|(?<! )(?:of|de|di|von))"
)
_PROBABILITY = re.compile(r"probab|chance|likelihood|odds|fraction|proportion", re.IGNORECASE)
# An amount is meant as it is rounded.
_ROUNDED_MONEY = re.compile(r"(?:≈|\\approx|about|approximately|roughly)\s*(?:\\?\$|[€£¥])\s?\d+\.\d\d\b")
_NONE_LEFT = re.compile(alternatives("none_left"), re.IGNORECASE)
_BESIDE = re.compile(r"\b(?:and|with|but|und|et|y|e)\s*\W*$", re.IGNORECASE)
_CLAUSE = re.compile(r"[,;.]")


def is_none_left(sentence: str) -> bool:
    """Whether a sentence states that 0 are left, and not beside a number ("14 apples and no pears left")."""
    matches = list(_NONE_LEFT.finditer(sentence))
    if not matches or HAS_DIGIT.search(sentence, matches[-1].end()):
        return False
    before = sentence[: matches[-1].start()]
    numbers = list(HAS_DIGIT.finditer(before))
    if not numbers:
        return True
    return _CLAUSE.search(before, numbers[-1].end()) is not None and _BESIDE.search(before) is None


def without_repeats(tokens: Sequence[Token], items: Sequence[Mention], sentence: str) -> list[Mention]:
    """Items without the wholes that others are parts of (7 out of 12) and the roundings of exact ones (1/3 ≈ 0.333)."""
    kept = list(items[:1])
    for item in items[1:]:
        gap = gap_between(tokens, kept[-1], item)
        part, whole = kept[-1].value, item.value
        if _is_out_of(part, gap, whole):
            if _PROBABILITY.search(sentence) and part is not None and whole is not None:
                kept[-1] = replace(item, value=part / whole, start=kept[-1].start)
        elif not _is_rounded(tokens, kept[-1], gap, item) or _ROUNDED_MONEY.search(sentence):
            if gap == ["≈"] and item.is_exact and not kept[-1].is_exact:
                kept.pop()
            kept.append(item)
    return kept


def _is_out_of(part: object, gap: Sequence[str], whole: object) -> bool:
    if not (isinstance(part, Fraction) and isinstance(whole, Fraction)) or part.denominator * whole.denominator != 1:
        return False
    return 0 <= part <= whole > 0 and _OUT_OF.fullmatch(" ".join(gap)) is not None


def _is_rounded(tokens: Sequence[Token], exact: Mention, gap: Sequence[str], item: Mention) -> bool:
    """Whether an item is the rounding of the exact one before it; to a whole number, it is rounded on purpose."""
    if not gap or not exact.is_exact or item.is_exact or item.value is None or item.value == int(item.value):
        return False
    if gap[-1] == "≈":
        return all(text.isalpha() or text in "^*/()°%" for text in gap[:-1])
    return (gap == ["="] and text_at(tokens, item.end) == "...") or (gap[-1] in _ABOUT and _OR.issuperset(gap[:-1]))
