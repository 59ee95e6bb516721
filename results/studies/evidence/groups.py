"""Layer groups freed coarse to fine: at first a parameter has one value for all layers, then the groups that matter
most get values of their own.

An Optuna sampler over the space in which every group has its own parameters. Parameters of groups that are not free yet
are tied; earlier trials tie more, so that all of them fit the space of any later stage. TPE proposes in that space.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState
from ranking.families import FAMILIES
from safetensors.torch import load_file

from nex_merge.study.samplers import stable_seed

# The trials, of 40, at which one more group is freed; with the last of them the last two are free.
STAGES = (14, 23, 32)
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class CoarseToFine(BaseSampler):
    """`order`: the groups by importance, the most important first. Parameters are named PARAMETER.MODEL.GROUP."""

    def __init__(self, order: Sequence[int], seed: int) -> None:
        self._order, self._seed = list(order), seed

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return intersection_search_space(study.get_trials(deepcopy=False, states=DONE))

    def sample_relative(
        self, study: Any, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        names = {name: self._tied(name, trial.number) for name in search_space}
        space = {names[name]: distribution for name, distribution in search_space.items()}
        shadow = optuna.create_study(
            direction=study.direction, sampler=TPESampler(multivariate=True, seed=self._seed * 1_000 + trial.number)
        )
        for past in study.get_trials(deepcopy=False, states=DONE):
            known = {names[name]: value for name, value in past.params.items()}
            shadow.add_trial(optuna.trial.create_trial(params=known, distributions=space, value=past.value))
        proposed = shadow.ask(space).params
        return {name: proposed[tied] for name, tied in names.items()}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        tied = self._tied(param_name, trial.number)
        drawn = optuna.samplers.RandomSampler(seed=stable_seed("groups", self._seed, trial.number, tied))
        return drawn.sample_independent(study, trial, tied, param_distribution)

    def _tied(self, name: str, number: int) -> str:
        """A parameter's own name if its group is free, otherwise without the group."""
        stem, _, group = name.rpartition(".")
        stage = sum(number >= start for start in STAGES)
        free = self._order if stage == len(STAGES) else self._order[:stage]
        return name if int(group) in free else stem


def by_norm(family: str, layers: int = 4) -> list[int]:
    """The layers, those first whose weights the fine-tunes change most: sum of the task vectors' squared norms."""
    root, kinds = FAMILIES[family]
    base = _tensors(Path(root) / "base")
    norms = [0.0] * layers
    for kind in kinds:
        for name, tensor in _tensors(Path(root) / kind).items():
            if (layer := _layer(name)) is not None:
                norms[layer] += float((tensor.float() - base[name].float()).square().sum())
    return sorted(range(layers), key=lambda layer: -norms[layer])


def by_activations(folders: Mapping[str, Path], merger: Any, texts: Sequence[Sequence[int]], layers: int) -> list[int]:
    """The layers, those first that change base's activations most when they come from a fine-tune.

    The squared difference of the inputs of all down projections on `texts`, relative to base's, summed over fine-tunes.
    """
    base, experts = _tensors(folders["base"]), {n: _tensors(f) for n, f in folders.items() if n != "base"}
    model = merger.model

    def activations(tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
        handles = [
            layer.mlp.down_proj.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0].clone()))
            for layer in model.model.layers
        ]
        with torch.inference_mode():
            for ids in texts:
                model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        for handle in handles:
            handle.remove()
        return kept

    plain, changes = activations(base), [0.0] * layers
    for tensors in experts.values():
        for layer in range(layers):
            swapped = {name: tensors[name] if _layer(name) == layer else own for name, own in base.items()}
            pairs = zip(activations(swapped), plain, strict=True)
            changes[layer] += sum(float((a - b).square().sum() / b.square().sum()) for a, b in pairs)
    return sorted(range(layers), key=lambda layer: -changes[layer])


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else None
