"""A recipe's values, as mergekit evaluates them: by level, filter and depth, wherever in the recipe they stand."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from nex_merge.errors import InputError
from nex_merge.records import MethodSpec
from nex_merge.setup.config import find_file
from nex_merge.setup.yaml_files import as_yaml

# By type of a parameter: how mergekit reads its values, such as the text that 1e-3 is in YAML 1.1, and what they are.
_TYPES: dict[str, tuple[TypeAdapter[Any], str]] = {
    "float": (TypeAdapter(FiniteFloat), "a finite number"),
    "int": (TypeAdapter(int), "an integer"),
    "bool": (TypeAdapter(bool), "true or false"),
}
_REVISION = re.compile(r"([^@+]+)(?:@([^@+]+))?")

Location = str | dict[str, str]  # as a family writes it
Setting = Any  # a value, a gradient, or either under filters
Levels = Sequence[Mapping[str, Setting]]  # mappings of parameters, the first that has a value wins


@dataclass(frozen=True)
class Cell:
    """A value of a parameter at one place: a filter (None: the rest) and a point of the gradient over depth."""

    filter: str | None
    point: int
    value: Any


@dataclass(frozen=True)
class Stage:
    """A range of layers with settings of its own: one for a recipe without slices."""

    models: Mapping[str, Levels]
    shared: Levels


def location(reference: Any) -> Location:
    """A model as mergekit names it (`path@revision+adapter`, or a mapping), as a family does."""
    if isinstance(reference, Mapping):
        of_model, lora = reference.get("model", reference), reference.get("lora")
        place = of_model if isinstance(of_model, str) else of_model["path"]
        found = location(place)
        if isinstance(of_model, Mapping) and of_model.get("revision"):
            found = {**(found if isinstance(found, dict) else {"path": found}), "revision": of_model["revision"]}
        if lora is not None:
            adapter = lora if isinstance(lora, str) else lora["path"]
            found = {**(found if isinstance(found, dict) else {"path": found}), "adapter": adapter}
        return found
    if find_file(reference) is not None:
        return reference
    path, plus, adapter = reference.partition("+")
    match = _REVISION.fullmatch(path)
    path, revision = (match[1], match[2]) if match else (path, None)
    if not revision and not plus:
        return path
    return {"path": path, **({"revision": revision} if revision else {}), **({"adapter": adapter} if plus else {})}


def key_of(place: Location) -> str:
    return json.dumps(place, sort_keys=True)


def stages_of(content: Mapping[str, Any], part: Mapping[str, Any], source: str) -> tuple[list[Stage], list[Location]]:
    """The ranges of layers, and the models in the order in which they are listed.

    `source`: the recipe's name. Raises InputError if a model is listed twice, which mergekit refuses, too.
    """
    common = [one.get("parameters") or {} for one in ([part] if part is content else [part, content])]
    listed: dict[str, Location] = {}
    stages = []
    for item in part.get("slices") or [part]:
        levels = common if item is part else [item.get("parameters") or {}, *common]
        models = {}
        for listing in item.get("sources") or item.get("models") or ():
            place = location(listing["model"])
            listed.setdefault(key_of(place), place)
            if key_of(place) in models:
                shown = as_yaml(listing["model"])
                raise InputError(
                    f"{source}: model: expected every model once, as mergekit does, got {shown} twice; remove one"
                )
            models[key_of(place)] = [listing.get("parameters") or {}, *levels]
        stages.append(Stage(models, levels))
    return stages, list(listed.values())


def check_values(spec: MethodSpec, stages: Sequence[Stage], source: str) -> None:
    """Raise InputError for a value that is none of its parameter's type; other parameters mean nothing to mergekit."""
    for parameter in spec.parameters.values():
        adapter, expected = _TYPES[parameter.type]
        for setting in _settings(stages, {parameter.name}):
            for value in _given(setting):
                is_gradient = parameter.type == "float" and isinstance(value, list)
                try:
                    for one in value if is_gradient else [value]:
                        adapter.validate_python(one)
                except ValidationError:
                    raise InputError(
                        f"{source}: parameters: {parameter.name}: expected {expected}, got {as_yaml(value)}"
                    ) from None


def values_of(
    spec: MethodSpec, stages: Sequence[Stage], names: Mapping[str, str]
) -> tuple[dict[tuple[str, str | None], list[Cell]], int, list[str], list[str]]:
    """The recipe's values, the number of points over depth, the filters, and what is to be said of both.

    A gradient within one of several slices gives all its values to the slice's point.
    """
    varying = {parameter.name for parameter in spec.parameters.values() if parameter.type == "float"}
    settings = list(_settings(stages, varying))
    filters = list(dict.fromkeys(name for setting in settings for name in _filters(setting)))
    lengths = {length for setting in settings for length in _lengths(setting)}
    groups = len(stages) if len(stages) > 1 else max(lengths, default=1)
    said = []
    if len(stages) > 1:
        said.append(
            f"slices: their values become {groups} points of a gradient over depth, with values in between where the "
            "recipe has steps"
        )
    elif odd := sorted(length for length in lengths if length > 1 and (groups - 1) % (length - 1)):
        said.append(f"gradients of {' and '.join(map(str, odd))} points are given by {groups}, which differ in between")
    if filters:
        said.append(f"filters: values of {', '.join(filters)} are searched apart from the rest")
    found: dict[tuple[str, str | None], list[Cell]] = {}
    for parameter in spec.parameters.values():
        for key, owner in names.items() if parameter.per_model else [(None, None)]:
            cells = []
            for name in [*filters, None] if parameter.type == "float" else [None]:
                for point in range(groups if parameter.type == "float" else 1):
                    stage = stages[point] if len(stages) > 1 else stages[0]
                    depth = 0.5 if len(stages) > 1 or groups == 1 else point / (groups - 1)
                    levels = stage.shared if key is None else stage.models.get(key)
                    if levels is None:  # a slice without this model
                        value = 0.0 if parameter.name == "weight" else None
                    else:
                        value = _setting([level.get(parameter.name) for level in levels], name or "")
                    if isinstance(value, list) and len(stages) == 1:
                        value = _at(value, depth)
                    read = _TYPES[parameter.type][0].validate_python
                    given = value if isinstance(value, list) else [] if value is None else [value]
                    cells += [Cell(name, point, read(one)) for one in given]
            if cells:
                found[parameter.name, owner] = cells
    return found, groups, filters, said


def _settings(stages: Sequence[Stage], wanted: set[str]) -> Iterator[Setting]:
    for stage in stages:
        for levels in (*stage.models.values(), stage.shared):
            for level in levels:
                yield from (setting for name, setting in level.items() if name in wanted)


def _conditions(setting: Setting) -> Sequence[Mapping[str, Any]]:
    if isinstance(setting, Mapping):
        return [setting]
    return [item for item in setting if isinstance(item, Mapping)] if isinstance(setting, list) else []


def _filters(setting: Setting) -> Iterator[str]:
    for condition in _conditions(setting):
        if condition.get("filter") in (None, "*"):
            return  # it catches all that follows
        yield condition["filter"]


def _lengths(setting: Setting) -> Iterator[int]:
    yield from (len(value) for value in _given(setting) if isinstance(value, list))


def _given(setting: Setting) -> list[Any]:
    """The values and gradients of a setting, under whichever filter."""
    return [condition.get("value") for condition in _conditions(setting)] or [setting]


def _setting(settings: Sequence[Setting], tensor: str) -> Any:
    """The first value or gradient that the levels have for a tensor, as mergekit finds it; None if none has."""
    for setting in settings:
        if conditions := _conditions(setting):
            matching = (
                c["value"] for c in conditions if c.get("filter") in (None, "*") or (tensor and c["filter"] in tensor)
            )
            setting = next(matching, None)
        if setting is not None and setting != []:
            return setting
    return None


def _at(gradient: Sequence[Any], depth: float) -> float:
    values = [float(value) for value in gradient]
    scaled = depth * (len(values) - 1)
    first = int(scaled)
    after = values[min(first + 1, len(values) - 1)]
    return round(values[first] + (scaled - first) * (after - values[first]), 12)
