"""Optuna's ask-and-tell loop, with resume. Uses Optuna and the run folder, not models.

A study is reproducible however often it is interrupted: the sampler is seeded by the study's seed and the trial's
number, not by earlier draws (see `samplers`), and a trial that a killed process left running is resumed under its
number, with the parameters it already has.

Run folder and study complete each other. A trial that the folder has lost is evaluated again with the study's
parameters; a study that has lost trials gets them back from the folder's results.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from nex_merge import interrupts
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.measures.estimates import Objective
from nex_merge.measures.guard import COLLAPSE
from nex_merge.records import MergeRecipe, SearchSpace, TrialResult
from nex_merge.runs import files
from nex_merge.runs.claims import Claims, claimed, new_owner
from nex_merge.runs.database import Database
from nex_merge.runs.run import RunFolder
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.budget import reached
from nex_merge.study.known import known
from nex_merge.study.observers import Observer
from nex_merge.study.samplers import GivenSampler, MergeSampler, Seen, Start, stable_seed
from nex_merge.study.warm_start import EarlierTrial

optuna.logging.set_verbosity(optuna.logging.WARNING)

Propose = Callable[[Any, int], MergeRecipe]
Evaluate = Callable[[str, str, MergeRecipe], TrialResult]
T = TypeVar("T")


class MergeStudy:
    """A run's study in its storage, with the claims on its trials."""

    def __init__(
        self,
        run: RunFolder,
        config: StudyConfig,
        objective: Objective,
        start: Start,
        seen: Seen,
        database: Database,
        observer: Observer,
        given: optuna.samplers.BaseSampler | None = None,
    ) -> None:
        """Create the study unless it exists. The observer is told what folder or study lack.

        `given`: takes over after the first guesses, instead of the sampler of the configuration.

        Raises InputError if the storage can't be used or the study is another run's, RunError if it stays unavailable.
        """
        self._config, self._run, self._database, self._observer = config, run, database, observer
        self._objective, self._owner = objective, new_owner()
        sampler = (
            MergeSampler(config.sampler, config.seed, start, seen, self._recorded)
            if given is None
            else GivenSampler(given, start, seen, self._recorded)
        )

        def opened() -> tuple[RDBStorage, optuna.Study, Claims]:
            url, options = database.arguments
            storage = RDBStorage(url, options)
            name = study_name(run, storage, database)
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=sampler,
                pruner=optuna.pruners.NopPruner(),
                directions=["maximize" if one.sign > 0 else "minimize" for one in objective.all],
                load_if_exists=True,
            )
            return storage, study, Claims(database.engine, name)

        try:
            self._storage, self._study, self._claims = database.run(opened)
            if (fault := self._fault(self._trials())) is not None:
                observer.on_note(
                    f"{database.label}: its study {self._study.study_name} {fault}: it is written again, from the "
                    f"trials of {run.path}"
                )
                self._step(lambda: optuna.delete_study(study_name=self._study.study_name, storage=self._storage))
                self._storage, self._study, self._claims = database.run(opened)
                run.keep_hashes_in(database)
        except (ValueError, TypeError, RuntimeError) as error:  # such as tables of another version of Optuna
            raise InputError(
                f"study.storage: {database.label}: {database.hide(str(error).splitlines()[0])}. Or search with another "
                "database and run folder (study.storage, --out)"
            ) from None
        trials = self._trials()
        self._lost = [trial.number for trial in trials if self._is_lost(trial)]
        self._check(trials)
        # Finished merges, in the study or the folder; there may be more than `study.trials`.
        finished = {files.trial_id(trial.number) for trial in trials if trial.state.is_finished()}
        recorded = {result.trial for result in run.results() if result.kind == "merge"}
        self.planned = max(config.trials, len(finished | recorded))
        self.is_complete = not self._lost and len(finished) >= config.trials
        if len(recorded - finished) > 1:  # one, if the search was killed before it reported it
            observer.on_note(
                f"{database.label}: its study {self._study.study_name} lacks trials that {run.path} has "
                f"({_listed(recorded - finished)}); their results are reported to it, and nothing is evaluated again"
            )

    def _fault(self, trials: list[FrozenTrial]) -> str | None:
        """In what a study is none that this search has written, though it is the run's; None if it is whole."""
        if [trial.number for trial in trials] != list(range(len(trials))):
            return "lacks a row, or has one twice"
        for trial in trials:
            id = files.trial_id(trial.number)
            versions = self._run.written.versions(id)
            result = self._run.result(id) if versions else None
            if result is None or not trial.state.is_finished():
                continue
            if not _same(trial.params, result.parameters):
                return f"has other parameters for {files.trial_name(id)} than its result"
            told = self._objective.values(result)
            # A copy of the run may have told what it found, on another machine with other last digits.
            if (
                versions == 1
                and trial.values is not None
                and told is not None
                and not np.allclose(trial.values, told, 1e-9, 0)
            ):
                return f"has another value for {files.trial_name(id)} than its result"
        return None

    def _check(self, trials: list[FrozenTrial]) -> None:
        """Say which trials the folder lacks. Raises InputError if a trial is of another run."""
        for trial in trials:
            result = self._run.result(files.trial_id(trial.number))
            if result is not None and trial.params and not _same(trial.params, result.parameters):
                raise InputError(
                    f"study.storage: {self._database.label}: trial {trial.number} of study {self._study.study_name!r} "
                    f"has other parameters than {self._run.folder(result.trial)}: the study belongs to another run. "
                    "Search in another folder (--out) or start over with --fresh (the folder is renamed)"
                )
        if self._lost:
            self._observer.on_note(
                f"{self._run.path / files.TRIALS} lacks {_listed(map(files.trial_id, self._lost))}, which the study "
                f"{self._study.study_name} has in {self._database.label}: evaluated again with the study's parameters. "
                "To keep this run as it is, restore the folders from a copy, or search in another folder (--out)"
            )

    def run_merges(self, space: SearchSpace, propose: Propose, evaluate: Evaluate) -> None:
        """Evaluate lost trials again, then merges until `study.trials` of them are finished or a budget is reached.

        Raises RunError if another search is evaluating a trial of this study, or the database stays unavailable.
        """
        for number in self._lost:
            if self._is_spent():
                return
            self._evaluate_again(number, space, propose, evaluate)
        while not self._is_spent():
            number = self._step(self._next_number)
            if number is None:
                return
            with claimed(self._claims, number, self._owner, self._database.run):
                self._run_merge(number, space, propose, evaluate)

    def _is_spent(self) -> bool:
        """Whether a budget is reached, which is said."""
        message = reached(self._run, self._config)
        if message is not None:
            self._observer.on_note(message)
        return message is not None

    def _trials(self) -> list[FrozenTrial]:
        def read() -> list[FrozenTrial]:
            return self._study.get_trials(deepcopy=False)

        return self._step(read)

    def _step(self, step: Callable[[], T]) -> T:
        try:
            return self._database.run(step)
        except KeyError:  # Optuna's error for a missing study or trial
            raise RunError(
                f"{self._database.label}: another program deleted the study {self._study.study_name!r} or trials of "
                "it. The same command writes them again, from the trials of the run"
            ) from None

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the study has a finished trial that the folder lacks.

        A failed trial without parameters was never begun: another program marked it as failed.
        """
        is_begun = trial.state is not TrialState.FAIL or bool(trial.params)
        return trial.state.is_finished() and is_begun and self._run.result(files.trial_id(trial.number)) is None

    def _recorded(self, number: int) -> Mapping[str, Any] | None:
        """The parameters of a trial that the folder has a result of: a study that lost it gets the same."""
        result = self._run.result(files.trial_id(number))
        return None if result is None else result.parameters

    def _next_number(self) -> int | None:
        """The number of an unfinished trial, else of a new one; None once `study.trials` are finished."""
        trials = self._study.get_trials(deepcopy=False)
        if sum(trial.state.is_finished() for trial in trials) >= self._config.trials:
            return None
        unfinished = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
        return unfinished[0] if unfinished else self._study.ask().number

    def _evaluate_again(self, number: int, space: SearchSpace, propose: Propose, evaluate: Evaluate) -> None:
        """Evaluate a trial that the study has told already; the same parameters and seed give the same merge."""
        trial = next(trial for trial in self._trials() if trial.number == number)
        try:
            recipe = propose(FixedTrial(trial.params, number), self._seed(number))
        except ValueError:
            raise InputError(
                f"study.storage: {self._database.label}: trial {number} of study {self._study.study_name!r} lacks "
                f"parameters of the search space, and {self._run.folder(files.trial_id(number))} is missing: the study "
                "belongs to another run, or another program added the trial. Restore the folder from a copy of the "
                "run, search in another folder (--out), or start over with --fresh (the folder is renamed)"
            ) from None
        self._evaluate(files.trial_id(number), recipe, space, evaluate)

    def _seed(self, number: int) -> int:
        return stable_seed("merge", self._config.seed, number)

    def _evaluate(self, id: str, recipe: MergeRecipe, space: SearchSpace, evaluate: Evaluate) -> TrialResult:
        self._observer.on_trial_start(id, recipe.method)
        result = _finish(self._run, id, recipe, evaluate, space)
        self._observer.on_trial_end(result)
        return result

    def _run_merge(self, number: int, space: SearchSpace, propose: Propose, evaluate: Evaluate) -> None:
        def proposed() -> tuple[optuna.Trial, MergeRecipe]:
            study_id = self._storage.get_study_id_from_name(self._study.study_name)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            trial = optuna.Trial(self._study, trial_id)
            # Also if the result is on disk already: the study may still lack the parameters.
            return trial, propose(trial, self._seed(number))

        trial, recipe = self._database.run(proposed)
        id = files.trial_id(number)
        result = self._run.result(id)
        if result is None:
            result = self._evaluate(id, recipe, space, evaluate)
        outcome = result
        if not self._step(lambda: _tell(self._study, trial, outcome, self._objective)):
            self._observer.on_note(
                f"trial {number} was finished by another program in {self._database.label}; the leaderboard has this "
                "search's result, the sampler the other's"
            )


def as_told(earlier: Iterable[EarlierTrial], propose: Propose) -> list[FrozenTrial]:
    """Trials of another run as a study has them. Raises InputError if the space has not their parameters."""
    told = []
    for item in earlier:
        fixed = FixedTrial(dict(item.parameters))
        try:
            propose(fixed, 0)
            told.append(
                optuna.trial.create_trial(
                    params=dict(item.parameters),
                    distributions=fixed.distributions,
                    values=list(item.values),
                    constraints=dict(item.violations),
                )
            )
        except ValueError as error:
            raise InputError(f"study.warm_start: a trial is not of the search space: {error}") from None
    return told


def study_name(run: RunFolder, storage: RDBStorage, database: Database) -> str:
    """The name of the run's study. study.db in the run folder has one study, whatever its name."""
    if database.is_own and len(studies := storage.get_all_studies()) == 1:
        return studies[0].study_name
    return run.study_name


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether parameters are equal, up to what a database rounds."""

    def equal(a: Any, b: Any) -> bool:
        return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def _listed(trials: Iterable[str]) -> str:
    """Trials as messages list them; of many, the first ten."""
    names = sorted(trials)
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _finish(run: RunFolder, number: str, recipe: MergeRecipe, evaluate: Evaluate, space: SearchSpace) -> TrialResult:
    """Evaluate a trial, unless its recipe is a duplicate, and write the result to disk."""
    began = time.perf_counter()
    earlier = _same_recipe(run, number, recipe, space)
    try:
        if earlier is None:
            return evaluate(number, recipe.method, recipe)
    except TrialError as error:
        interrupts.check()
        result = failed(number, recipe.method, recipe, error, time.perf_counter() - began)
    else:
        files.write_recipe(run.folder(number), recipe)
        reason = f"the same recipe as {files.trial_name(earlier.trial)}"
        result = replace(
            earlier,
            trial=number,
            state="duplicate",
            reason=reason,
            same_as=earlier.trial,
            parameters=recipe.parameters,
            seconds={},
            tokens=0,
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


def _same_recipe(run: RunFolder, number: str, recipe: MergeRecipe, space: SearchSpace) -> TrialResult | None:
    """The earlier scored merge with the same recipe, if any; stochastic methods differ by their seeds."""
    if any(method.stochastic for method in space.methods if method.name == recipe.method):
        return None
    wanted = json.dumps(recipe.config, sort_keys=True)
    earlier = [r for r in known(number, run.results()) if r.kind == "merge" and r.state in files.SCORED]
    same = (r for r in earlier if json.dumps(run.recipe_config(r.trial), sort_keys=True) == wanted)
    return next(same, None)


def _tell(study: optuna.Study, trial: optuna.Trial, result: TrialResult, objective: Objective) -> bool:
    """Report a result; False if the trial is finished already, with another outcome.

    Safe to repeat: an attempt that seemed to fail may have been committed.
    """
    found = study.get_trials(deepcopy=False)[trial.number]
    wanted = objective.values(result)
    if found.state.is_finished():
        return found.values == wanted
    trial.set_user_attr("state", result.state)
    if result.reason is not None:
        trial.set_user_attr("reason", result.reason)
    known = result.violations or ({} if result.violation is None else {COLLAPSE: result.violation})
    for name, violation in known.items():
        if name not in trial.constraints:  # already set if the process was killed between this and `study.tell`
            trial.set_constraint(name, violation)  # above 0 the trial is infeasible
    if wanted is None:
        study.tell(trial, state=TrialState.FAIL)
    elif result.state == "pruned":
        trial.report(wanted[0], step=round(100 * result.answered))  # percent of the prompts
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, wanted)
    return True
