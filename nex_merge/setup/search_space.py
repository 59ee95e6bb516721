"""search_spaces/*.yaml -> SearchSpace, checked against mergekit's own method specs.

Knows which values are allowed; knows nothing of how they are chosen or of what a merge does with them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from nex_merge.errors import InputError
from nex_merge.records import Dimension, MethodSpec, SearchSpace
from nex_merge.setup.config import Strict, find_file, is_number, known_names, nearest, parse, read_yaml

_TYPES: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,)}
# Bounds that mergekit itself puts on values, or outside of which a method means nothing.
_BOUNDS = {"density": (0.0, 1.0), "select_topk": (0.0, 1.0), "gamma": (0.0, 1.0), "epsilon": (0.0, 1.0)}


class SpaceConfig(Strict):
    methods: list[str] = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    layer_groups: int = Field(default=1, ge=1)
    filters: list[str] = Field(default_factory=list)


class RangeConfig(Strict):
    low: int | float
    high: int | float
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False


def load_space(entry: str | Mapping[str, Any], specs: Mapping[str, MethodSpec], models: Sequence[str]) -> SearchSpace:
    """The space that a configuration names or holds, for a family's `models`.

    Raises InputError where a method, parameter, model, type or range is not one that mergekit or the family knows.
    """
    if isinstance(entry, str):
        path = find_file(entry, "search_spaces")
        if path is None:
            known = known_names("search_spaces")
            raise InputError(f"search_space: found {entry!r}, which is no search space.{nearest(entry, known)}")
        source, data = str(path), read_yaml(path)
    else:
        source, data = "search_space", dict(entry)
    config = parse(SpaceConfig, data, source)
    methods = tuple(_method(name, i, specs, models, source) for i, name in enumerate(config.methods))
    if len(set(config.methods)) != len(config.methods):
        raise InputError(f"{source}: methods: found {config.methods}; each method once would do")
    if len(set(config.filters)) != len(config.filters) or "*" in config.filters or "rest" in config.filters:
        raise InputError(f"{source}: filters: found {config.filters}; different parts of tensor names would do")
    shared = {
        name: _dimension(name, value, methods, f"{source}: parameters.{name}", per_model=False)
        for name, value in config.parameters.items()
    }
    own = {}
    for model, values in config.models.items():
        if model not in models:
            raise InputError(f"{source}: models.{model}: not among the models merged.{nearest(model, models)}")
        own[model] = {
            name: _dimension(name, value, methods, f"{source}: models.{model}.{name}", per_model=True)
            for name, value in values.items()
        }
    space = SearchSpace(methods, shared, own, config.layer_groups, tuple(config.filters))
    _check_required(space, models, source)
    return space


def _method(name: str, index: int, specs: Mapping[str, MethodSpec], models: Sequence[str], source: str) -> MethodSpec:
    offered = {key: spec for key, spec in specs.items() if spec.min_models <= len(models)}
    if name in specs and name not in offered:
        raise InputError(
            f"{source}: methods.{index}: {name} needs {specs[name].min_models} models besides the base, "
            f"found {len(models)} ({', '.join(models)})"
        )
    if name not in offered:
        raise InputError(f"{source}: methods.{index}: unknown merge method {name!r}.{nearest(name, sorted(offered))}")
    return offered[name]


def _dimension(name: str, value: Any, methods: Sequence[MethodSpec], where: str, per_model: bool) -> Dimension:
    takers = [method for method in methods if name in method.parameters]
    if not takers:
        known = sorted({parameter for method in methods for parameter in method.parameters})
        titles = " and ".join(method.name for method in methods) if len(methods) < 4 else "any of the methods"
        raise InputError(f"{where}: unknown parameter of {titles}.{nearest(name, known)}")
    parameter = takers[0].parameters[name]
    if per_model and not any(method.parameters[name].per_model for method in takers):
        raise InputError(f"{where}: {name} is one value for all models; put it under parameters")
    dimension = _parse_dimension(parameter.type, value, where)
    low, high = _BOUNDS.get(name, (None, None))
    for limit in _extremes(dimension):
        if low is not None and high is not None and not low <= limit <= high:
            raise InputError(f"{where}: found {limit}; {name} between {low:g} and {high:g} would do")
    return dimension


def _parse_dimension(kind: str, value: Any, where: str) -> Dimension:
    if isinstance(value, dict) and "choices" in value:
        if set(value) != {"choices"} or not isinstance(value["choices"], list) or not value["choices"]:
            raise InputError(f"{where}: found {value}; {{choices: [...]}} with at least one value would do")
        choices = tuple(_scalar(kind, item, f"{where}.choices.{i}") for i, item in enumerate(value["choices"]))
        if len(set(choices)) != len(choices):
            raise InputError(f"{where}.choices: found {list(choices)}; each choice once would do")
        return Dimension(kind, choices=choices)
    if not isinstance(value, dict):
        return Dimension(kind, fixed=_scalar(kind, value, where))
    if kind == "bool":
        raise InputError(f"{where}: found a range; true, false or {{choices: [true, false]}} would do")
    given = parse(RangeConfig, value, where)
    for key in ("low", "high", "step"):
        if getattr(given, key) is not None:
            _scalar(kind, getattr(given, key), f"{where}.{key}")
    if given.low >= given.high:
        raise InputError(f"{where}: low {given.low} is not below high {given.high}; a range the right way up would do")
    if given.log and (given.low <= 0 or given.step is not None):
        raise InputError(f"{where}: log needs low above 0 and no step (found low {given.low}, step {given.step})")
    if given.step is not None and given.step > given.high - given.low:
        raise InputError(f"{where}.step: found {given.step}, wider than the range from {given.low} to {given.high}")
    return Dimension(kind, low=given.low, high=given.high, step=given.step, log=given.log)


def _scalar(kind: str, value: Any, where: str) -> Any:
    if isinstance(value, bool) is not (kind == "bool") or not isinstance(value, _TYPES[kind]):
        raise InputError(f"{where}: found {value!r}; a {kind}, {{low, high}} or {{choices: [...]}} would do")
    if kind != "bool" and not is_number(value):
        raise InputError(f"{where}: found {value!r}; a finite number would do")
    return value


def _extremes(dimension: Dimension) -> list[Any]:
    if dimension.type == "bool":
        return []
    if dimension.choices is not None:
        return [min(dimension.choices), max(dimension.choices)]
    return [dimension.fixed] if not dimension.searched else [dimension.low, dimension.high]


def _check_required(space: SearchSpace, models: Sequence[str], source: str) -> None:
    for method in space.methods:
        for parameter in method.parameters.values():
            owners: Sequence[str | None] = models if parameter.per_model else [None]
            for owner in owners:
                dimension = space.dimension(parameter.name, owner)
                if parameter.required and dimension is None:
                    raise InputError(
                        f"{source}: parameters.{parameter.name}: missing; {method.name} requires it, "
                        f"for example {parameter.name}: {{low: 0.0, high: 1.0}}"
                    )
        if "epsilon" in method.parameters and "density" in method.parameters:
            for model in models:
                _check_della(space, method, model, source)


def _check_della(space: SearchSpace, method: MethodSpec, model: str, source: str) -> None:
    """DELLA's keep probabilities run from density - epsilon to density + epsilon, which must stay inside (0, 1)."""
    extremes = {}
    for name in ("density", "epsilon"):
        dimension = space.dimension(name, model)
        extremes[name] = _extremes(dimension) if dimension else [method.parameters[name].default]
    widest = max(extremes["epsilon"])
    if min(extremes["density"]) - widest <= 0 or max(extremes["density"]) + widest >= 1:
        raise InputError(
            f"{source}: parameters.density: found {min(extremes['density'])} to {max(extremes['density'])} "
            f"for {model}; "
            f"{method.name} needs density - epsilon and density + epsilon inside (0, 1), with epsilon up to {widest}"
        )
