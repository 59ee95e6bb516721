"""A study as a sampler finds it: the trials that a trial knows, with the values that they have by then."""

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from nex_merge.runs import files


def as_before(
    study: Any,
    number: int,
    known: int,
    values: Mapping[str, Sequence[float]],
    earlier: Sequence[FrozenTrial] = (),
) -> optuna.Study:
    """The study as a trial finds it, in memory, with that trial as running, and last.

    Trials below `known` are updated by `values`; those between are running, with their parameters, though they may have
    been told meanwhile. The parameters that an interrupted trial already has are left out: they are drawn again,
    identically. `earlier`: trials to put before all others.
    """
    before = study.get_trials(deepcopy=False)[:number]
    running = [
        optuna.trial.create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
        for trial in before[known:]
    ]
    trials = [*map(copy.copy, earlier), *updated(before[:known], values), *running]
    for place, trial in enumerate(trials):
        trial.number = place
    found = optuna.create_study(directions=study.directions, storage=_Listed(trials))
    found.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    return found


def updated(trials: Sequence[FrozenTrial], values: Mapping[str, Sequence[float]]) -> list[FrozenTrial]:
    """Copies of trials, with the present `values` of complete ones, by trial."""
    found = []
    for trial in map(copy.copy, trials):
        current = values.get(files.trial_id(trial.number))
        if trial.state is TrialState.PRUNED:  # only with a single objective
            # Its value is an estimate of the whole, as good for comparing as others; Optuna would rank pruned trials by
            # how far they came.
            trial.state, trial.values = TrialState.COMPLETE, [trial.value]
            trial.intermediate_values = {}
        if current is not None and trial.state is TrialState.COMPLETE:
            trial.values = list(current)
        found.append(trial)
    return found


class _Listed(InMemoryStorage):
    """An in-memory storage with trials before its own that are as they are given: Optuna would copy each of them."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        own = [copy.copy(trial) for trial in super().get_all_trials(study_id, deepcopy=False)]
        for place, trial in enumerate(own, start=len(self._given)):
            trial.number = place
        found = [trial for trial in (*self._given, *own) if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


class Present:
    """A study under the present values of its trials. All else is the study's, as samplers keep their state in it."""

    def __init__(self, study: Any, values: Mapping[str, Sequence[float]]) -> None:
        self._present_of, self._values = study, values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._present_of, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        # States are those of the copies, in which pruned trials are complete.
        trials = updated(self._present_of.get_trials(deepcopy), self._values)
        return [trial for trial in trials if states is None or trial.state in states]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)

    def stop(self) -> None:
        """A sampler that has tried everything can't end a search: what it draws again is a duplicate."""
