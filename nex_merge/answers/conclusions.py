"""A response -> what it concludes, as a key: responses with equal keys conclude the same.

Ways to read an answer (`match`):

- `number`: the last number;
- `choice`: the last capital letter that stands alone;
- `text`: all of it, runs of white space as one blank;
- `regex:PATTERN`: the pattern's first group (the whole match, where it has none) at its last occurrence.

Each reads what stands after the thinking.
"""

import re

from nex_merge.errors import InputError

MATCHES = ("number", "choice", "text", "regex:PATTERN")
_REGEX = "regex:"
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)(?:\.\d+)?")
_CHOICE = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")

Key = str | float


def conclude(text: str, match: str = "text") -> Key | None:
    """What a response's text concludes, or None where it concludes nothing.

    Raises InputError where `match` is no way to read an answer.

    >>> conclude("<think>3 or 4?</think> It is 1,200.", "number")
    1200.0
    >>> conclude("A or B? The answer is B.", "choice")
    'B'
    >>> conclude("so x = 7", "regex:x = ([0-9]+)")
    '7'
    >>> conclude("no idea", "number") is None
    True
    """
    after = after_thinking(text)
    if match == "number":
        numbers = _NUMBER.findall(after)
        return float(numbers[-1].replace(",", "")) if numbers else None
    if match == "choice":
        letters = _CHOICE.findall(after)
        return letters[-1] if letters else None
    if match == "text":
        return " ".join(after.split()) or None
    found = list(_pattern(match).finditer(after))
    if not found:
        return None
    key = found[-1].group(1) if found[-1].re.groups else found[-1].group()
    return (key or "").strip() or None


def read_gold(answer: str, match: str) -> Key:
    """The key that a correct response concludes. Raises ValueError where the answer can never be matched."""
    if match == "number":
        return float(answer.replace(",", ""))
    key = answer.strip() if match.startswith(_REGEX) else " ".join(answer.split())
    if not key:
        raise ValueError("it is empty")
    if match == "choice" and not _CHOICE.fullmatch(key):
        raise ValueError("expected a single capital letter")
    return key


def after_thinking(text: str) -> str:
    """What stands after the thinking; all of it where there is none."""
    return text.rpartition("</think>")[2].strip()


def is_unfinished(text: str, truncated: bool, thinking: bool) -> bool:
    """Whether a response was cut off while thinking; `thinking`: whether its prompt asked for thinking first."""
    return "</think>" not in text and ("<think>" in text or (thinking and truncated))


def check_match(match: str, source: str = "--match") -> None:
    """Refuse, with InputError naming `source`, what is no way to read an answer."""
    if match.startswith(_REGEX):
        _pattern(match, source)
    elif match not in MATCHES[:-1]:
        raise InputError(f"{source}: expected {', '.join(MATCHES[:-1])} or {MATCHES[-1]}, got {match!r}")


def _pattern(match: str, source: str = "match") -> re.Pattern[str]:
    if not match.startswith(_REGEX):
        check_match(match, source)
    try:
        return re.compile(match.removeprefix(_REGEX))
    except re.error as error:
        raise InputError(f"{source}: {match!r} is not a valid regular expression: {error}") from None
