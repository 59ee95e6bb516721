"""YAML that people write, as YAML 1.2 reads it (its core schema), for configurations, families, spaces and `--set`.

`yes` and `2024-01-02` are text, `1e-3` is a number, and `010` is text that no number accepts. PyYAML's own schema is
that of YAML 1.1, by which mergekit's files and the files of a run folder are read elsewhere.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from nex_merge.errors import InputError
from nex_merge.passwords import masked
from nex_merge.setup.jsontext import MOST_DIGITS, MOST_NESTED
from nex_merge.setup.paths import check_readable
from nex_merge.setup.textfiles import read_text

_NULL, _BOOL, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "merge"))
# Section 10.3.2 of YAML 1.2.2, but that a number with a leading zero is text: 1.1 reads it as octal, 1.2 as decimal.
_CORE = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE, r"<<", ["<"]),
)


# Characters of a configuration, which people write by hand.
_LARGEST = 2**20


def _too_deep(mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, f"nested more than {MOST_NESTED} levels deep", mark)


class _Loader(yaml.SafeLoader):
    """A safe loader of the core schema. Keys are names as they are spelled, each of them once."""

    depth = 0

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        # The scanner reads 1,024 brackets ahead, in a time that grows with their square, before a node is composed.
        if self.flow_level >= MOST_NESTED:
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MOST_NESTED:
            raise _too_deep(self.peek_event().start_mark)  # type: ignore[union-attr]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > MOST_DIGITS:
        problem = f"an integer of {len(text):,} digits"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a key that is text", key.start_mark)
        if key.tag == _MERGE:
            continue
        key.tag = "tag:yaml.org,2002:str"
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor(_INT, _int)
_Loader.add_constructor(_FLOAT, _float)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError if the file is missing, not valid YAML or not a mapping."""
    check_readable(path, str(path))
    text = read_text(path, _LARGEST)
    try:
        data = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise InputError(_complaint(error, str(path), text)) from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply") from None
    if data is None:
        raise InputError(f"{path}: is empty; expected keys and values")
    if not isinstance(data, dict):
        kind = {list: "a list"}.get(type(data), f"only {as_yaml(data)}")
        raise InputError(f"{path}: expected a mapping of keys to values, got {kind}")
    return data


def parse_value(text: str) -> Any:
    """The value of an option: plain text, a number, true, false or null; with brackets or quotes, as YAML has them.

    Raises ValueError if brackets or quotes don't match.
    """
    text = text.strip()
    if text[:1] in ("[", "{", '"', "'"):
        try:
            return yaml.load(text, _Loader)
        except (yaml.YAMLError, RecursionError) as error:
            reason = getattr(error, "problem", None) or "nested too deeply"
            raise ValueError(f"a YAML value, got {_short(repr(text))} ({reason})") from None
    # Not through the parser, to which blanks with ':' or '#' and a leading '*' or '%' mean something.
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except yaml.YAMLError as error:
        raise ValueError(f"a value, got {_short(text)} ({getattr(error, 'problem', error)})") from None


def _complaint(error: yaml.YAMLError, source: str, text: str) -> str:
    """What is wrong with a file, with its line and, for common mistakes, what to do."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    number = mark.line + 1 if mark is not None else 0
    line = text.split("\n")[mark.line] if mark is not None and mark.line < text.count("\n") + 1 else ""
    where = f"{source} line {number}" if mark is not None else source
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{where}: indented with a tab; YAML takes blanks only"
    if "single document" in str(error):
        return f"{where}: a second document begins (---); keep one of them"
    special = ("undefined alias", "alphabetic or numeric character", "cannot start any token", "tag", "chomping")
    if any(words in problem for words in special):
        return f"{where}: not valid YAML: {problem}. Put text that begins with a special character in quotes"
    if "mapping values are not allowed" in problem:
        return f"{where}: not valid YAML: {problem}. Put text that holds ': ' in quotes, and align keys of one level"
    return f"{where}: not valid YAML: {problem}"


def as_yaml(value: Any) -> str:
    """A value on one line, as YAML spells it; text in quotes, without passwords. At most 100 characters."""
    if isinstance(value, str):
        shown = repr(value)
    else:
        try:
            options: dict[str, Any] = {"default_flow_style": True, "width": float("inf"), "sort_keys": False}
            shown = yaml.safe_dump(value, allow_unicode=True, **options).removesuffix("...\n").strip()
        except yaml.YAMLError:
            shown = repr(value)
        except (RecursionError, ValueError):  # nested too deeply, or an integer of thousands of digits, from Python
            shown = f"a {type(value).__name__} that is too large to be shown"
    return _short(masked(shown))


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
