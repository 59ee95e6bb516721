"""Words that many messages need: a number with its noun, an error's first line; lines that fit into a terminal."""

import re
import textwrap
from collections.abc import Iterable

_COMMAND = ": nex-merge "


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, `1 sample`, `2 samples`, `1,024 samples`; `plural` where it is not noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], most: int) -> str:
    """The first `most` of some names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people count: worker 2 before worker 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def decimal(value: float | None, form: str = ".3f") -> str:
    """A number as a cell of a table, a dash where it is undefined; `form`: as `format` takes it."""
    return "-" if value is None else f"{value:{form}}"


def between(low: float | None, high: float | None, form: str = ".3f") -> str:
    """An interval as a cell of a table, a dash where it is undefined."""
    return "-" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def wrapped(line: str, width: int) -> str:
    """A sentence, wrapped under its indent, at blanks alone: a path or a name stays in one piece."""
    if len(line) <= width:
        return line
    indent = " " * (len(line) - len(line.lstrip()))
    found = textwrap.wrap(line, width, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(found)


def fitted(text: str, width: int, command_width: int | None = None) -> str:
    """Lines for a terminal, which breaks longer ones within words.

    A command at the end of a line stands on lines of its own, and goes on after a backslash: it can be copied.
    `command_width`: how wide it may be, by default `width`.
    """
    return "\n".join(_fitted(line, width, command_width or width) for line in text.split("\n"))


def _fitted(line: str, width: int, command_width: int) -> str:
    sentence, found, words = line.rpartition(_COMMAND)
    if not found:
        return wrapped(line, width)
    if len(line) <= width or (len(sentence) < width and len(line) <= command_width):
        return line
    lines = ["  nex-merge"]
    for part in re.findall(r"(?:'[^']*'|[^\s'])+", words):  # what is quoted stays together
        if len(lines[-1]) + len(part) + 3 > command_width:
            lines.append("     ")
        lines[-1] += f" {part}"
    return "\n".join([wrapped(f"{sentence}:", width), " \\\n".join(lines)])
