"""What a recipe says of a merge, in closed form, and against mergekit's registry."""

import numpy as np
import pytest

from nex_merge.labels.recipe_baselines import _DIVIDING, baselines_of, coefficients
from nex_merge.merging.mergekit_plan import method_specs


def recipe(method, *weights, **shared):
    models = [{"model": name, "parameters": {"weight": w}} for name, w in zip("ab", weights, strict=False)]
    return {"merge_method": method, "base_model": "base", "models": models, "parameters": shared}


def parent(name):
    return {"merge_method": "passthrough", "models": [{"model": name}]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (recipe("task_arithmetic", 0.3, 0.9), {"a": 0.3, "b": 0.9}),
        (recipe("task_arithmetic", 0.3, 0.9, **{"lambda": 2}), {"a": 0.6, "b": 1.8}),
        (recipe("ties", 0.3, 0.9), {"a": 0.25, "b": 0.75}),
        (recipe("ties", 0.3, 0.9, normalize=False), {"a": 0.3, "b": 0.9}),
        (recipe("task_arithmetic", 0.3, 0.9, normalize=True), {"a": 0.25, "b": 0.75}),
        (recipe("multislerp", 0.3, 0.9, normalize_weights=False), {"a": 0.3, "b": 0.9}),
        (recipe("dare_ties", [0.0, 0.5, 1.0], 0.9), {"a": 0.5, "b": 0.9}),
        (recipe("dare_ties", [{"filter": "mlp", "value": [0.2, 0.4]}, {"value": 0.9}], 0), {"a": 0.6, "b": 0}),
        (
            {"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}, {"model": "b"}],
             "parameters": {"t": [0.1, 0.3]}},
            {"a": 0.8, "b": 0.2},
        ),
        (parent("a"), {"a": 1}),
        ({"merge_method": "karcher", "models": [{"model": "a"}, {"model": "b"}]}, None),
        (recipe("ties", 0.0, 0.0), None),
    ],
)  # fmt: skip
def test_coefficients(config, expected):
    assert coefficients(config) == (None if expected is None else pytest.approx(expected))


def test_distance_and_scale_in_closed_form():
    recipes = {
        "base": parent("base"), "a": parent("a"), "b": parent("b"),
        "0000": recipe("task_arithmetic", 0.5, 0.5), "0001": recipe("task_arithmetic", 1.0, 0.75),
        "0002": {"merge_method": "model_stock", "base_model": "base", "models": [{"model": "a"}, {"model": "b"}]},
        # Interpolates between the base and b.
        "0003": {"merge_method": "slerp", "base_model": "base", "models": [{"model": "base"}, {"model": "b"}],
                 "parameters": {"t": 0.25}},
    }  # fmt: skip
    found = baselines_of(recipes, "base", "a")
    assert found["lambda"] == pytest.approx(
        {"base": 0, "a": 1, "b": 1, "0000": 1, "0001": 1.75, "0002": None, "0003": 0.25}
    )
    assert found["distance"] == pytest.approx(
        {"base": 1, "a": 0, "b": 2**0.5, "0000": 0.5**0.5, "0001": 0.75, "0002": None, "0003": (1 + 1 / 16) ** 0.5}
    )
    assert set(baselines_of(recipes, "base", None)["distance"].values()) == {None}


def test_equal_sums_are_equal_to_the_last_bit():
    weights = np.random.default_rng(0).uniform(0, 1.2, size=(50, 2)).tolist()
    recipes = {str(number): recipe("ties", *pair) for number, pair in enumerate(weights)}
    assert len({sum((coefficients(item) or {}).values()) for item in recipes.values()}) > 1, "or rounding shows nothing"
    assert set(baselines_of(recipes, None, None)["lambda"].values()) == {1.0}


def test_which_methods_divide_by_the_sum_of_weights():
    """nuslerp has no parameter for it: it takes the ratio of its two weights."""
    dividing = {
        spec.name
        for spec in method_specs().values()
        for name in ("normalize", "normalize_weights")
        if name in spec.parameters and spec.parameters[name].default is True
    }
    assert dividing | {"nuslerp"} == _DIVIDING
