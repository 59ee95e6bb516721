"""Optuna's ask-and-tell loop, with resume. Uses Optuna and the run folder, not models.

A study is reproducible however often it is interrupted: the sampler is seeded by the study's seed and the trial's
number, not by earlier draws (see `samplers`), and a trial that a killed process left running is resumed under its
number, with the parameters it already has.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from nex_merge.errors import InputError, TrialError
from nex_merge.measures.estimates import Objective
from nex_merge.records import MergeRecipe, SearchSpace, TrialResult
from nex_merge.runs import files
from nex_merge.runs.claims import SqlClaims, claimed, new_owner
from nex_merge.runs.run import Run
from nex_merge.setup.config import StudyConfig
from nex_merge.study.observers import Observer
from nex_merge.study.samplers import MergeSampler, Seen, Start, stable_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

Propose = Callable[[Any, int], MergeRecipe]
Evaluate = Callable[[str, str, MergeRecipe], TrialResult]


class MergeStudy:
    """A run's study in its storage, with the claims on its trials."""

    def __init__(self, run: Run, config: StudyConfig, sign: int, start: Start, seen: Seen) -> None:
        """Create the study unless it exists; `sign` +1 maximizes.

        Raises InputError if the storage can't be opened, or has another run's study of the same name.
        """
        # Not an f-string: '?', '#' and '%' in a folder's name mean something in a URL.
        url = config.storage or URL.create("sqlite", database=str(run.path / files.STUDY)).render_as_string()
        self._config, self._run = config, run
        try:
            with undisturbed():
                self._storage = RDBStorage(url)
                name = _study_name(run, self._storage, config.storage)
                self._study = optuna.create_study(
                    study_name=name,
                    storage=self._storage,
                    sampler=MergeSampler(config.sampler, config.seed, start, seen),
                    pruner=optuna.pruners.NopPruner(),
                    direction="maximize" if sign > 0 else "minimize",
                    load_if_exists=True,
                )
                self._claims = SqlClaims.at(url, name)
                trials = self._study.get_trials(deepcopy=False)
        except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.StorageInternalError) as error:
            raise InputError(
                f"study.storage: cannot open {config.storage or run.path / files.STUDY}: "
                f"{str(error).splitlines()[0]}. Use null, or a URL like sqlite:///study.db"
            ) from None
        self._owner = new_owner()
        for trial in trials:
            if trial.state.is_finished() and run.result(files.trial_id(trial.number)) is None:
                raise InputError(
                    f"study.storage: the study {name!r} has trial {trial.number}, and {run.path} does not: the study "
                    "belongs to another run, or the trial's folder was removed. Choose another output folder"
                )

    def run_merges(
        self,
        objective: Objective,
        space: SearchSpace,
        propose: Propose,
        evaluate: Evaluate,
        observer: Observer,
    ) -> None:
        """Evaluate merges until `study.trials` of them are finished.

        Raises RunError if another search is evaluating a trial of this study.
        """
        while True:
            with undisturbed():
                number = self._next_number()
            if number is None:
                return
            with claimed(self._claims, number, self._owner):
                self._run_merge(number, objective, space, propose, evaluate, observer)

    def _next_number(self) -> int | None:
        """The number of an unfinished trial, else of a new one; None once `study.trials` are finished."""
        trials = self._study.get_trials(deepcopy=False)
        if sum(trial.state.is_finished() for trial in trials) >= self._config.trials:
            return None
        unfinished = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
        return unfinished[0] if unfinished else self._study.ask().number

    def _run_merge(
        self,
        number: int,
        objective: Objective,
        space: SearchSpace,
        propose: Propose,
        evaluate: Evaluate,
        observer: Observer,
    ) -> None:
        with undisturbed():
            study_id = self._storage.get_study_id_from_name(self._study.study_name)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            trial = optuna.Trial(self._study, trial_id)
            # Also if the result is on disk already: the study may still lack the parameters.
            recipe = propose(trial, stable_seed("merge", self._config.seed, number))
        id = files.trial_id(number)
        result = self._run.result(id)
        if result is None:
            observer.on_trial_start(id, recipe.method)
            result = _finish(self._run, id, recipe, evaluate, space)
            observer.on_trial_end(result)
        with undisturbed():
            _tell(self._study, trial, result, objective)


def _study_name(run: Run, storage: RDBStorage, url: str | None) -> str:
    """The name of the run's study. study.db in the run folder has one study, whatever its name."""
    if url is None and len(studies := storage.get_all_studies()) == 1:
        return studies[0].study_name
    return run.study_name


@contextmanager
def undisturbed() -> Iterator[None]:
    """Defer Ctrl-C during database access, which would roll back with its own traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def _finish(run: Run, number: str, recipe: MergeRecipe, evaluate: Evaluate, space: SearchSpace) -> TrialResult:
    """Evaluate a trial, unless its recipe is a duplicate, and write the result to disk."""
    began = time.perf_counter()
    earlier = _same_recipe(run, number, recipe, space)
    try:
        if earlier is None:
            return evaluate(number, recipe.method, recipe)
    except TrialError as error:
        result = failed(number, recipe.method, recipe, error, time.perf_counter() - began)
    else:
        files.write_recipe(run.folder(number), recipe)
        reason = f"the same recipe as trial {earlier.trial}"
        result = replace(
            earlier,
            trial=number,
            state="duplicate",
            reason=reason,
            same_as=earlier.trial,
            parameters=recipe.parameters,
            seconds={},
            is_reference=False,
        )
    run.write(result)
    return result


def failed(trial: str, name: str, recipe: MergeRecipe, error: TrialError, seconds: float) -> TrialResult:
    """A failed trial with its reason."""
    return TrialResult(
        trial=trial,
        kind=recipe.kind,
        name=name,
        method=recipe.method,
        seed=recipe.seed,
        state="failed",
        reason=str(error),
        parameters=recipe.parameters,
        seconds={"total": seconds},
    )


def _same_recipe(run: Run, number: str, recipe: MergeRecipe, space: SearchSpace) -> TrialResult | None:
    """The earlier scored merge with the same recipe, if any; stochastic methods differ by their seeds."""
    if any(method.stochastic for method in space.methods if method.name == recipe.method):
        return None
    wanted = json.dumps(recipe.config, sort_keys=True)
    merges = [r for r in run.results() if r.kind == "merge" and r.state in files.SCORED]
    earlier = [r for r in merges if int(r.trial) < int(number)]
    same = (r for r in earlier if json.dumps(files.read_recipe(run.path, r.trial), sort_keys=True) == wanted)
    return next(same, None)


def _tell(study: optuna.Study, trial: optuna.Trial, result: TrialResult, objective: Objective) -> None:
    trial.set_user_attr("state", result.state)
    if result.reason is not None:
        trial.set_user_attr("reason", result.reason)
    if result.violation is not None and "collapse" not in trial.constraints:
        # Above 0 the trial is infeasible. Already set if the process was killed between this and `study.tell`.
        trial.set_constraint("collapse", result.violation)
    value = result.value(objective.name)
    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
