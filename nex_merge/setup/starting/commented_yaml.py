"""Settings with comments → the YAML that a person goes on writing: sections as blocks, what is below them on a line."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Key = tuple[str, ...]
_WIDTH = 118
# Text that every YAML reads as text without quotes; true, yes, null and the like are not.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n|~)$)[A-Za-z/.$~_][\w./$~+@-]*", re.IGNORECASE)
_NUMBER = re.compile(r"[.\d]+(?:e[-+]?\d+)?", re.IGNORECASE)


def written(settings: Mapping[str, Any], comments: Mapping[Key, str]) -> str:
    """The settings as YAML. `comments`: by key, on the line of a value if there is room, else above it."""
    return "\n".join(_lines(settings, comments, ())) + "\n"


def _lines(settings: Mapping[str, Any], comments: Mapping[Key, str], at: Key) -> Iterator[str]:
    pad = "  " * len(at)
    for name, value in settings.items():
        key = (*at, name)
        is_block = isinstance(value, Mapping) and bool(value) and len(at) < 2
        is_list = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
        line = f"{pad}{_scalar(name)}:" + ("" if is_block or is_list else f" {_flow(value)}")
        comment = comments.get(key)
        if comment and (is_block or is_list or len(line) + len(comment) + 3 > _WIDTH):
            yield from comment_lines(comment, pad)
        elif comment:
            line += f"  # {comment}"
        yield line
        if is_block and isinstance(value, Mapping):
            yield from _lines(value, comments, key)
        elif is_list:
            for item in value:
                inner = [f"{pad}    {_scalar(inner)}: {_flow(each)}" for inner, each in item.items()]
                yield f"{pad}  - {inner[0].strip()}"
                yield from inner[1:]


def comment_lines(text: str, pad: str = "") -> Iterator[str]:
    """A comment, wrapped at blanks."""
    line = f"{pad}#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and line != f"{pad}#":
            yield line
            line = f"{pad}#"
        line += f" {word}"
    yield line


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and not _NUMBER.fullmatch(value):
            return value
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).strip()
    return yaml.safe_dump(value, width=10**9).removesuffix("...\n").strip()
