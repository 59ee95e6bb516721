"""A sentence in plain characters -> tokens: numbers with their values, words, operators, and what only looks like one.

Knows how a number is written; knows nothing of arithmetic, nor of which number is the conclusion.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# number: has a value; word; operator: one character; puzzle: digits that are no single number (a date, a list, a time).
Kind = Literal["number", "word", "operator", "puzzle"]


@dataclass(frozen=True)
class Token:
    kind: Kind
    text: str  # words in lower case
    value: Fraction | None
    start: int
    end: int


LONGEST = 400  # digits of a number that is read
_LARGEST_EXPONENT = 400
_UNIT_TIMES = r"(?:\s?[ap]\.?m\b)?"
_TOKEN = re.compile(
    "|".join(
        [
            # Dates, times and ratios, telephone numbers, versions, numbers to another base.
            r"(?P<puzzle>(?<![\d.])(?:\d{1,4}(?P<dash>[-/])\d{1,2}(?P=dash)\d{2,4}(?!\d)"
            rf"|\d{{1,3}}:\d+(?::\d+)*{_UNIT_TIMES}"
            r"|\+?(?:\d{1,3}[- ])?\(?\d{3}\)?[- ]\d{3}-\d{4}(?!\d)|\d{3}-\d{4}(?!\d)"
            r"|\d+(?:/\d+){2,}|\d+_(?!\d{3}(?!\d))\(?\d+\)?))",
            # Names with digits: H2O, x1, x_1, COVID-19.
            r"(?P<name>[^\W\d_]+(?:_\(?\w+\)?|\d\w*)|[^\W\d_]{3,}-\d+(?![\d.]))",
            # 1.250,50 and 1.250.000; 1,250,000 and 1 250 and 1'250 and 1_250; 12,34,567; 0,125.
            r"(?P<dotted>(?<![\d.,])[1-9]\d{0,2}(?:(?:\.\d{3})+,\d{1,2}|(?:\.\d{3}){2,})(?![.,]?\d))",
            r"(?P<grouped>(?<![\d.,])[1-9]\d{0,2}(?P<mark>[ ,'_])\d{3}(?:(?P=mark)\d{3})*(?:\.\d+)?(?!\d|[,'_]\d))",
            r"(?P<lakh>(?<![\d.,])[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?(?!\d|,\d))",
            r"(?P<comma>(?<![\d.,])0,\d{2,}(?![,.]?\d))",
            # 2,3 and 1.2.3: several values, a version.
            r"(?P<several>\d+(?:,\d+)+(?:\.\d+)?|\d+(?:\.\d+){2,})",
            r"(?P<number>(?:\d+(?:\.\d+)?|(?<![\w)])\.\d+)(?:[eE][-+]?\d+(?![\w]))?)(?:(?:st|nd|rd|th)\b)?",
            r"(?P<word>[^\W\d_]+(?:'[^\W\d_]+)?)",
            r"(?P<operator>\.\.\.|[^\w\s])",
        ]
    )
)

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SMALL: Mapping[str, int] = {w: i for i, w in enumerate(_ONES)} | {w: 10 * i for i, w in enumerate(_TENS, 2)}
SCALES: Mapping[str, int] = {
    "hundred": 100, "dozen": 12, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
PARTS: Mapping[str, int] = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5,
    "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8, "ninth": 9,
    "ninths": 9, "tenth": 10, "tenths": 10, "twelfth": 12, "twelfths": 12, "hundredth": 100, "hundredths": 100,
    "thousandth": 1000, "thousandths": 1000,
}  # fmt: skip
NUMBER_WORD = re.compile(rf"\b(?:{'|'.join([*SMALL, *SCALES, *PARTS])})\b", re.IGNORECASE)
_HYPHEN = re.compile(r"(?<=[A-Za-z])-(?=[A-Za-z])")


def tokenize(text: str) -> list[Token]:
    """The tokens of a text in plain characters."""
    text = _HYPHEN.sub(" ", text)
    tokens = []
    for found in _TOKEN.finditer(text):
        group = found.lastgroup or ""
        written = found.group()
        if group in ("word", "operator"):
            tokens.append(Token(group, written.lower(), None, found.start(), found.end()))  # type: ignore[arg-type]
        elif group == "name":
            tokens.append(Token("word", written.lower(), None, found.start(), found.end()))
        else:
            value = _value(found.group(group), group)
            kind: Kind = "puzzle" if value is None else "number"
            tokens.append(Token(kind, written, value, found.start(), found.end()))
    return tokens


def _value(digits: str, group: str) -> Fraction | None:
    if group in ("puzzle", "several") or len(digits) > LONGEST:
        return None
    if group == "dotted":
        digits = digits.replace(".", "").replace(",", ".")
    elif group in ("grouped", "lakh"):
        digits = re.sub("[ ,'_]", "", digits)
    if digits.isdecimal():
        return Fraction(int(digits))
    digits = digits.replace(",", ".").lower()
    _, _, exponent = digits.partition("e")
    if exponent and abs(int(exponent[:9])) > _LARGEST_EXPONENT:
        return None
    return Fraction(digits)


def spelled(tokens: list[Token], i: int) -> tuple[Fraction, int] | None:
    """The number in words that begins at token i (`two and a half`, `3 million`), and the token after it."""
    first = tokens[i]
    if first.value is not None and (i + 1 == len(tokens) or tokens[i + 1].kind != "word"):
        return first.value, i + 1
    total, current, j = Fraction(0), None, i
    while j < len(tokens):
        token = tokens[j]
        if token.kind == "number" and j == i:
            current = token.value
        elif token.kind == "word" and token.text in SMALL and (current is None or _continues(current, token.text)):
            current = (current or Fraction(0)) + SMALL[token.text]
        elif token.kind == "word" and token.text in SCALES:
            scale = SCALES[token.text]
            current = (Fraction(1) if current is None else current) * scale
            if scale >= 1000:
                total, current = total + current, None
        elif (token.text == "and" and j > i and _follows_and(tokens, j)) or (
            token.text in ("a", "an") and j == i and j + 1 < len(tokens) and tokens[j + 1].text in ("hundred", *SCALES)
        ):
            pass
        else:
            break
        j += 1
    decimals = _decimals(tokens, j) if current is not None and j > i else ""
    if decimals and current is not None:
        return total + current + Fraction(f"0.{decimals}"), j + 1 + len(decimals)
    if j > i and tokens[j - 1].text == "and":
        j -= 1
    return _with_part(tokens, i, j, total + (current or 0) if total or current is not None else None)


def _decimals(tokens: list[Token], j: int) -> str:
    """The digits of "point two five"."""
    digits = ""
    if tokens[j : j + 1] and tokens[j].text == "point":
        for token in tokens[j + 1 :]:
            if SMALL.get(token.text, 10) > 9:
                break
            digits += str(SMALL[token.text])
    return digits


def _continues(current: Fraction, word: str) -> bool:
    """Whether a small number goes on with another one: one hundred | five, twenty | one."""
    room = 100 if current % 100 == 0 else 10 if current % 10 == 0 and current % 100 >= 20 else 0
    return current != 0 and 0 < SMALL[word] < room


def _follows_and(tokens: list[Token], j: int) -> bool:
    """One hundred and five, but not "two and five"."""
    after = tokens[j + 1].text if j + 1 < len(tokens) else ""
    return tokens[j - 1].text in ("hundred", "thousand", "million") and after in SMALL


def _with_part(tokens: list[Token], i: int, j: int, value: Fraction | None) -> tuple[Fraction, int] | None:
    """A number with what follows it as a part: three quarters, two and a half, half."""
    words = [token.text for token in tokens[j : j + 3]]
    if value is not None and words[:2] == ["and", "a"] and words[2:] and words[2] in PARTS:
        return value + Fraction(1, PARTS[words[2]]), j + 3
    if value is not None and words and words[0] in PARTS and (value == 1) != words[0].endswith("s"):
        return value / PARTS[words[0]], j + 1
    if value is None and words and words[0] == "half":
        return Fraction(1, 2), j + 1
    if value is None and words[:2] and words[0] == "a" and words[1:2] and words[1] in PARTS:
        return Fraction(1, PARTS[words[1]]), j + 2
    return None if value is None else (value, j)
