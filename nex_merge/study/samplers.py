"""Samplers that need no state but the study itself, so that a search that was stopped goes on with the same trials."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from nex_merge.runs import files

SEED_BITS = 31
# The values that merges before a number have for it, by trial; None where those told are final.
Seen = Callable[[int], Mapping[str, float] | None]


def stable_seed(*parts: object) -> int:
    """A seed from what it is for, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") % 2**SEED_BITS


class StatelessSampler(BaseSampler):
    """An Optuna sampler made anew for every draw, so that resuming needs no state but the study itself.

    `seen` gives the values that earlier trials have for the draw with a number, or None where those told are final:
    under a pool they change as it grows, and Optuna has to compare like with like.
    """

    def __init__(self, kind: str, seed: int, seen: Seen = lambda number: None) -> None:
        self._kind, self._seed, self._seen = kind, seed, seen
        self._number, self._study = -1, None  # the study as a trial finds it

    def _fresh(self, *parts: object) -> BaseSampler:
        seed = stable_seed(self._seed, *parts)
        return TPESampler(seed=seed) if self._kind == "tpe" else RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        sampler = self._fresh(trial.number, param_name)
        return sampler.sample_independent(self._as_found(study, trial.number), trial, param_name, param_distribution)

    def _as_found(self, study: Any, number: int) -> Any:
        """The study with the values that earlier trials have for this one; made once per trial."""
        if number != self._number:
            values = self._seen(number)
            self._number, self._study = number, None if values is None else _with_values(study, values)
        return study if self._study is None else self._study


def _with_values(study: Any, values: Mapping[str, float]) -> optuna.Study:
    """A copy in memory of the study, its finished trials with other values."""
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        value = values.get(files.trial_id(trial.number))
        if value is not None:
            trial.values = [value]
        copy.add_trial(trial)
    return copy
