"""Recipes from search spaces: what is suggested, per model, per filter, over depth; the first guess; counting."""

from pathlib import Path

import pytest
import yaml
from optuna.trial import FixedTrial

from nex_merge.merging import method_specs
from nex_merge.setup.config import known_names
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import count_recipes, equal_weights, propose

SPECS = method_specs()
FOLDERS = {"base": Path("/m/base"), "a": Path("/m/a"), "b": Path("/m/b")}
MODELS = ["a", "b"]


def recipe(space, values):
    return propose(load_space(space, SPECS, MODELS), FOLDERS, "bfloat16", FixedTrial(values), 5)


@pytest.mark.parametrize("name", known_names("search_spaces"))
def test_shipped_spaces_can_be_merged(name):
    space = load_space(name, SPECS, MODELS)
    found = propose(space, FOLDERS, "bfloat16", FixedTrial(equal_weights(space, MODELS)), 5)
    assert found.method == space.methods[0].name
    assert yaml.safe_load(yaml.safe_dump(found.config)) == found.config


def test_per_model_and_shared_parameters():
    space = {"methods": ["ties"], "parameters": {"weight": {"low": 0, "high": 1}, "density": 0.5, "lambda": 0.9}}
    found = recipe(space, {"weight.a": 0.25, "weight.b": 0.75})
    assert found.config == {
        "merge_method": "ties",
        "base_model": "/m/base",
        "models": [
            {"model": "/m/a", "parameters": {"weight": 0.25, "density": 0.5}},
            {"model": "/m/b", "parameters": {"weight": 0.75, "density": 0.5}},
        ],
        "parameters": {"lambda": 0.9},
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }
    assert found.parameters == {"weight.a": 0.25, "weight.b": 0.75}
    assert found.seed == 5


def test_a_narrower_range_for_one_model():
    space = {
        "methods": ["task_arithmetic"],
        "parameters": {"weight": {"low": 0.0, "high": 1.2}},
        "models": {"b": {"weight": 0.4}},
    }
    assert recipe(space, {"weight.a": 1.0}).config["models"][1]["parameters"] == {"weight": 0.4}


def test_layer_groups_and_filters():
    space = {
        "methods": ["linear"],
        "parameters": {"weight": {"low": 0.1, "high": 1.0}},
        "layer_groups": 2,
        "filters": ["mlp"],
    }
    values = {f"weight.{m}.{f}.{i}": v for m, f, i, v in (
        ("a", "mlp", 0, 0.1), ("a", "mlp", 1, 0.2), ("a", "rest", 0, 0.3), ("a", "rest", 1, 0.4),
        ("b", "mlp", 0, 0.5), ("b", "mlp", 1, 0.6), ("b", "rest", 0, 0.7), ("b", "rest", 1, 0.8),
    )}  # fmt: skip
    weight = recipe(space, values).config["models"][0]["parameters"]["weight"]
    assert weight == [{"filter": "mlp", "value": [0.1, 0.2]}, {"value": [0.3, 0.4]}]


def test_pairs_of_two_model_methods():
    space = {"methods": ["slerp", "nearswap"], "parameters": {"t": {"low": 0.0, "high": 1.0}}}
    found = recipe(space, {"method": "slerp", "t": 0.3})
    assert found.config["base_model"] == "/m/a"
    assert found.config["models"] == [{"model": "/m/a"}, {"model": "/m/b"}]
    found = recipe(space, {"method": "nearswap", "pair.nearswap": "b+a", "t": 0.3})
    assert found.config["base_model"] == "/m/b"
    assert found.config["models"] == [{"model": "/m/b"}, {"model": "/m/a"}]


def test_the_first_guess_stays_inside_the_ranges():
    space = load_space(
        {
            "methods": ["della"],
            "parameters": {
                "weight": {"low": 0.0, "high": 1.0, "step": 0.2},
                "density": {"low": 0.3, "high": 0.8},
                "epsilon": 0.1,
                "rescale": {"choices": [False, True]},
            },
        },
        SPECS,
        MODELS,
    )
    assert equal_weights(space, MODELS) == {
        "weight.a": 0.6, "weight.b": 0.6, "density.a": 0.8, "density.b": 0.8,
        "rescale": True,
    }  # fmt: skip


def test_counting():
    stepped = {"weight": {"low": 0.0, "high": 1.0, "step": 0.25}, "lambda": {"choices": [0.5, 1.0]}}
    assert count_recipes(load_space({"methods": ["ties"], "parameters": stepped}, SPECS, MODELS), MODELS) == 50
    assert count_recipes(load_space("ties", SPECS, MODELS), MODELS) == float("inf")
