"""Which earlier merges answer most like a new one: those whose recipes are nearest in the search space."""

import math
from collections.abc import Mapping
from typing import Any


def nearest(parameters: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], count: int) -> list[str]:
    """Names of the `count` recipes nearest to one with these study parameters, the nearest last.

    The distance is Euclidean: a number counts by its difference as a share of its range over all recipes given; a
    choice, or a parameter that only one of two recipes has, counts 0 if equal and 1 if not. Of recipes equally near,
    the last one given is the nearer.
    """
    ranges = {name: _range(name, [parameters, *others.values()]) for name in parameters}

    def distance(other: Mapping[str, Any]) -> float:
        total = 0.0
        for name in parameters.keys() | other.keys():
            mine, theirs = parameters.get(name), other.get(name)
            if _is_number(mine) and _is_number(theirs):
                total += ((mine - theirs) / ranges[name]) ** 2 if mine != theirs else 0.0
            else:
                total += mine != theirs
        return math.sqrt(total)

    return sorted(others, key=lambda name: -distance(others[name]))[-count:] if count else []


def _range(name: str, recipes: list[Mapping[str, Any]]) -> float:
    values = [value for recipe in recipes if _is_number(value := recipe.get(name))]
    return float(max(values) - min(values)) if values else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
