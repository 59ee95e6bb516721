"""Trivial baselines: what can be said of a merge from its recipe.yaml alone. A measure has to do better than these.

Both see a merge as coefficients, one per model: base + sum of coefficient * (model - base). For the methods that do
more than that (TIES, DARE, ...) they are what the recipe asks for, not what its tensors are.
"""

import math
from collections.abc import Mapping
from typing import Any

# Which way each is read: nearer to the best parent, and more of the fine-tunes.
BASELINES: Mapping[str, int] = {"distance": -1, "lambda": 1}
DIGITS = 9
# Methods that divide by the sum of the weights unless the recipe says otherwise, as of mergekit 0.1.5.
_DIVIDING = {"della", "linear", "multislerp", "nuslerp", "ties"}


def coefficients(config: Mapping[str, Any]) -> dict[str, float] | None:
    """The coefficient of each model of a mergekit configuration, by its reference.

    None for methods without weights, and for recipes in slices.

    A weight that varies over depth or tensors counts with the mean of its values. Weights are divided by their sum
    where the method does so, and multiplied by the method's `lambda`. slerp's `t` gives its base_model 1 - t and the
    other model t. An unmerged model has 1.
    """
    method, models, shared = config["merge_method"], config.get("models"), config.get("parameters") or {}
    if models is None:
        return None
    if method == "passthrough":
        return {models[0]["model"]: 1.0}
    if method == "slerp":
        t, first = _mean(shared["t"]), config["base_model"]
        return {first: 1 - t, **{item["model"]: t for item in models if item["model"] != first}}
    weights = {item["model"]: (item.get("parameters") or {}).get("weight") for item in models}
    if any(weight is None for weight in weights.values()):
        return None
    values = {model: _mean(weight) for model, weight in weights.items()}
    scale = _mean(shared.get("lambda", 1.0))
    if shared.get("normalize", shared.get("normalize_weights", method in _DIVIDING)):
        total = sum(values.values())
        if total == 0:
            return None
        scale /= total
    return {model: scale * value for model, value in values.items()}


def _mean(value: Any) -> float:
    """The mean of a scalar, of the points of a gradient, or over filters."""
    if isinstance(value, Mapping):
        return _mean(value["value"])
    if isinstance(value, list):
        return sum(map(_mean, value)) / len(value)
    return float(value)


def baselines_of(
    recipes: Mapping[str, Mapping[str, Any]], base: str | None, parent: str | None
) -> dict[str, dict[str, float | None]]:
    """By baseline, its value for every trial. recipes: mergekit configurations by trial, unmerged models among them.

    base, parent: the trials of the base and of the parent to measure from, chosen without labels.
    `distance`: Euclidean distance between a merge's coefficients and the parent's, of which one is 1 and the rest are
    0. `lambda`: the sum of the coefficients, 0 for the base, 1 for every parent and for merges by a method that
    divides by the sum of weights (times its own `lambda`). None where a recipe has no coefficients, and all distances
    without a parent.
    """
    origin = next(iter(coefficients(recipes[base]) or ())) if base is not None else None
    found: dict[str, dict[str, float | None]] = {name: dict.fromkeys(recipes) for name in BASELINES}
    target = coefficients(recipes[parent]) if parent is not None else None
    for trial, recipe in recipes.items():
        own = coefficients(recipe)
        if own is None:
            continue
        own = {model: value for model, value in own.items() if model != origin}
        # Rounded, or sums that are equal would be ranked by their last bits.
        found["lambda"][trial] = round(sum(own.values()), DIGITS)
        if target is not None:
            models = sorted(own.keys() | target.keys())
            distance = math.dist(*([there.get(model, 0.0) for model in models] for there in (own, target)))
            found["distance"][trial] = round(distance, DIGITS)
    return found
