"""The sampler. It is a function of the study alone, so that a resumed search tries the same merges.

A search starts with first guesses. `tpe` then alternates between points of a Sobol sequence and TPE, and ends with TPE
alone; after trials of another run, TPE follows the first guess at once. `qmc` goes on with the Sobol sequence, `random`
with random draws. Which of these a trial is depends on its number only, so that a longer search starts with the trials
of a shorter one. Where several trials are under way at once, those that would be TPE's before any is told are Sobol
points as well.

`GivenSampler` is the exception: it lets any Optuna sampler take over after the first guesses.
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

from nex_merge.errors import InputError
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.known import horizon
from nex_merge.study.views import Present, as_before

SEED_BITS = 31
# Sobol points are every other trial after the first guesses: SPREAD of them, or SPREAD_PER_METHOD per method if more.
SPREAD, SPREAD_PER_METHOD = 8, 2
# number -> the current objectives of the merges before it, by trial; None if the values reported to Optuna are final.
Seen = Callable[[int], Mapping[str, Sequence[float]] | None]
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
    earlier: Sequence[FrozenTrial] = ()  # trials of another run, as if told before the first; TPE follows the guesses


class MergeSampler(BaseSampler):
    """A stateless Optuna sampler: every draw is seeded by (study seed, trial number), never by earlier draws."""

    def __init__(
        self,
        kind: str,
        seed: int,
        start: Start,
        seen: Seen = lambda number: None,
        recorded: Recorded = lambda number: None,
        parallel: int = 1,
    ) -> None:
        """`kind`: tpe, qmc or random, after the first guesses. `recorded` parameters are taken as they are.

        `parallel`: the trials that may be under way at once (`study.parallel`). Of those that a trial doesn't know, TPE
        gets the parameters alone, which it keeps away from.

        `seen` gives the values of earlier trials at the start of a trial: pooled measures change as the pool grows, and
        TPE has to compare values from the same pool.
        """
        self._kind, self._seed, self._start, self._seen = kind, seed, start, seen
        self._recorded, self._parallel = recorded, parallel
        # The study as of the latest trial, and TPE for that trial.
        self._found: tuple[int, optuna.Study, FrozenTrial] | None = None
        self._tpe = _tpe(0)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        if not self._is_for_tpe(trial.number) or self._recorded(trial.number) is not None:
            return {}
        found, frozen = self._as_found(study, trial)
        # A new TPE for each trial, so that a resumed trial draws the same values.
        self._tpe = _tpe(stable_seed(self._seed, trial.number))
        return self._tpe.infer_relative_search_space(found, frozen)

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
        after, methods = number - len(self._start.guesses), list(self._start.dimensions)
        if self._kind == "random" or after < 0 or (self._kind == "tpe" and self._start.earlier):
            return None
        place = after
        if self._kind == "tpe":
            place, odd = divmod(after, 2)
            points = max(SPREAD, SPREAD_PER_METHOD * len(methods))
            if odd or place >= points:
                if number >= self._parallel:
                    return None
                # TPE would have nothing to go by: one of the points that follow.
                place = points + place if place < points else after
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
        """The study as of this trial, and the trial in it; made once per trial."""
        if self._found is None or self._found[0] != trial.number:
            known = horizon(trial.number, self._parallel)
            found = as_before(study, trial.number, known, self._seen(trial.number) or {}, self._start.earlier)
            self._found = (trial.number, found, found.get_trials(deepcopy=False)[-1])
        return self._found[1:]


def check_given(sampler: Any, study: StudyConfig) -> None:
    """Raise InputError unless `sampler` is an Optuna sampler, and the study leaves something to it."""
    if not isinstance(sampler, BaseSampler):
        raise InputError(
            f"sampler: expected an Optuna sampler, such as optuna.samplers.NSGAIISampler(seed=0), got {sampler!r}"
        )
    for name in ("recipes", "warm_start"):
        if getattr(study, name) is not None:
            raise InputError(f"sampler: expected none with study.{name}, which says what is tried; remove one of them")


def _tpe(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group
        # All parameters of a method jointly, conditional ones in groups; running trials of other processes are avoided.
        # The start-up trials are those of this module.
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


class GivenSampler(BaseSampler):
    """An Optuna sampler of the user's own, after the first guesses.

    Its draws depend on its own state, which ends with the process: a search that was stopped goes on with other merges
    than one that was not.
    """

    def __init__(
        self, sampler: BaseSampler, start: Start, seen: Seen = lambda number: None, recorded: Recorded = lambda n: None
    ) -> None:
        """`seen` and `recorded`: as for `MergeSampler`."""
        self._own, self._seen, self._recorded = sampler, seen, recorded
        self._values: tuple[int, Mapping[str, Sequence[float]]] | None = None  # as of the latest trial
        self._guesses, self._first = len(start.guesses), MergeSampler("random", 0, start, recorded=recorded)

    def _is_known(self, number: int) -> bool:
        return number < self._guesses or self._recorded(number) is not None

    def before_trial(self, study: Any, trial: Any) -> None:
        self._own.before_trial(self._present(study, trial), trial)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        if self._is_known(trial.number):
            return {}
        return self._own.infer_relative_search_space(self._present(study, trial), trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        if self._is_known(trial.number):
            return {}
        return self._own.sample_relative(self._present(study, trial), trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        if self._is_known(trial.number):
            return self._first.sample_independent(study, trial, param_name, param_distribution)
        return self._own.sample_independent(self._present(study, trial), trial, param_name, param_distribution)

    def after_trial(self, study: Any, trial: Any, state: TrialState, values: Sequence[float] | None) -> None:
        self._own.after_trial(self._present(study, trial), trial, state, values)

    def reseed_rng(self) -> None:
        self._own.reseed_rng()

    def _present(self, study: Any, trial: Any) -> Any:
        if self._values is None or self._values[0] != trial.number:
            self._values = (trial.number, self._seen(trial.number) or {})
        return Present(study, self._values[1])


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
