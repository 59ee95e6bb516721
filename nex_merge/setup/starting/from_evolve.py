"""A configuration of mergekit-evolve → what a search in its place needs. What a search can't do is named."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict

from nex_merge.errors import InputError
from nex_merge.records import MethodSpec
from nex_merge.setup.config import parse
from nex_merge.setup.explain import nearest
from nex_merge.setup.starting.from_mergekit import Plan, donor_of, layers_of, members
from nex_merge.setup.starting.recipe_values import Cell, key_of, location
from nex_merge.setup.strict import Strict
from nex_merge.setup.yaml_files import as_yaml

# The methods that its genome takes, and those of them whose merges it normalizes unless it is told not to.
_METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "slerp")
_NORMALIZED = ("ties", "dare_ties", "linear")
_GENOME = ("models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
           "allow_negative_weights", "filters", "smooth")  # fmt: skip
# Other keys -> why a search has none.
_DROPPED = {
    "limit": "it is of a task's documents; prompts.limit is the number of prompts",
    "num_fewshot": "write examples into the prompts",
    "fewshot_as_multiturn": "write examples into the prompts",
    "shuffle": "all prompts are asked, in their order",
    "random_init": "a search begins with equal weights",
}


class _Genome(Strict):
    """What of a genome is read beside its models and method."""

    model_config = ConfigDict(extra="ignore")

    layer_granularity: int = 0
    normalize: bool | None = None
    allow_negative_weights: bool = False
    filters: list[str] | None = None
    smooth: bool = False


class _Evolve(Strict):
    model_config = ConfigDict(extra="ignore")

    genome: _Genome
    apply_chat_template: bool = True


def plan_of_evolve(
    content: Mapping[str, Any], specs: Mapping[str, MethodSpec], source: str, base: str | None = None
) -> Plan:
    """The plan of a search over what a genome describes.

    `specs`, `base`: as for `from_mergekit.plan_of`. Raises InputError if the genome is none, one that
    mergekit-evolve refuses, or a model is in no place.
    """
    genome = content["genome"]
    if not isinstance(genome, Mapping) or not isinstance(genome.get("models"), list) or not genome["models"]:
        raise InputError(f"{source}: genome: expected a mapping with models and merge_method, got {as_yaml(genome)}")
    method = genome.get("merge_method")
    if method not in _METHODS:
        raise InputError(
            f"{source}: genome.merge_method: expected a method of mergekit-evolve, got {as_yaml(method)}."
            f"{nearest(str(method), _METHODS, 'methods')}"
        )
    spec, read = specs[method], parse(_Evolve, content, source)
    listed = [location(model) for model in genome["models"]]
    # Its slerp takes the two best of a group; any two are a pair here, over a base that is none of them.
    own = genome.get("base_model")
    of_base, models = members(replace(spec, pairs=False), own, listed, base, source)
    donor, dropped = donor_of(genome, key_of(of_base), {key_of(place): name for name, place in models.items()})
    groups, layers = _groups(read.genome, layers_of([of_base, *models.values()]), source)
    values = {}
    normalize = read.genome.normalize
    if "normalize" in spec.parameters:
        values["normalize", None] = [Cell(None, 0, method in _NORMALIZED if normalize is None else normalize)]
    return Plan(
        spec,
        of_base,
        models,
        donor,
        None,
        groups,
        read.genome.filters or [],
        values,
        negative=read.genome.allow_negative_weights,
        chat_template=None if read.apply_chat_template else False,
        carried=[layers] if layers else [],
        dropped=[*_tasks(content), *dropped, *_others(content, genome)],
    )


def _tasks(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for task in content.get("tasks") or ():
        task = {"name": task} if isinstance(task, str) else task
        if not isinstance(task, Mapping):
            continue
        weight = f" (weight {task['weight']})" if "weight" in task else ""
        lines.append(
            f"tasks: {task.get('name')}{weight}: a search has prompts without labels; what a task says of the merges "
            "is measured afterwards, by `nex-merge benchmark` or on exports"
        )
    return lines


def _others(content: Mapping[str, Any], genome: Mapping[str, Any]) -> list[str]:
    lines = [f"{key}: {why}" for key, why in _DROPPED.items() if content.get(key)]
    known = {"genome", "tasks", "apply_chat_template", *_DROPPED}
    lines += [f"{key}: no key of mergekit-evolve" for key in content if key not in known]
    return lines + [f"genome.{key}: no key of mergekit-evolve" for key in genome if key not in _GENOME]


def _groups(genome: _Genome, layers: int | None, source: str) -> tuple[int, str | None]:
    """`layer_groups`, and what is to be said of it. `layers`: those that the models have; None: not known."""
    granularity = genome.layer_granularity
    if granularity <= 0:
        return 1, None
    said = f"layer_granularity: {granularity}"
    if layers is None:
        return 1, (
            f"{said}: no member is here to count its layers; set layer_groups to their number divided by {granularity}"
        )
    if layers % granularity:
        raise InputError(
            f"{source}: genome.layer_granularity: expected a divisor of the models' {layers} layers, as "
            f"mergekit-evolve does, got {granularity}"
        )
    groups = layers // granularity
    smooth = "as with smooth: true" if genome.smooth else "where the genome has steps"
    return groups, f"{said} of {layers} layers: layer_groups: {groups}, with values in between {smooth}"
