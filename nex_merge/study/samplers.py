"""The sampler. It is a function of the study alone, so that a resumed search tries the same merges.

A search starts with first guesses, then alternates between points of a Sobol sequence and TPE, then uses TPE alone.
Which of these a trial is depends on its number only, so that a longer search starts with the trials of a shorter one.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nex_merge.runs import files

SEED_BITS = 31
# Sobol points are every other trial after the first guesses: SPREAD of them, or SPREAD_PER_METHOD per method if more.
SPREAD, SPREAD_PER_METHOD = 8, 2
# number -> the current values of the merges before it, by trial; None if the values reported to Optuna are final.
Seen = Callable[[int], Mapping[str, float] | None]
# number -> the parameters of a trial that was evaluated before the study lost it; None for others.
Recorded = Callable[[int], Mapping[str, Any] | None]


def stable_seed(*parts: object) -> int:
    """A seed derived from `parts`, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") % 2**SEED_BITS


@dataclass(frozen=True)
class Start:
    """The fixed start of a search over a space."""

    guesses: Sequence[Mapping[str, Any]]  # study parameters of the first guesses
    dimensions: Mapping[str, Sequence[str]]  # by method: the searched parameters


class MergeSampler(BaseSampler):
    """A stateless Optuna sampler: every draw is seeded by (study seed, trial number), never by earlier draws."""

    def __init__(
        self,
        kind: str,
        seed: int,
        start: Start,
        seen: Seen = lambda number: None,
        recorded: Recorded = lambda number: None,
    ) -> None:
        """`kind`: tpe, or random after the first guesses. `recorded` parameters are taken as they are.

        `seen` gives the values of earlier trials at the start of a trial: pooled measures change as the pool grows, and
        TPE has to compare values from the same pool.
        """
        self._kind, self._seed, self._start, self._seen = kind, seed, start, seen
        self._recorded = recorded
        # The study as of the latest trial, and TPE for that trial.
        self._found: tuple[int, optuna.Study, FrozenTrial] | None = None
        self._tpe = _tpe(0)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        if not self._is_for_tpe(trial.number) or self._recorded(trial.number) is not None:
            return {}
        copy, frozen = self._as_found(study, trial)
        # A new TPE for each trial, so that a resumed trial draws the same values.
        self._tpe = _tpe(stable_seed(self._seed, trial.number))
        return self._tpe.infer_relative_search_space(copy, frozen)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        if not search_space:
            return {}
        return self._tpe.sample_relative(*self._as_found(study, trial), search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Parameters not sampled jointly: of a first guess or Sobol point, or new to TPE."""
        recorded = self._recorded(trial.number)
        if recorded is not None and param_name in recorded and _allows(param_distribution, recorded[param_name]):
            return recorded[param_name]
        guess, point = self._guess(trial.number), self._spread_point(trial.number)
        if guess is not None and param_name in guess and _allows(param_distribution, guess[param_name]):
            return guess[param_name]
        if point is not None and param_name in point:
            return _at(param_distribution, point[param_name])
        seed = stable_seed(self._seed, trial.number, param_name)
        if not self._is_for_tpe(trial.number):
            return RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)
        return _tpe(seed).sample_independent(*self._as_found(study, trial), param_name, param_distribution)

    def _guess(self, number: int) -> Mapping[str, Any] | None:
        return self._start.guesses[number] if number < len(self._start.guesses) else None

    def _spread_point(self, number: int) -> Mapping[str, float] | None:
        """The coordinates, in [0, 1), of a Sobol point, with one sequence per method; None for other trials."""
        place, odd = divmod(number - len(self._start.guesses), 2)
        methods = list(self._start.dimensions)
        if self._kind != "tpe" or odd or not 0 <= place < max(SPREAD, SPREAD_PER_METHOD * len(methods)):
            return None
        from scipy.stats import qmc

        method = methods[place % len(methods)]
        names = self._start.dimensions[method]
        point = {"method": (methods.index(method) + 0.5) / len(methods)}
        if not names:
            return point
        sequence = qmc.Sobol(len(names), scramble=True, rng=stable_seed(self._seed, "spread", method))
        if skipped := place // len(methods):
            sequence.fast_forward(skipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a single point is not a balanced set
            coordinates = sequence.random(1)[0]
        return point | dict(zip(names, coordinates.tolist(), strict=True))

    def _is_for_tpe(self, number: int) -> bool:
        return self._kind == "tpe" and self._guess(number) is None and self._spread_point(number) is None

    def _as_found(self, study: Any, trial: Any) -> tuple[optuna.Study, FrozenTrial]:
        """A copy of the study as of this trial, and the trial in it; made once per trial."""
        if self._found is None or self._found[0] != trial.number:
            copy = _as_before(study, trial.number, self._seen(trial.number) or {})
            self._found = (trial.number, copy, copy.get_trials(deepcopy=False)[trial.number])
        return self._found[1:]


def _tpe(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group
        # All parameters of a method jointly, conditional ones in groups; running trials of other processes are avoided.
        # The start-up trials are those of this module.
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


def _as_before(study: Any, number: int, values: Mapping[str, float]) -> optuna.Study:
    """An in-memory copy of the study: the trials before `number`, updated by `values`, and that trial as running.

    The parameters that an interrupted trial already has are left out: they are drawn again, identically.
    """
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials():
        if trial.number >= number:
            break
        value = values.get(files.trial_id(trial.number))
        if trial.state is TrialState.PRUNED:
            # Its value is an estimate of the whole, as good for comparing as others; Optuna would rank pruned trials by
            # how far they came.
            trial.state, trial.values = TrialState.COMPLETE, [trial.value]
            trial.intermediate_values = {}
        if value is not None and trial.state is TrialState.COMPLETE:
            trial.values = [value]
        copy.add_trial(trial)
    copy.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    return copy


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _at(distribution: BaseDistribution, coordinate: float) -> Any:
    """The value of a distribution at a coordinate in [0, 1)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(coordinate * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        steps = int(coordinate * (round((high - low) / step) + 1))
        value = min(low + steps * step, high)
        return int(value) if isinstance(distribution, IntDistribution) else float(value)
    value = low * (high / low) ** coordinate if distribution.log else low + (high - low) * coordinate
    return round(value) if isinstance(distribution, IntDistribution) else float(value)
