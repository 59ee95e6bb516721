"""What to try next, from the study alone, so that a search that was stopped goes on with the same trials.

A search begins with what people try first, goes on with points of a low-discrepancy sequence and of TPE in turns, and
then with TPE alone. Which of these a trial is follows from its number, so that a longer search begins with the trials
of a shorter one.
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
# Points of the low-discrepancy sequence, every other trial once the first guesses are tried: at least so many, and so
# many for each method.
SPREAD, SPREAD_PER_METHOD = 8, 2
# The values that merges before a number have for it, by trial; None where those told are final.
Seen = Callable[[int], Mapping[str, float] | None]


def stable_seed(*parts: object) -> int:
    """A seed from what it is for, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") % 2**SEED_BITS


@dataclass(frozen=True)
class Start:
    """How a search over a space begins."""

    guesses: Sequence[Mapping[str, Any]]  # study parameters of what people try first
    dimensions: Mapping[str, Sequence[str]]  # by method: the parameters that are searched


class MergeSampler(BaseSampler):
    """An Optuna sampler without state: every draw is seeded by (study seed, trial number), never by earlier draws."""

    def __init__(self, kind: str, seed: int, start: Start, seen: Seen = lambda number: None) -> None:
        """`kind`: tpe or random; random draws at random after the first guesses.

        `seen` gives the values that earlier trials have when a trial begins: under a pool they change as it grows, and
        Optuna has to compare like with like.
        """
        self._kind, self._seed, self._start, self._seen = kind, seed, start, seen
        # The study as the latest trial found it, and TPE for that trial.
        self._found: tuple[int, optuna.Study, FrozenTrial] | None = None
        self._tpe = _tpe(0)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        if not self._is_for_tpe(trial.number):
            return {}
        copy, own = self._as_found(study, trial)
        # Made anew whenever a trial is opened, so that opening one again draws the same.
        self._tpe = _tpe(stable_seed(self._seed, trial.number))
        return self._tpe.infer_relative_search_space(copy, own)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        if not search_space:
            return {}
        return self._tpe.sample_relative(*self._as_found(study, trial), search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """What the joint proposal leaves open: a first guess, a spread point, or a value that TPE hasn't seen yet."""
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
        """The coordinates, from 0 to 1, of a trial that is a point of the sequence: one sequence for each method."""
        place, odd = divmod(number - len(self._start.guesses), 2)
        methods = list(self._start.dimensions)
        if self._kind != "tpe" or odd or not 0 <= place < max(SPREAD, SPREAD_PER_METHOD * len(methods)):
            return None
        from scipy.stats import qmc

        method = methods[place % len(methods)]
        names = self._start.dimensions[method]
        chosen = {"method": (methods.index(method) + 0.5) / len(methods)}
        if not names:
            return chosen
        sequence = qmc.Sobol(len(names), scramble=True, rng=stable_seed(self._seed, "spread", method))
        if skipped := place // len(methods):
            sequence.fast_forward(skipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a single point is no balanced set
            coordinates = sequence.random(1)[0]
        return chosen | dict(zip(names, coordinates.tolist(), strict=True))

    def _is_for_tpe(self, number: int) -> bool:
        return self._kind == "tpe" and self._guess(number) is None and self._spread_point(number) is None

    def _as_found(self, study: Any, trial: Any) -> tuple[optuna.Study, FrozenTrial]:
        """The study as this trial found it, and the trial in it; made once per trial."""
        if self._found is None or self._found[0] != trial.number:
            copy = _as_before(study, trial.number, self._seen(trial.number) or {})
            self._found = (trial.number, copy, copy.get_trials(deepcopy=False)[trial.number])
        return self._found[1:]


def _tpe(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # group
        # All parameters of a method together; conditional ones in groups; trials under way elsewhere are avoided. The
        # first trials are this module's business.
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


def _as_before(study: Any, number: int, values: Mapping[str, float]) -> optuna.Study:
    """A copy in memory of the study's trials before a number, with other values where they are given, and of that one.

    What a trial that was stopped had drawn already is left out: it is drawn again, the same.
    """
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials():
        if trial.number >= number:
            break
        value = values.get(files.trial_id(trial.number))
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
