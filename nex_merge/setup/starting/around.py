"""The search space around given values: one rule for all methods, on the ranges of the package's search spaces.

The range of a parameter is that of the package's space for the method, wherever the values lie in it. A value beyond it
widens it: above, by half of the range's width beyond the value; below, to half of the value, or by half of the width if
the value is negative; shares never leave [0, 1]. What the package's space does not search has its given value. The
ranges' sources are in docs/cookbook.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nex_merge.records import MethodParameter
from nex_merge.setup.config import find_file
from nex_merge.setup.search_space import BOUNDS
from nex_merge.setup.starting.from_mergekit import Plan
from nex_merge.setup.starting.recipe_values import Cell
from nex_merge.setup.yaml_files import read_yaml

_ROOM = 0.01  # that DELLA's density keeps from epsilon and from 1 - epsilon, which it has to be between


@dataclass(frozen=True)
class Around:
    """A search space as a configuration has it, and what it was made from."""

    space: Mapping[str, Any]
    guess: Mapping[str, Any] | None  # the given values as study parameters; None: they are no merge of the space
    searched: int  # number of searched values
    why: Mapping[str, str]  # by parameter: where its values come from
    dropped: Sequence[str]  # what no merge of the space has, a line each


def shipped_ranges(method: str) -> dict[str, Any]:
    """The parameters of the package's search space for a method; none if there is no such space."""
    path = find_file(method, "search_spaces")
    return {} if path is None else dict(read_yaml(path).get("parameters", {}))


def space_around(plan: Plan) -> Around:
    """The search space of a plan."""
    spec, shipped = plan.method, shipped_ranges(plan.method.name)
    parameters: dict[str, Any] = {}
    models: dict[str, dict[str, Any]] = {}
    why: dict[str, str] = {}
    for parameter in spec.parameters.values():
        owners: Sequence[str | None] = list(plan.models) if parameter.per_model else [None]
        given = {owner: plan.values.get((parameter.name, owner), ()) for owner in owners}
        own = {owner: _dimension(parameter, shipped.get(parameter.name), given[owner], plan) for owner in owners}
        common = shipped[parameter.name] if isinstance(shipped.get(parameter.name), dict) else next(iter(own.values()))
        if len({repr(value) for value in own.values()}) == 1:
            common = next(iter(own.values()))
        if common is not None:
            parameters[parameter.name] = common
            why[parameter.name] = _reason(parameter, shipped, given, common, spec.name)
        for owner, value in own.items():
            if owner is not None and value is not None and value != common:
                models.setdefault(owner, {})[parameter.name] = value
    space: dict[str, Any] = {"methods": [spec.name]}
    space |= {key: value for key, value in (("parameters", parameters), ("models", models)) if value}
    varies = any(
        spec.parameters[name].type == "float" and isinstance(value, dict)
        for values in (parameters, *models.values())
        for name, value in values.items()
    )
    if varies and plan.layer_groups > 1:
        space["layer_groups"] = plan.layer_groups
    if varies and plan.filters:
        space["filters"] = list(plan.filters)
    guess, searched, dropped = _guess(plan, space)
    return Around(space, guess, searched, why, dropped)


def _dimension(parameter: MethodParameter, shipped: Any, cells: Sequence[Cell], plan: Plan) -> Any:
    """A parameter's values in a search space; None: mergekit's default."""
    values = list(dict.fromkeys(cell.value for cell in cells))
    if isinstance(shipped, dict):
        if plan.negative and parameter.name == "weight":
            shipped = {**shipped, "low": -shipped["high"]}
        if not values and plan.is_recipe and parameter.default is not None:
            values = [parameter.default]
        return widened(shipped, values, _bounds(parameter.name, plan))
    if not values:
        return None if plan.is_recipe else shipped
    if len(values) == 1 or parameter.type != "float":
        return values[0]
    return {"low": min(values), "high": max(values)}


def widened(given: Mapping[str, Any], values: Sequence[float], bounds: tuple[float, float]) -> dict[str, Any]:
    """A range that has all values: `given`, or wider. A step or a log scale that a value is not on is left out."""
    low, high = given["low"], given["high"]
    half = (high - low) / 2
    for value in values:
        if value < low:
            low = min(low, value / 2 if value >= 0 else value - half)
        if value > high:
            high = max(high, value + half)
    low, high = _short(max(low, bounds[0])), _short(min(high, bounds[1]))
    found = {"low": low, "high": high}
    step = given.get("step")
    if step is not None and all(_is_multiple(value - low, step) for value in (*values, high)):
        found["step"] = step
    if given.get("log") and low > 0:
        found["log"] = True
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _is_multiple(value: float, step: float) -> bool:
    return math.isclose(value / step, round(value / step), abs_tol=1e-6)


def _bounds(parameter: str, plan: Plan) -> tuple[float, float]:
    """Between what a parameter can be. DELLA needs 0 < density - epsilon and density + epsilon < 1."""
    if parameter != "density" or "epsilon" not in plan.method.parameters:
        return BOUNDS.get(parameter, (-math.inf, math.inf))
    shipped = shipped_ranges(plan.method.name).get("epsilon")
    default = plan.method.parameters["epsilon"].default if plan.is_recipe or shipped is None else shipped
    given = [cell.value for name in plan.models for cell in plan.values.get(("epsilon", name), ())]
    largest = max(given, default=default)
    return largest + _ROOM, 1 - largest - _ROOM


def _reason(
    parameter: MethodParameter,
    shipped: Mapping[str, Any],
    given: Mapping[str | None, Sequence[Cell]],
    common: Any,
    method: str,
) -> str:
    values = sorted({cell.value for cells in given.values() for cell in cells}, key=float)
    shown = ", ".join(f"{value:g}" for value in values[:4]) + (" ..." if len(values) > 4 else "")
    if not isinstance(common, dict):
        return "not searched" if values else f"as the package's space for {method} has it"
    if not isinstance(shipped.get(parameter.name), dict):
        return f"the values given: {shown}"
    if not values:
        mirrored = "" if common == shipped[parameter.name] else ", and negative ones as far"
        return f"the package's range for {method}{mirrored}"
    if common == shipped[parameter.name]:
        return f"the package's range for {method}; given: {shown}"
    return f"the package's range for {method}, widened for what is given: {shown}"


def _guess(plan: Plan, space: Mapping[str, Any]) -> tuple[dict[str, Any] | None, int, list[str]]:
    """The plan's values as study parameters, how many a merge has, and why they are none."""
    spec, guess, dropped = plan.method, dict[str, Any](), list[str]()
    searched = 0
    if spec.pairs and len(plan.models) > 1:
        one, other = (list(plan.models) * 2)[:2]
        if spec.ordered or len(plan.models) > 2:
            guess[f"pair.{spec.name}"] = f"{one}+{other}"
            searched += 1
    for parameter in spec.parameters.values():
        for owner in list(plan.models) if parameter.per_model else [None]:
            dimension = space.get("models", {}).get(owner, {}).get(parameter.name)
            dimension = space.get("parameters", {}).get(parameter.name) if dimension is None else dimension
            if not isinstance(dimension, dict):
                continue
            stem = parameter.name if owner is None else f"{parameter.name}.{owner}"
            given = {(cell.filter, cell.point): cell.value for cell in plan.values.get((parameter.name, owner), ())}
            for name in [*space.get("filters", ()), None]:
                for point in range(space.get("layer_groups", 1)):
                    full = stem + (f".{name or 'rest'}" if space.get("filters") else "")
                    full += f".{point}" if space.get("layer_groups", 1) > 1 else ""
                    value = given.get((name, point), parameter.default)
                    searched += 1
                    guess[full] = value
                    if value is None:
                        dropped.append(
                            f"{parameter.name}: {spec.name} requires it, and {owner or 'the recipe'} has none"
                        )
                    elif not dimension["low"] <= value <= dimension["high"]:
                        dropped.append(f"{parameter.name}: {value:g} is no value that {spec.name} can use here")
    dropped = list(dict.fromkeys(dropped))
    return (guess if plan.is_recipe and guess and not dropped else None), searched, dropped if plan.is_recipe else []
