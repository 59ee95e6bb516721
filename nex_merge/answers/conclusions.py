"""A response -> what it concludes, as a canonical key, and whether that is the known answer.

Responses with equal keys conclude the same, so that votes are an equivalence. Ways to read an answer (`match`):

- `number`: the value of the number it concludes, whatever its spelling;
- `choice`: the letter of the option it concludes;
- `text`: what it says, apart from case, articles, quotes and punctuation at the ends;
- `regex:PATTERN`: the pattern's first group (the whole match, where it has none) at its last occurrence.

Each reads what stands after the thinking and before the next question: the last box, else what the last announcement
names ("The answer is ..."), else what the text ends with. docs/answers.md has the rules.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from nex_merge.answers import mathematics
from nex_merge.answers.choices import read_choice, read_gold_choice
from nex_merge.answers.numbers import number_key, read_number
from nex_merge.answers.spans import readable
from nex_merge.answers.texts import text_answer
from nex_merge.answers.thinking import after_thinking, is_closed, is_open
from nex_merge.answers.turns import first_turn
from nex_merge.errors import InputError
from nex_merge.wording import counted

# Raised when answers are read otherwise than before, so that accuracies are measured again.
READING = 3
MATCHES = ("number", "choice", "text", "regex:PATTERN")
_REGEX = "regex:"
_LETTERS = 26
# Seconds that a pattern may take on one response; patterns that backtrack take exponential time.
_PATTERN_SECONDS = 2.0
_LONGEST_PATTERN = 1000
# Two numbers that differ by less, relatively, may be one: math-verify decides about 1/3 and 0.333333.
_NEAR = 1e-6
_DECIMAL = re.compile(r"\s*[-+−]?[\d.,\s]*%?\s*")
_ABOUT = re.compile(r"≈|\\approx(?![A-Za-z])")
_POINTS_OUTSIDE = re.compile(r"\\[bBAZzG1-9]|\(\?|[\^$]")

Key = str


@dataclass(frozen=True)
class Gold:
    """A known answer, read as responses are. At least one of `key` and `expression` is there."""

    match: str
    key: Key | None
    expression: str | None  # mathematics that math-verify reads, for numbers
    options: int  # letters that are options, for choices

    def is_answered_by(self, response: str) -> bool:
        """Whether a response concludes this answer: by equal keys or, for mathematics, by math-verify's verdict."""
        key = conclude(response, self.match, self.options)
        if key is not None and key == self.key:
            return True
        if self.match != "number":
            return False
        # Of "1/3 ≈ 0.333", which concludes 1/3, the other side answers as well.
        about = _ABOUT.sub("=", response)
        if self.key is not None and about != response and conclude(about, self.match) == self.key:
            return True
        if self.expression is None:
            return False
        expression = mathematics.expression(readable(answer_of(response)))
        if expression is None or (
            self.key is not None and _DECIMAL.fullmatch(expression) and _DECIMAL.fullmatch(self.expression)
        ):
            return False
        if key is not None and self.key is not None and not _are_near(key, self.key):
            return False
        return mathematics.is_equal(expression, self.expression, self.key is not None)


def conclude(text: str, match: str = "text", options: int | None = None) -> Key | None:
    """What a response's text concludes, or None where it concludes nothing.

    options: how many options a multiple-choice question has; letters beyond are none of them.
    Raises InputError where `match` is no way to read an answer.

    >>> conclude("<think>3 or 4?</think> It is 1,200.", "number")
    '1200'
    >>> conclude("The answer is 3/4, not 2/3.", "number")
    '0.75'
    >>> conclude("A or B? The answer is B.", "choice")
    'B'
    >>> conclude("The Eiffel Tower.")
    'eiffel tower'
    >>> conclude("so x = 7", "regex:x = ([0-9]+)")
    '7'
    >>> conclude("between 3 and 5", "number") is None
    True
    """
    if match == "number":
        value = read_number(readable(answer_of(text)))
        return None if value is None else number_key(value)
    if match == "choice":
        return read_choice(readable(answer_of(text)), options or _LETTERS)
    if match == "text":
        return text_answer(answer_of(text))
    return _last_occurrence(_pattern(match), answer_of(text))


def is_correct(response: str, gold: str, match: str = "text", options: int | None = None) -> bool:
    """Whether a response concludes the known answer `gold`, read by `match` as `conclude` does.

    Their keys are equal or, for numbers, math-verify takes the two expressions for the same. Raises InputError where
    `match` is no way to read an answer, or no response could ever conclude `gold`.

    >>> is_correct(r"So it is \\boxed{\\frac{3}{4}}.", "0.75", "number")
    True
    >>> is_correct(r"\\boxed{x^2 + 2x + 1}", "(x + 1)^2", "number")
    True
    >>> is_correct("I choose (b).", "B", "choice")
    True
    """
    check_match(match, "match")
    try:
        return read_gold(gold, match, options).is_answered_by(response)
    except ValueError as error:
        raise InputError(f"gold: {gold!r} cannot be read as {match}: {error}") from None


def read_gold(answer: str, match: str, options: int | Sequence[str] | None = None) -> Gold:
    """A known answer. `options`: a multiple-choice question's options, or how many there are.

    Raises ValueError, saying what to write instead, where no response could ever conclude it.
    """
    count = options if isinstance(options, int) else len(options) if options else _LETTERS
    key, expression = None, None
    if match == "number":
        key, expression = conclude(answer, match), mathematics.gold_expression(answer)
        if key is None and (expression is None or not mathematics.can_be_read(expression)):
            raise ValueError("expected one number, such as 12, 3/4 or 1.5e3, or an expression, such as x^2 + 1")
    elif match == "choice":
        key = read_gold_choice(answer, count, () if isinstance(options, int) else options or ())
    elif match == "text":
        key = conclude(answer, match)
    else:
        key = " ".join(answer.split())
        if key and not _can_match(_pattern(match), answer.strip()):
            raise ValueError("the pattern matches no such text; write what its group would match")
    if (key is None and expression is None) or key == "":
        raise ValueError("it is empty; write the answer, or leave the line out")
    return Gold(match, key, expression, count)


def answer_of(response: str) -> str:
    """What a response answers: without its thinking, and without what it asks itself afterwards."""
    return after_thinking(first_turn(response))


def is_unfinished(text: str, truncated: bool, thinking: bool) -> bool:
    """Whether a response was cut off while thinking; `thinking`: whether its prompt asked for thinking first."""
    return is_open(first_turn(text)) or (thinking and truncated and not is_closed(text))


def check_match(match: str, source: str = "--match", *besides: str) -> None:
    """Refuse, with InputError naming `source`, what is no way to read an answer, nor one of `besides`."""
    known = (*besides, *MATCHES[:-1])
    if match.startswith(_REGEX):
        _pattern(match, source)
    elif match not in known:
        raise InputError(f"{source}: expected {', '.join(known)} or {MATCHES[-1]}, got {match!r}")


def _are_near(one: Key, other: Key) -> bool:
    a, b = float(one), float(other)
    return abs(a - b) <= _NEAR * max(abs(a), abs(b))


@lru_cache(maxsize=64)
def _pattern(match: str, source: str = "match") -> "regex.Pattern[str]":
    if not match.startswith(_REGEX):
        check_match(match, source)
    pattern = match.removeprefix(_REGEX)
    if len(pattern) > _LONGEST_PATTERN:
        raise InputError(
            f"{source}: expected a regular expression of at most {_LONGEST_PATTERN:,} characters, got {len(pattern):,}"
        )
    try:
        return regex.compile(pattern)
    except (RecursionError, MemoryError, OverflowError):
        raise InputError(f"{source}: {match[:60]!r}... is nested too deeply for a regular expression") from None
    except regex.error as error:
        raise InputError(f"{source}: {match!r} is not a valid regular expression: {error}") from None


def _last_occurrence(pattern: "regex.Pattern[str]", text: str) -> Key | None:
    try:
        found = list(pattern.finditer(text, timeout=_PATTERN_SECONDS))
    except TimeoutError:
        raise InputError(
            f"match: the pattern {pattern.pattern!r} took more than {_PATTERN_SECONDS:g} s on a response "
            f"of {counted(len(text), 'character')}. Repetitions within repetitions, such as (a+)+, take "
            f"exponential time; "
            "write it without them"
        ) from None
    if not found:
        return None
    key = found[-1].group(1) if pattern.groups else found[-1].group()
    return " ".join((key or "").split()) or None


def _can_match(pattern: "regex.Pattern[str]", answer: str) -> bool:
    """Whether the pattern's first group (all of it, where it has none) can match an answer, as far as can be told."""
    part = _first_group(pattern.pattern) if pattern.groups else pattern.pattern
    if part is None or _POINTS_OUTSIDE.search(part):  # it depends on what stands around it
        return True
    try:
        return regex.fullmatch(part, answer, flags=pattern.flags, timeout=_PATTERN_SECONDS) is not None
    except (regex.error, TimeoutError):
        return True


def _first_group(pattern: str) -> str | None:
    """The first group of a regular expression without its brackets; None where brackets are not only groups."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", lambda found: "." * len(found.group()), pattern)
    start = re.search(r"\((?!\?)|\(\?P?<(?![=!])\w+>", plain)
    if start is None:
        return None
    depth = 1
    for i in range(start.end(), len(plain)):
        depth += (plain[i] == "(") - (plain[i] == ")")
        if not depth:
            return pattern[start.end() : i]
    return None
