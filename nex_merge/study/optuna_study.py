"""Optuna's ask-and-tell loop, with resume. Uses Optuna and the run folder, not models.

A study is reproducible however often it is interrupted: the sampler is seeded by the study's seed and the trial's
number, not by earlier draws (see `samplers`), and a trial that a killed process left running is resumed under its
number, with the parameters it already has.

Run folder and study complete each other. A trial that the folder has lost is evaluated again with the study's
parameters; a study that has lost trials gets them back from the folder's results.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from nex_merge.errors import InputError, RunError
from nex_merge.measures.estimates import Objective
from nex_merge.measures.guard import COLLAPSE
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs import files
from nex_merge.runs.claims import EXPIRY, Claims, claimed, new_owner
from nex_merge.runs.database import Database
from nex_merge.runs.run import RunFolder
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.observers import Observer
from nex_merge.study.samplers import GivenSampler, MergeSampler, Seen, Start, stable_seed
from nex_merge.study.warm_start import EarlierTrial
from nex_merge.wording import first_line, listed

optuna.logging.set_verbosity(optuna.logging.WARNING)

_LISTED = 10  # trials in a message
Propose = Callable[[Any, int], MergeRecipe]
T = TypeVar("T")


class NoMore(Exception):
    """There are as many merges as were asked for."""


@dataclass(frozen=True)
class Proposal:
    """A merge to be evaluated, and told."""

    recipe: MergeRecipe
    trial: optuna.Trial | None  # None: the study has told it already


class MergeStudy:
    """A run's study in its storage, with the claim on it."""

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
            MergeSampler(config.sampler, config.seed, start, seen, self._recorded, config.parallel)
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
            claims = Claims(database.engine, name)
            claims.create()
            return storage, study, claims

        def understood(read: Callable[[], T]) -> T:
            try:
                return read()
            except (ValueError, TypeError, RuntimeError) as error:  # such as tables of another version of Optuna
                raise InputError(
                    f"study.storage: {database.label}: {database.hide(first_line(error))}. Or search with another "
                    "database and run folder (study.storage, --out)"
                ) from None

        self._storage, self._study, self._claims = understood(lambda: database.run(opened))
        trials = understood(self._trials)
        if (fault := self._fault(trials)) is not None:
            observer.on_note(
                f"{database.label}: its study {self._study.study_name} {fault}: it is written again, from the trials "
                f"of {run.path}"
            )
            self._step(lambda: optuna.delete_study(study_name=self._study.study_name, storage=self._storage))
            self._storage, self._study, self._claims = understood(lambda: database.run(opened))
            trials = understood(self._trials)
            run.keep_hashes_in(database)
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
                f"({listed(sorted(recorded - finished), _LISTED)}); their results are reported to it, and nothing is "
                "evaluated again"
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
                and (len(trial.values) != len(told) or not np.allclose(trial.values, told, 1e-9, 0))
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
                f"{self._run.path / files.TRIALS} lacks {listed(map(files.trial_id, sorted(self._lost)), _LISTED)}, "
                f"which the study {self._study.study_name} has in {self._database.label}: evaluated again with the "
                "study's parameters. To keep this run as it is, restore the folders from a copy, or search in another "
                "folder (--out)"
            )

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Hold the claim on the study for all that a search does. Raises InUse if another search drives it."""
        with claimed(self._claims, self._owner, self._database.run):
            if not self._database.is_own:  # whoever holds the folder's lock drives the study in its study.db
                self._run.still_driven = self.still_drives
            yield

    def still_drives(self) -> None:
        """Renew the claim, so that nobody takes over while a trial is kept or told.

        Raises RunError if another search has taken the study over, or the database stays unavailable.
        """
        if not self._step(lambda: self._claims.beat(self._owner)):
            raise RunError(
                f"{self._database.label}: another search took the study {self._study.study_name} over while this "
                f"process sent no heartbeat for {EXPIRY:.0f} s. The other goes on with it, and this one ends"
            )

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

    def proposal(self, number: int, propose: Propose) -> Proposal | None:
        """A merge that has to be told, or evaluated again, proposed now if it is new; None if it is there already.

        Raises NoMore beyond `study.trials`, RunError if another program adds trials, or the database stays unavailable.
        """
        trials = self._trials()
        if number >= max(len(trials), self._config.trials):
            raise NoMore
        if number < len(trials):
            trial = trials[number]
            if self._is_lost(trial):
                return Proposal(self._again(trial, propose), None)
            if trial.state.is_finished() or number >= self._config.trials:
                return None
        elif (asked := self._step(self._study.ask).number) != number:
            raise RunError(
                f"{self._database.label}: another program adds trials to the study {self._study.study_name!r}: "
                f"expected trial {number}, got {asked}. End it; the same command goes on"
            )

        def proposed() -> Proposal:
            study_id = self._storage.get_study_id_from_name(self._study.study_name)
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
            trial = optuna.Trial(self._study, trial_id)
            # Also if the result is on disk already: the study may still lack the parameters.
            return Proposal(propose(trial, self._seed(number)), trial)

        return self._database.run(proposed)

    def _again(self, trial: FrozenTrial, propose: Propose) -> MergeRecipe:
        """The recipe of a trial that the study has told; the same parameters and seed give the same merge."""
        folder = self._run.folder(files.trial_id(trial.number))
        try:
            return propose(FixedTrial(trial.params, trial.number), self._seed(trial.number))
        except ValueError:
            raise InputError(
                f"study.storage: {self._database.label}: trial {trial.number} of study {self._study.study_name!r} "
                f"lacks parameters of the search space, and {folder} is missing: the study belongs to another run, or "
                "another program added the trial. Restore the folder from a copy of the run, search in another folder "
                "(--out), or start over with --fresh (the folder is renamed)"
            ) from None

    def _seed(self, number: int) -> int:
        return stable_seed("merge", self._config.seed, number)

    def tell(self, proposal: Proposal, result: TrialResult) -> None:
        """Report a merge's result, unless the study has told it already."""
        trial = proposal.trial
        if trial is None:
            return
        self.still_drives()
        if not self._step(lambda: _tell(self._study, trial, result, self._objective)):
            self._observer.on_note(
                f"trial {trial.number} was finished by another program in {self._database.label}; the leaderboard has "
                "this search's result, the sampler the other's"
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
