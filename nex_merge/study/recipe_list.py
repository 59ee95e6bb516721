"""A fixed list of recipes instead of a search space: a trial each, in order, with the file's name as its parameter."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nex_merge.errors import InputError
from nex_merge.merging import adopt_recipe, method_specs
from nex_merge.records import MergeRecipe, MethodSpec, SearchSpace
from nex_merge.setup.config import find_file
from nex_merge.setup.families import Family
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.proposal import Suggester

PARAMETER = "recipe"


def load_recipes(resolved: ResolvedConfig, tensors: Sequence[str], out_dtype: str) -> dict[str, MergeRecipe]:
    """The run's recipes by name, as merges of its family; empty if it searches a space.

    `tensors`: the model's parameters. `out_dtype`: what merges are stored in. Raises InputError, naming the file, for a
    recipe that can't be merged in memory.
    """
    family, found = resolved.family, {}
    for name, content in (resolved.resolved.get("recipes") or {}).items():
        try:
            config = adopt_recipe(
                content, lambda model: _member_of(model, resolved), family.references, out_dtype, tensors,
                family.merged, family.donor,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"study.recipes: {name}: {error}") from None
        found[name] = MergeRecipe("merge", config["merge_method"], config, 0, {PARAMETER: name})
    return found


def space_of(recipes: Mapping[str, MergeRecipe]) -> SearchSpace:
    """The methods of the recipes, without anything to search."""
    specs = method_specs()
    methods = dict.fromkeys(recipe.method for recipe in recipes.values())
    return SearchSpace(tuple(specs[name] for name in methods if name in specs), {}, {}, 1, ())


def pick(recipes: Mapping[str, MergeRecipe], suggester: Suggester, seed: int) -> MergeRecipe:
    """The recipe that `suggester` names."""
    return replace(recipes[suggester.suggest_categorical(PARAMETER, list(recipes))], seed=seed)


def equal_weights_of(recipes: Mapping[str, MergeRecipe], family: Family) -> Mapping[str, Any] | None:
    """The study parameters of the first recipe that gives all models of the family equal weights; None if none does.

    Weights are equal if they are one number, and their sum is 1 unless the method divides by it; or it is slerp at 0.5.
    """
    specs = method_specs()
    for recipe in recipes.values():
        if recipe.method in specs and _is_equal(recipe.config, specs[recipe.method], family):
            return recipe.parameters
    return None


def _is_equal(config: Mapping[str, Any], spec: MethodSpec, family: Family) -> bool:
    models = {family.references[name] for name in family.models}
    listed = {item["model"]: item.get("parameters") or {} for item in config.get("models") or ()}
    shared = config.get("parameters") or {}
    if "t" in spec.parameters:
        return listed.keys() == models and shared.get("t") == 0.5
    if "weight" not in spec.parameters or listed.keys() - {config.get("base_model")} != models:
        return False
    given = [listed[model].get("weight", shared.get("weight")) for model in models]
    weights = [weight for weight in given if isinstance(weight, int | float)]
    if len(weights) < len(models) or len(set(weights)) > 1:
        return False
    parameter = spec.parameters.get("normalize")
    is_divided = shared.get("normalize", parameter.default if parameter else False)
    return bool(is_divided) or abs(sum(weights) - 1) < 1e-6


def _member_of(model: str, resolved: ResolvedConfig) -> str | None:
    """The member that a recipe means: by its name, as the family spells its files, or by a path to its folder."""
    defined, family = resolved.resolved["family"], resolved.family
    if model in family.folders:
        return model
    for name in family.folders:
        location = defined["base"] if name == "base" else defined["models"][name]
        path, revision, adapter = (location.get(key) for key in ("path", "revision", "adapter"))
        if adapter:
            under = defined["base"]["path"] if path == "base" else path
            spelled = {f"{under}+{adapter}"}
        else:
            spelled = {path, f"{path}@{revision}"}
        if model in {*spelled, family.references[name]}:
            return name
    folder = find_file(model)
    places = {path.resolve(): name for name, path in family.folders.items() if name not in family.adapters}
    return None if folder is None else places.get(folder.resolve())
