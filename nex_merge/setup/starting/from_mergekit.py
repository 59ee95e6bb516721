"""A recipe for mergekit-yaml → what a search around it needs: members, method and the recipe's values by depth.

Reads a recipe as mergekit does (levels of precedence, filters, gradients, slices); knows nothing of ranges, and nothing
of how the configuration is written. What a search can't do is named in `Plan.dropped`, never left out silently.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import read_json
from nex_merge.errors import InputError
from nex_merge.records import MethodSpec
from nex_merge.setup.config import find_file
from nex_merge.setup.explain import nearest
from nex_merge.setup.starting.recipe_values import (
    Cell,
    Location,
    check_values,
    key_of,
    location,
    stages_of,
    values_of,
)
from nex_merge.setup.yaml_files import as_yaml

# Keys that mergekit-yaml reads. Others it ignores, and so does a search.
_KEYS = ("merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
         "tokenizer_source", "tokenizer", "chat_template")  # fmt: skip
_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Plan:
    """What a search begins with."""

    method: MethodSpec
    base: Location
    models: Mapping[str, Location]
    donor: str | None = None  # the member whose config and tokenizer merges take; None: not said
    dtype: str | None = None
    layer_groups: int = 1
    filters: Sequence[str] = ()
    # By parameter and model (None: one value for all): the recipe's values. Empty: there is no recipe to begin with.
    values: Mapping[tuple[str, str | None], Sequence[Cell]] = field(default_factory=dict)
    is_recipe: bool = False  # whether the values are one merge, to be tried first
    negative: bool = False  # whether weights below 0 are searched although none is given
    chat_template: bool | None = None
    carried: Sequence[str] = ()  # what became of what, a line each
    dropped: Sequence[str] = ()  # what a search can't do, a line each


def plan_of(content: Mapping[str, Any], specs: Mapping[str, MethodSpec], source: str, base: str | None = None) -> Plan:
    """The plan of a search around a recipe that mergekit can read.

    `specs`: merge methods by name. `source`: the recipe's name, for messages. `base`: the family's base, where the
    recipe names none. Raises InputError if nothing of the recipe can be searched, a value is none that its parameter
    can have, a model is listed twice, or one is in no place.
    """
    spec = _method(content["merge_method"], specs, source)
    part = _part(content, source)
    stages, listed = stages_of(content, part, source)
    check_values(spec, stages, source)
    in_slices = (item["base_model"] for item in part.get("slices") or () if item.get("base_model"))
    own = content.get("base_model") or next(in_slices, None)
    if own and not spec.names_base and key_of(location(own)) not in map(key_of, listed):
        listed.append(location(own))  # mergekit merges it like the others
    of_base, models = members(spec, own, listed, base, source)
    names = {key_of(place): name for name, place in models.items()}
    values, groups, filters, carried = values_of(spec, stages, names)
    donor, unlike = donor_of(content, key_of(of_base), names)
    steep = _within_slices(values)
    dropped = [*_layers(part, layers_of([of_base, *models.values()])), *steep, *unlike, *_ignored(content, part, spec)]
    if spec.names_base and own is None:
        dropped.append(
            f"base_model: none, with which {spec.name} merges the models themselves; a search merges differences to "
            "the base"
        )
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype is not None and dtype not in _DTYPES:
        dropped.append(f"dtype: {dtype}: merges are stored as {', '.join(_DTYPES)}; here as most of the base is")
        dtype = None
    if content.get("dtype") not in (None, "float32"):
        carried.append(f"dtype: merges are computed in float32, not in {content['dtype']}: the last digits differ")
    return Plan(
        spec, of_base, models, donor, dtype, groups, filters, values, not steep, carried=carried, dropped=dropped
    )


def _method(name: str, specs: Mapping[str, MethodSpec], source: str) -> MethodSpec:
    if name == "passthrough":
        raise InputError(
            f"{source}: merge_method: passthrough copies layers of one model after another, and merges nothing; a "
            "search is over merges of models with the same layers"
        )
    if name not in specs:
        raise InputError(f"{source}: merge_method: unknown method {name!r}.{nearest(name, sorted(specs), 'methods')}")
    return specs[name]


def _part(content: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Where a recipe lists its models or slices: at the top, or in its only module."""
    modules = content.get("modules")
    if not modules:
        return content
    if len(modules) > 1:
        raise InputError(
            f"{source}: modules: expected one, got {', '.join(modules)}: merges are of language models, which have one"
        )
    return next(iter(modules.values()))


def _within_slices(values: Mapping[tuple[str, str | None], Sequence[Cell]]) -> list[str]:
    """Gradients that run within one of several slices, a line each: no merge of a search has them."""
    lines = []
    for (name, _), cells in values.items():
        for place in {(cell.filter, cell.point): None for cell in cells}:
            gradient = [cell.value for cell in cells if (cell.filter, cell.point) == place]
            if len(set(gradient)) > 1:
                lines.append(
                    f"parameters: {name}: {as_yaml(gradient)} runs over the layers of a slice, for which a search has "
                    "one value; it widens the range alone, and the recipe itself is not tried"
                )
    return list(dict.fromkeys(lines))


def layers_of(places: Sequence[Location]) -> int | None:
    """The number of layers that the first of these models has that is a folder here and says so; None: none does."""
    for place in places:
        folder = find_file(place if isinstance(place, str) else place["path"])
        config = folder / "config.json" if folder is not None else None
        given = read_json(config) if config is not None and config.is_file() else {}
        text = given.get("text_config")
        layers = (text if isinstance(text, dict) else given).get("num_hidden_layers")
        if isinstance(layers, int):
            return layers
    return None


def _layers(part: Mapping[str, Any], there: int | None) -> list[str]:
    """What slices do that a search can't. `there`: the number of layers of a model; None: not known."""
    ranges = [[tuple(source["layer_range"]) for source in item["sources"]] for item in part.get("slices") or ()]
    dropped = [
        "slices: residual_weight: no parameter of a search"
        for item in part.get("slices") or ()
        if item.get("residual_weight") is not None
    ]
    ends = [0, *(taken[0][1] for taken in ranges)]
    incomplete = bool(ranges) and there not in (None, ends[-1])
    if incomplete or any(len(set(taken)) > 1 or taken[0][0] != ends[i] for i, taken in enumerate(ranges)):
        of = "" if there is None else f" of {there}"
        shown = ", ".join(" with ".join(f"{a}-{b}" for a, b in dict.fromkeys(taken)) for taken in ranges)
        dropped.append(
            f"slices: the layers {shown}{of} are not each layer once, in order, which the merges of a search have; the "
            "method and its values are carried over"
        )
    return list(dict.fromkeys(dropped))


def members(
    spec: MethodSpec, own: Any, listed: Sequence[Location], base: str | None, source: str
) -> tuple[Location, dict[str, Location]]:
    """The family's base and its models by name.

    `own`: the base_model of the recipe. `base`: the base that was named beside it. Raises InputError if there is none,
    or two.
    """
    recipes = location(own) if own else None
    named = location(base) if base else None
    if spec.names_base and recipes is not None and named is not None and key_of(recipes) != key_of(named):
        raise InputError(
            f"--base: expected none, because {source} names its base_model {as_yaml(recipes)}, got {base!r}"
        )
    of_base = named or recipes
    if of_base is None:
        raise InputError(
            f"{source}: base_model: {spec.name} needs none, but a search does, to compare with; name the model that "
            "these were fine-tuned from: --base MODEL"
        )
    models = list(listed)
    if spec.pairs and not spec.names_base and recipes is not None:
        # One end is the recipe's base_model: it leads, so that t means the same, unless it is the family's base.
        models = [recipes, *(place for place in models if key_of(place) != key_of(recipes))]
    if spec.names_base or spec.pairs:
        models = [place for place in models if key_of(place) != key_of(of_base)]
    if not models:
        raise InputError(f"{source}: models: expected one besides the base, got none")
    return of_base, named_models(models)


def named_models(places: Sequence[Location]) -> dict[str, Location]:
    """Models by names that a family accepts, from those of their folders."""
    found: dict[str, Location] = {}
    for place in places:
        path = place if isinstance(place, str) else place.get("adapter", place["path"])
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).resolve().name if path in (".", "..") else Path(path).name)
        stem = stem.strip("-") or "model"
        stem = stem if stem[0].isalpha() and stem != "base" else f"model-{stem}"
        names = [stem, *(f"{stem}-{number}" for number in range(2, len(places) + 2))]
        found[next(name for name in names if name not in found)] = place
    return found


def donor_of(content: Mapping[str, Any], base: str, names: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """The member that gives tokenizer and config, and what of the tokenizer's settings a search can't do."""
    tokenizer = content.get("tokenizer") or {}
    wanted = content.get("tokenizer_source") or tokenizer.get("source")
    key = "tokenizer_source" if content.get("tokenizer_source") else "tokenizer.source"
    dropped = [
        f"tokenizer.{name}: merges take the tokenizer of one member as it is" for name in tokenizer if name != "source"
    ]
    if content.get("chat_template") is not None:
        dropped.append("chat_template: merges take that of the member that gives the tokenizer")
    if wanted is None:
        return None, dropped
    if wanted == "base":
        return "base", dropped
    place = key_of(location(wanted)) if wanted != "union" else ""
    if place == base:
        return "base", dropped
    if place in names:
        return names[place], dropped
    what = "is of all members" if wanted == "union" else "is of no member"
    return None, [
        f"{key}: {as_yaml(wanted)} {what}; merges take the tokenizer of one, the base unless `config` names another",
        *dropped,
    ]


def _ignored(content: Mapping[str, Any], part: Mapping[str, Any], spec: MethodSpec) -> list[str]:
    """Keys and parameters that mean nothing to mergekit either."""
    lines = [f"{key}: no key of a recipe; mergekit ignores it, too" for key in content if key not in _KEYS]
    sections = [content, part, *(part.get("slices") or ())]
    sections += [source for section in sections for source in section.get("sources") or section.get("models") or ()]
    given = dict.fromkeys(name for section in sections for name in section.get("parameters") or {})
    return lines + [
        f"parameters: {name}: {spec.name} has no such parameter; mergekit ignores it, too"
        for name in given
        if name not in spec.parameters
    ]
