"""JSON that people write -> its value; what JSON forbids, and what nobody can have meant, is refused."""

import json
from collections.abc import Sequence
from typing import Any

from nex_merge.errors import InputError

# Digits of an integer, and levels of lists within lists, in JSON and YAML.
MOST_DIGITS, MOST_NESTED = 400, 64


def parse_json(text: str, where: str) -> Any:
    """The JSON value in `text`. Raises InputError, naming `where`, for what JSON forbids, and for duplicate keys.

    Also for numbers of more digits, and lists in more lists, than anybody can have meant.
    """

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise InputError(f"{where}: the key {twice!r} occurs twice; keep one of them")
        return found

    def constant(name: str) -> Any:
        raise InputError(f"{where}: {name} is not a JSON value; use null, or leave the key out")

    def integer(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise InputError(f"{where}: an integer of {len(digits):,} digits; put it in quotes if it is meant as text")
        return int(digits)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_int=integer)
    except json.JSONDecodeError as error:
        at = f" in line {error.lineno}" if "\n" in text.strip() else f" at character {error.colno}"
        raise InputError(f"{where}: not valid JSON ({error.msg}{at})") from None
    except RecursionError:
        raise _too_deep(where) from None
    if _is_deep(value):
        raise _too_deep(where)
    return value


def _too_deep(where: str) -> InputError:
    return InputError(f"{where}: not valid JSON (nested more than {MOST_NESTED} levels deep)")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_NESTED):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, list | dict)]
        level = [part for parts in inner for part in parts]
    return bool(level)
