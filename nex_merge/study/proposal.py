"""SearchSpace + anything with suggest_* -> MergeRecipe. Writes mergekit configurations without importing mergekit.

A study parameter is named after its model: `weight.pairs`; with filters `weight.pairs.self_attn` (`rest` for tensors
that match no filter); with layer groups `weight.pairs.0`, `weight.pairs.1`, ... from the first layer to the last.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any, Protocol

from nex_merge.records import Dimension, MergeRecipe, MethodSpec, SearchSpace

# Task vectors are computed in float32, whatever the parents' dtype; only the result is rounded to it.
MERGE_DTYPE = "float32"
# First guesses: the weight of a dominant model, and the weights tried for all models alike.
DOMINANT = 0.8
LINE = (0.3, 0.7, 1.0)


class Suggester(Protocol):
    """The part of optuna.trial.Trial that proposals need."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


Choose = Callable[[str, Dimension], Any]


def propose(
    space: SearchSpace, references: Mapping[str, str | Path], out_dtype: str, suggester: Suggester, seed: int
) -> MergeRecipe:
    """A recipe with every searched value taken from `suggester`.

    `references` maps 'base' and the models' names to how mergekit names them; `out_dtype` is the dtype of the saved
    weights.
    """
    searched: dict[str, Any] = {}

    def choose(name: str, dimension: Dimension) -> Any:
        if not dimension.searched:
            return dimension.fixed
        searched[name] = _suggest(suggester, name, dimension)
        return searched[name]

    return _build(space, references, out_dtype, choose, searched, seed)


def equal_weights(space: SearchSpace, models: Sequence[str]) -> dict[str, Any]:
    """Study parameters of the first guess: the first method, equal weights, mergekit's defaults for the rest."""
    return _guess(space, models, dict.fromkeys(models, 1 / len(models)), 0.5)


def first_guesses(
    space: SearchSpace, models: Sequence[str], given: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Study parameters of the first guesses, with the space's first method and without duplicates.

    Equal weights; those that are `given`, by any method; each model dominant; then one weight for all models (`LINE`),
    unless the method divides by the sum of weights, so that these would all be the same merge.
    """
    guesses = [equal_weights(space, models), *map(dict, given)]
    for place, model in enumerate(models):
        rest = round((1 - DOMINANT) / max(len(models) - 1, 1), 12)
        weights = {other: DOMINANT if other == model else rest for other in models}
        # t interpolates from the first model of a pair to the second.
        guesses.append(_guess(space, models, weights, round(1 - DOMINANT, 12) if place == 0 else DOMINANT))
    if not _is_normalized(space):
        guesses += [_guess(space, models, dict.fromkeys(models, weight), 0.5) for weight in LINE]
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for guess in guesses:
        distinct.setdefault(tuple(sorted(guess.items())), guess)
    return list(distinct.values())


def _guess(space: SearchSpace, models: Sequence[str], weights: Mapping[str, float], t: float) -> dict[str, Any]:
    """Study parameters with the space's first method and the allowed values nearest to `weights` and `t`."""
    values: dict[str, Any] = {}

    def choose(name: str, dimension: Dimension) -> Any:
        if not dimension.searched:
            return dimension.fixed
        parameter, _, rest = name.partition(".")
        spec = space.methods[0].parameters.get(parameter)
        if parameter == "weight":
            target: Any = weights.get(rest.split(".")[0])
        else:
            target = t if parameter == "t" else spec.default if spec else None
        values[name] = _nearest_value(dimension, target)
        return values[name]

    _build(space, _named(models), "float32", choose, {}, 0)
    return values


def _is_normalized(space: SearchSpace) -> bool:
    """Whether the first method divides by the sum of weights, or has no weights."""
    method = space.methods[0]
    if "weight" not in method.parameters:
        return True
    parameter, dimension = method.parameters.get("normalize"), space.dimension("normalize", None)
    return bool(dimension.fixed if dimension else parameter.default if parameter else False)


def dimensions_of(space: SearchSpace, models: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By method, the sorted names of the searched parameters, over all pairs of models."""
    by_method: dict[str, tuple[str, ...]] = {}
    for method in space.methods:
        names: set[str] = set()
        for pair in model_pairs(method, models) if method.pairs else [None]:

            def choose(
                name: str,
                dimension: Dimension,
                pair: str | None = pair,
                method: MethodSpec = method,
                names: set[str] = names,
            ) -> Any:
                if name != "method" and dimension.searched:
                    names.add(name)
                if name == "method":
                    return method.name
                if name.startswith("pair."):
                    return pair
                return dimension.choices[0] if dimension.choices else dimension.fixed

            _build(space, _named(models), "float32", choose, {}, 0)
        by_method[method.name] = tuple(sorted(names))
    return by_method


def passthrough(kind: str, name: str, reference: str | Path, out_dtype: str) -> MergeRecipe:
    """The recipe of an unmerged baseline."""
    config = {
        "merge_method": "passthrough",
        "models": [{"model": str(reference)}],
        "dtype": out_dtype,
    }
    return MergeRecipe(kind, "passthrough", config, 0, {"model": name})


def _build(
    space: SearchSpace,
    references: Mapping[str, str | Path],
    out_dtype: str,
    choose: Choose,
    searched: Mapping[str, Any],
    seed: int,
) -> MergeRecipe:
    names = [method.name for method in space.methods]
    picked = choose("method", _choices(names))
    method = next(item for item in space.methods if item.name == picked)
    models = [name for name in references if name != "base"]
    base = "base" if method.names_base else None
    if method.pairs:
        pair = choose(f"pair.{method.name}", _choices(model_pairs(method, models)))
        models = pair.split("+")
        # Unless the method takes the family's base, the first of the pair is the base_model.
        base = base or models[0]
    config: dict[str, Any] = {"merge_method": method.name}
    if base is not None:
        config["base_model"] = str(references[base])
    config["models"] = []
    for model in models:
        parameters = {
            parameter.name: value
            for parameter in method.parameters.values()
            if parameter.per_model and (value := _setting(space, parameter.name, model, choose)) is not None
        }
        config["models"].append({"model": str(references[model]), **({"parameters": parameters} if parameters else {})})
    shared = {
        parameter.name: value
        for parameter in method.parameters.values()
        if not parameter.per_model and (value := _setting(space, parameter.name, None, choose)) is not None
    }
    if shared:
        config["parameters"] = shared
    config |= {"dtype": MERGE_DTYPE, "out_dtype": out_dtype}
    return MergeRecipe("merge", method.name, config, seed, dict(searched))


def _named(models: Sequence[str]) -> dict[str, str | Path]:
    """References by which a recipe's shape can be found, whatever the checkpoints are."""
    return {name: name for name in ("base", *models)}


def model_pairs(method: MethodSpec, models: Sequence[str]) -> list[str]:
    """The pairs that a two-model method may take, as 'first+second'; with a single model, the base and it."""
    if len(models) == 1:
        return [f"base+{models[0]}"]
    orders = permutations if method.ordered else combinations
    return ["+".join(pair) for pair in orders(models, 2)]


def _choices(values: Sequence[str]) -> Dimension:
    return Dimension("str", fixed=values[0]) if len(values) == 1 else Dimension("str", choices=tuple(values))


def _setting(space: SearchSpace, parameter: str, model: str | None, choose: Choose) -> Any:
    """A value as mergekit takes it: a scalar, a gradient, or either under filters. None: not in the space."""
    dimension = space.dimension(parameter, model)
    if dimension is None:
        return None
    stem = parameter if model is None else f"{parameter}.{model}"
    # Only float parameters vary by depth and filter.
    if dimension.type != "float" or not dimension.searched:
        return choose(stem, dimension)
    if not space.filters:
        return _gradient(space, stem, dimension, choose)
    parts = [{"filter": name, "value": _gradient(space, f"{stem}.{name}", dimension, choose)} for name in space.filters]
    return [*parts, {"value": _gradient(space, f"{stem}.rest", dimension, choose)}]


def _gradient(space: SearchSpace, stem: str, dimension: Dimension, choose: Choose) -> Any:
    if space.layer_groups == 1:
        return choose(stem, dimension)
    return [choose(f"{stem}.{i}", dimension) for i in range(space.layer_groups)]


def _suggest(suggester: Suggester, name: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return suggester.suggest_categorical(name, dimension.choices)
    assert dimension.low is not None and dimension.high is not None
    if dimension.type == "int":
        step = int(dimension.step or 1)
        return suggester.suggest_int(name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    value = suggester.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
    # Rounds off floating-point errors such as 0.9000000000000001.
    return value if dimension.step is None else round(value, 12)


def _nearest_value(dimension: Dimension, target: Any) -> Any:
    """The allowed value nearest to `target`. Default: the first choice, or the middle of the range."""
    if dimension.choices is not None:
        return target if target in dimension.choices else dimension.choices[0]
    assert dimension.low is not None and dimension.high is not None
    if target is None:
        target = (dimension.low + dimension.high) / 2
    value = min(max(target, dimension.low), dimension.high)
    if dimension.step is not None:
        steps = math.floor((dimension.high - dimension.low) / dimension.step + 1e-9)
        value = dimension.low + min(math.floor((value - dimension.low) / dimension.step + 0.5), steps) * dimension.step
        value = round(min(value, dimension.high), 12)  # not 0.8500000000000001, as `_suggest` has it
    return round(value) if dimension.type == "int" else float(value)


def count_recipes(space: SearchSpace, models: Sequence[str]) -> float:
    """Number of recipes in the space; infinite if any parameter is continuous."""
    total = 0.0
    for method in space.methods:
        sizes: list[float] = []

        def choose(name: str, dimension: Dimension, sizes: list[float] = sizes, method: MethodSpec = method) -> Any:
            if name == "method":
                return method.name
            sizes.append(_size(dimension))
            return dimension.choices[0] if dimension.choices else dimension.fixed

        _build(space, _named(models), "float32", choose, {}, 0)
        total += math.prod(sizes)
    return total


def _size(dimension: Dimension) -> float:
    if not dimension.searched:
        return 1
    if dimension.choices is not None:
        return len(dimension.choices)
    assert dimension.low is not None and dimension.high is not None
    if dimension.step is None and dimension.type == "float":
        return math.inf
    return math.floor((dimension.high - dimension.low) / (dimension.step or 1) + 1e-9) + 1
