"""search_spaces/*.yaml -> SearchSpace, validated against the method specs in mergekit's registry.

Knows which values are allowed; knows nothing of how they are sampled or of what a merge does with them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from nex_merge.errors import InputError
from nex_merge.records import Dimension, MethodSpec, SearchSpace
from nex_merge.setup.config import find_file, known_names, parse
from nex_merge.setup.explain import nearest
from nex_merge.setup.strict import Strict, is_number
from nex_merge.setup.yaml_files import as_yaml, read_yaml
from nex_merge.wording import counted

_TYPES: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,)}
_KINDS = {"float": "a number", "int": "an integer", "bool": "true or false"}
# Beyond these, no merge has finite weights and no sampler can draw.
_LARGEST, _MOST_STEPS = 1e12, 1_000_000
# Bounds that mergekit enforces, or outside which a method is not defined.
BOUNDS = {"density": (0.0, 1.0), "select_topk": (0.0, 1.0), "gamma": (0.0, 1.0), "epsilon": (0.0, 1.0)}


class SpaceConfig(Strict):
    methods: list[str] = Field(min_length=1, description="mergekit merge methods to choose from")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="by name: a fixed value, {low, high} with optional step or log, or {choices: [...]}",
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="per-model parameters that override `parameters`, by model"
    )
    layer_groups: int = Field(
        default=1, ge=1, description="number of values per parameter over depth (a mergekit gradient); 1: one for all"
    )
    filters: list[str] = Field(
        default_factory=list, description="parts of tensor names (mergekit filters) that get values of their own"
    )


class RangeConfig(Strict):
    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    step: int | float | None = Field(default=None, gt=0, description="grid step; null: continuous (integers: 1)")
    log: bool = Field(default=False, description="sample on a log scale")


def load_space(entry: str | Mapping[str, Any], specs: Mapping[str, MethodSpec], models: Sequence[str]) -> SearchSpace:
    """A run's `search_space` entry (name, file or inline mapping) for the `models` to merge, without the base.

    `specs`: merge methods by name. Raises InputError if a method, parameter or model is unknown, a required parameter
    is missing, or a value has the wrong type or is out of bounds.
    """
    if isinstance(entry, str):
        path = find_file(entry, "search_spaces")
        if path is None:
            known = known_names("search_spaces")
            raise InputError(f"search_space: unknown search space {entry!r}.{nearest(entry, known, 'search spaces')}")
        source, data = str(path), read_yaml(path)
    else:
        source, data = "search_space", dict(entry)
    config = parse(SpaceConfig, data, source)
    methods = tuple(_method(name, i, specs, models, source) for i, name in enumerate(config.methods))
    if len(set(config.methods)) != len(config.methods):
        raise InputError(f"{source}: methods: expected distinct methods, got {as_yaml(config.methods)}")
    if len(set(config.filters)) != len(config.filters) or "*" in config.filters or "rest" in config.filters:
        raise InputError(
            f"{source}: filters: expected distinct parts of tensor names other than '*' and 'rest', "
            f"got {as_yaml(config.filters)}"
        )
    shared = {
        name: _dimension(name, value, methods, f"{source}: parameters.{name}", per_model=False)
        for name, value in config.parameters.items()
    }
    per_model = {}
    for model, values in config.models.items():
        if model not in models:
            raise InputError(
                f"{source}: models: expected one of the models to merge, got {model!r}."
                f"{nearest(model, models, 'models')}"
            )
        per_model[model] = {
            name: _dimension(name, value, methods, f"{source}: models.{model}.{name}", per_model=True)
            for name, value in values.items()
        }
    space = SearchSpace(methods, shared, per_model, config.layer_groups, tuple(config.filters))
    _check_required(space, models, source)
    return space


def _method(name: str, index: int, specs: Mapping[str, MethodSpec], models: Sequence[str], source: str) -> MethodSpec:
    offered = {key: spec for key, spec in specs.items() if spec.min_models <= len(models)}
    if name in specs and name not in offered:
        raise InputError(
            f"{source}: methods.{index}: {name}: expected at least {counted(specs[name].min_models, 'model')} "
            f"besides the base, "
            f"got {len(models)} ({', '.join(models)})"
        )
    if name not in offered:
        raise InputError(
            f"{source}: methods.{index}: unknown merge method {name!r}.{nearest(name, sorted(offered), 'methods')}"
        )
    return offered[name]


def _dimension(name: str, value: Any, methods: Sequence[MethodSpec], where: str, per_model: bool) -> Dimension:
    with_parameter = [method for method in methods if name in method.parameters]
    if not with_parameter:
        known = sorted({parameter for method in methods for parameter in method.parameters})
        names = " and ".join(method.name for method in methods) if len(methods) < 4 else "any of the methods"
        raise InputError(f"{where}: unknown parameter of {names}.{nearest(name, known, 'parameters')}")
    parameter = with_parameter[0].parameters[name]
    if per_model and not any(method.parameters[name].per_model for method in with_parameter):
        raise InputError(f"{where}: {name} cannot differ between models; move it to `parameters`")
    dimension = _parse_dimension(parameter.type, value, where)
    low, high = BOUNDS.get(name, (None, None))
    for limit in _extremes(dimension):
        if low is not None and high is not None and not low <= limit <= high:
            raise InputError(f"{where}: expected values from {low:g} to {high:g}, got {limit}")
    return dimension


def _parse_dimension(kind: str, value: Any, where: str) -> Dimension:
    if isinstance(value, dict) and "choices" in value:
        if set(value) != {"choices"} or not isinstance(value["choices"], list) or not value["choices"]:
            raise InputError(f"{where}: expected {{choices: [...]}} with at least one value, got {as_yaml(value)}")
        choices = tuple(_scalar(kind, item, f"{where}.choices.{i}") for i, item in enumerate(value["choices"]))
        if len(set(choices)) != len(choices):
            raise InputError(f"{where}.choices: expected distinct values, got {as_yaml(list(choices))}")
        return Dimension(kind, choices=choices)
    if not isinstance(value, dict):
        return Dimension(kind, fixed=_scalar(kind, value, where))
    if kind == "bool":
        raise InputError(f"{where}: expected true, false or {{choices: [true, false]}}, got a range")
    given = parse(RangeConfig, value, where)
    for key in ("low", "high", "step"):
        if getattr(given, key) is not None:
            _scalar(kind, getattr(given, key), f"{where}.{key}")
    if given.low >= given.high:
        raise InputError(f"{where}: expected low < high, got low {given.low} and high {given.high}")
    if given.log and (given.low <= 0 or given.step is not None):
        raise InputError(
            f"{where}: expected low > 0 and no step with log: true, got low {given.low} and step {given.step}"
        )
    if given.step is not None and (given.high - given.low) / given.step > _MOST_STEPS:
        raise InputError(
            f"{where}.step: expected at most {_MOST_STEPS:,} steps from low to high, got {given.step}. Leave it out "
            "for values in between"
        )
    if given.step is not None and given.step > given.high - given.low:
        raise InputError(f"{where}.step: expected at most high - low = {given.high - given.low}, got {given.step}")
    return Dimension(kind, low=given.low, high=given.high, step=given.step, log=given.log)


def _scalar(kind: str, value: Any, where: str) -> Any:
    if isinstance(value, bool) is not (kind == "bool") or not isinstance(value, _TYPES[kind]):
        raise InputError(f"{where}: expected {_KINDS[kind]}, {{low, high}} or {{choices: [...]}}, got {as_yaml(value)}")
    if kind != "bool" and not is_number(value):
        raise InputError(f"{where}: expected a finite number, got {as_yaml(value)}")
    if kind != "bool" and abs(value) > _LARGEST:
        raise InputError(f"{where}: expected values from {-_LARGEST:g} to {_LARGEST:g}, got {as_yaml(value)}")
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
                        f"{source}: parameters.{parameter.name}: missing, but required by {method.name}. "
                        f"Example: {parameter.name}: {{low: 0.0, high: 1.0}}"
                    )
        if "epsilon" in method.parameters and "density" in method.parameters:
            for model in models:
                _check_della(space, method, model, source)


def _check_della(space: SearchSpace, method: MethodSpec, model: str, source: str) -> None:
    """DELLA's keep probabilities range from density - epsilon to density + epsilon, both of which must be in (0, 1)."""
    extremes = {}
    for name in ("density", "epsilon"):
        dimension = space.dimension(name, model)
        extremes[name] = _extremes(dimension) if dimension else [method.parameters[name].default]
    widest = max(extremes["epsilon"])
    if min(extremes["density"]) - widest <= 0 or max(extremes["density"]) + widest >= 1:
        raise InputError(
            f"{source}: parameters.density: {method.name}: expected density - epsilon > 0 and density + epsilon < 1, "
            f"got density from {min(extremes['density'])} to {max(extremes['density'])} and epsilon up to {widest} "
            f"for {model}"
        )
