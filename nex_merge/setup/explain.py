"""pydantic's errors -> one line per mistake, in the user's words: key, what was expected, what was given, as YAML."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nex_merge.setup.strict import MOST
from nex_merge.setup.yaml_files import as_yaml

_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
# The kinds of errors that the members of a union of these names cause.
_MEMBERS = {"int": "int_", "float": "float_", "str": "string_", "bool": "bool_"}
# Characters of a key as it is shown, and of a text that may be a number in another spelling.
_LONGEST = 100
# Words that YAML 1.1 read as true and false.
_YES, _NO = ("yes", "on", "y", "true"), ("no", "off", "n", "false")


def nearest(word: str, known: Sequence[str], kind: str = "") -> str:
    """' Did you mean ...?', where a known word is close, and ' Known {kind}: ...'."""
    close = difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known{' ' * bool(kind)}{kind}: {', '.join(known)}."


def explain(model: type[BaseModel], errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per key at fault. pydantic reports every member of a union; they become one line."""
    by_key: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        by_key.setdefault(tuple(map(_short, _keys(error))), []).append(error)
    return [_explain_key(model, keys, group) for keys, group in by_key.items()]


def _short(key: str) -> str:
    return key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."


def _keys(error: Mapping[str, Any]) -> tuple[str, ...]:
    """The location of an error without the names of union members and validators, which are not keys."""
    if not error["loc"]:  # a key that is no text, such as a lone surrogate
        return ("configuration",)
    *parents, last = (str(part) for part in error["loc"])
    is_member = last in _MEMBERS and error["type"].startswith((_MEMBERS[last], "greater", "less", "finite"))
    if parents and (is_member or last.startswith(("function-", "literal", "dict["))):
        return tuple(parents)
    return (*parents, last)


def _explain_key(model: type[BaseModel], keys: Sequence[str], errors: Sequence[Mapping[str, Any]]) -> str:
    parent, first = _model_at(model, keys[:-1]), errors[0]
    if first["type"] == "extra_forbidden":
        prefix = f"{'.'.join(keys[:-1])}: " if keys[:-1] else ""
        elsewhere = [] if keys[:-1] else _paths_of(model, keys[-1])
        if elsewhere:
            return f"unknown key {keys[-1]!r}. Did you mean {' or '.join(map(repr, elsewhere))}?"
        return f"{prefix}unknown key {keys[-1]!r}.{nearest(keys[-1], list(parent.model_fields), 'keys')}"
    key = ".".join(keys)
    if first["type"] == "missing":
        return f"{key}: missing required key"
    # What a check of the value itself says is more than what the other members of a union would have taken.
    own = [error for error in errors if error["type"] == "value_error"] or errors
    expected = " or ".join(dict.fromkeys(_expected(parent.model_fields.get(keys[-1]), error) for error in own))
    if ", got " in expected:
        return f"{key}: expected {expected}"
    return f"{key}: expected {expected}, got {as_yaml(first['input'])}{_spelling(first['input'], expected)}"


def _paths_of(model: type[BaseModel], key: str) -> list[str]:
    """Where a key that is unknown at the top is known: trials -> study.trials."""
    sections = {name: _model_at(model, [name]) for name in model.model_fields}
    return [f"{name}.{key}" for name, inner in sections.items() if inner is not model and key in inner.model_fields]


def _expected(field: FieldInfo | None, error: Mapping[str, Any]) -> str:
    """What pydantic expected where it found an error. `field`: of the key at fault; None inside lists and mappings."""
    kind = error["type"]
    if kind.startswith(("int_", "float_", "greater_", "less_", "finite_")):
        return _number(field, is_integer=kind.startswith("int_"))
    if kind == "literal_error":
        return error["ctx"]["expected"]
    if kind == "string_pattern_mismatch" and field is not None and field.description:
        return field.description
    if kind == "too_short":
        return f"at least {error['ctx']['min_length']} item"
    return _EXPECTED.get(kind) or error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _spelling(value: Any, expected: str) -> str:
    """'; write ...' for a value that another program, or YAML 1.1, would have taken for what was expected."""
    if "true or false" in expected and isinstance(value, str) and value.lower() in (*_YES, *_NO):
        return f"; write {'true' if value.lower() in _YES else 'false'}"
    if "number" not in expected and "integer" not in expected:
        return ""
    if isinstance(value, float) and "integer" in expected and value.is_integer() and abs(value) <= MOST:
        return f"; write {int(value)}"
    if not isinstance(value, str):
        return ""
    plain = value.strip().replace("_", "")
    if len(plain) > _LONGEST:
        return ""
    if re.fullmatch(r"[-+]?0[0-7]+", plain):
        return f"; write {int(plain)} (or, if it is meant to be octal, {int(plain, 8)})"
    if re.fullmatch(r"[-+]?[0-9]+", plain):
        return f"; write {int(plain)}"
    try:
        number = float(plain)
    except ValueError:
        return ""
    return f"; write {number:g}" if "number" in expected else ""


def _number(field: FieldInfo | None, is_integer: bool) -> str:
    """A field's number in words, its bounds included: 'a positive integer', 'a number > 0 and < 1'."""
    members = set(_members(field.annotation)) if field is not None else set()
    integer = int in members or (not members and is_integer)
    noun = "number" if float in members or not integer else "integer"
    bounds = {
        sign: getattr(item, name)
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        for item in (field.metadata if field is not None else ())
        if getattr(item, name, None) is not None
    }
    if bounds == {">": 0} or (noun == "integer" and bounds == {">=": 1}):
        return f"a positive {noun}"
    if bounds == {">=": 0}:
        return f"a non-negative {noun}"
    limits = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())
    return f"{'an' if noun == 'integer' else 'a'} {noun}{' ' * bool(limits)}{limits}"


def _members(annotation: Any) -> Iterable[Any]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _model_at(model: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    for key in keys:
        field = model.model_fields.get(key)
        for member in _members(field.annotation) if field is not None else ():
            if isinstance(member, type) and issubclass(member, BaseModel):
                model = member
    return model
