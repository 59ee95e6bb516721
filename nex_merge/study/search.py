"""A whole search: holds the run folder, scores base and parents, runs the study, writes the leaderboard.

Composes the stages, without details of any.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from nex_merge.engines.contracts import Engine
from nex_merge.errors import InputError, InUse, RunError
from nex_merge.merging import rounded_members
from nex_merge.records import MergeRecipe
from nex_merge.runs import custody, files
from nex_merge.runs.asked import keep_asked
from nex_merge.runs.cuts import cut_lines
from nex_merge.runs.leaderboard import LEADERBOARD_FILES, rank
from nex_merge.runs.recapture import mend_credits
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import SCHEMA
from nex_merge.runs.room import make_room
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.baselines import Baselines, say_what_the_guard_misses
from nex_merge.study.crew import Crew
from nex_merge.study.faults import faults_logged
from nex_merge.study.final import forget_final, play_final
from nex_merge.study.member_files import MemberFiles
from nex_merge.study.merges import Merges
from nex_merge.study.observers import Observer, Observers
from nex_merge.study.optuna_study import MergeStudy, as_told
from nex_merge.study.preflight import check, rehearsed
from nex_merge.study.progress import Beacon
from nex_merge.study.proposal import Suggester, dimensions_of, first_guesses, propose
from nex_merge.study.recipe_list import equal_weights_of, pick
from nex_merge.study.rehearsal_cache import Rehearsal
from nex_merge.study.samplers import Start, check_given
from nex_merge.study.staff import executor_for, set_up
from nex_merge.study.tracking.observer import Tracking
from nex_merge.study.trial import TrialRunner
from nex_merge.study.warm_start import keep_warm_start
from nex_merge.study.work_log import WorkLog
from nex_merge.wording import counted
from nex_merge.workers.executors import Executor, Here


def run_search(
    resolved: ResolvedConfig,
    fresh: bool = False,
    observers: Sequence[Observer] = (),
    engine: Engine | Callable[[], Engine] | None = None,
    sampler: Any = None,
    standby: bool = False,
) -> list[Row]:
    """Run or resume a search. Returns the leaderboard's rows.

    `fresh`: start over; an earlier run is renamed. `engine`: used instead of a new one for the family, or what
    makes one, which every worker calls. `sampler`: an Optuna sampler used instead of `study.sampler` (see
    `api.search`). `standby`: while another search is at work on the run, wait, and then take over.

    Raises InputError if the input is invalid, RunError if something other than a recipe fails, or every trial failed,
    InUse if another search is at work on the run (unless `standby`).
    """
    if standby and fresh:
        raise InputError("--standby: goes on with a run that another search has begun; leave --fresh out")
    while True:
        if standby:
            custody.stand_by(resolved, Observers(observers).on_note)
        try:
            return Search(resolved, fresh, observers, engine, sampler).run()  # which reads what the other has left
        except InUse:  # another standby was quicker
            if not standby:
                raise
        time.sleep(custody.STANDBY)


class Search:
    """One search. Its input is checked when it is made; `run` takes these steps:

    0. `_workers`: workers start, while the search is rehearsed.
    1. `_tell`: what the user might not expect of the input is said.
    2. `_prepare`: the run folder, held from here on, has what it needs before a trial.
    3. `_open_study`: the Optuna study, and what it and the folder lack of each other; from here on it drives it.
    4. `_baselines`: base and parents answer and are scored.
    5. `_merges`: recipes are proposed, tried and told until there are as many as were asked for.
    6. `play_final`: the best answer prompts that the search has not seen.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        fresh: bool = False,
        observers: Sequence[Observer] = (),
        engine: Engine | Callable[[], Engine] | None = None,
        sampler: Any = None,
    ) -> None:
        """Raises InputError if the input is invalid; nothing is changed before all of it is checked."""
        self._resolved, self._config, self._family = resolved, resolved.config, resolved.family
        self._fresh, self._sampler = fresh, sampler
        told = (Beacon(resolved.run), WorkLog(resolved.run), Tracking(resolved))
        self._dispatch = Observers([*observers, *told])
        if sampler is not None:
            check_given(sampler, resolved.config.study)
        self._checked = check(resolved, fresh, self._dispatch.on_note, engine)
        self._make = engine if callable(engine) else None

    def run(self) -> list[Row]:
        """The leaderboard's rows. Raises RunError as `run_search` does."""
        rows: list[Row] = []
        with (
            self._workers() as executor,
            custody.hold(self._resolved, self._fresh, self._dispatch.on_note, self._checked.database) as run,
            self._ended(rows),
            faults_logged(run, self._dispatch, self._checked.database.hide),
        ):
            runner, start = self._prepare(run, executor)
            study = self._open_study(run, runner, start)
            crew = Crew(executor, self._dispatch)
            with study.driving():
                self._baselines(run, runner, crew)
                self._merges(run, runner, crew, study)
                make_room(run)  # also what an interrupted search had left to do
                rows += rescore_run(run, self._config.nex) if run.results() else []
                if self._config.study.final is not None and rows:
                    play_final(run, runner, crew, self._checked.kept_for_the_final, self._dispatch)
                    rows[:] = rescore_run(run, self._config.nex)
            _fail_without_a_ranking(rows, run)
        return rows

    @contextmanager
    def _workers(self) -> Iterator[Executor]:
        """Who does the trials. Other processes start while the search is rehearsed in this one."""
        with closing(executor_for(self._config, self._checked, self._dispatch.on_note)) as executor:
            self._tell(rehearsed(self._resolved, self._checked, self._dispatch.on_note))
            if not isinstance(executor, Here):
                # They have models of their own, and two on one device may be one too many.
                self._checked = replace(self._checked, engine=None)
            yield executor

    def _tell(self, rehearsal: Rehearsal | None) -> None:
        note, checked = self._dispatch.on_note, self._checked
        if self._sampler is not None:
            note(
                f"sampler: {type(self._sampler).__name__}, given from Python, draws by a state of its own: if this "
                "search is stopped and resumed, the trials finished stay, and later ones are others than without the "
                "stop"
            )
        for line in (*rounded_members(self._family.folders, self._family.dtype), *checked.notes):
            note(line)
        if rehearsal is not None:
            for line in (*rehearsal.notes, f"rehearsal: {rehearsal.summary()}"):
                note(line)

    def _prepare(self, run: RunFolder, executor: Executor) -> tuple[TrialRunner, Start]:
        """What runs trials, and how the search begins."""
        checked, study, note = self._checked, self._config.study, self._dispatch.on_note
        keep_asked(run.path, checked.asked)
        set_up(executor, self._resolved, checked, run.path / files.ORDERS, self._make)
        start, reference = self._start()
        if checked.warm_start is not None:
            keep_warm_start(run.path, checked.warm_start)
            note(checked.warm_start.note)
            own = [guess for i, guess in enumerate(start.guesses) if i == 0 or guess in study.guesses]
            start = Start(own, start.dimensions, as_told(checked.warm_start.trials, self._suggest))
        terms = replace(checked.terms, reference=reference)
        unchanged = MemberFiles(self._resolved).unchanged
        runner = TrialRunner(terms, run, unchanged)
        if checked.recipes and study.trials < len(checked.recipes):
            note(
                f"study.trials: the first {study.trials} of {counted(len(checked.recipes), 'recipe')} "
                f"{'is' if study.trials == 1 else 'are'} tried"
            )
        if run.schema < SCHEMA and study.sampler == "tpe":
            note(
                "this run was started by version 0.1.0, whose sampler drew its first trials at random and each "
                "parameter independently; the current sampler continues from its trials"
            )
        return runner, start

    def _start(self) -> tuple[Start, Mapping[str, Any] | None]:
        """How the search begins, and the study parameters of equal weights, None if no recipe has them."""
        checked, models = self._checked, self._family.models
        if checked.recipes:
            given = [recipe.parameters for recipe in checked.recipes.values()]
            return Start(given, {}), equal_weights_of(checked.recipes, self._family)
        guesses = first_guesses(checked.space, models, self._config.study.guesses)
        return Start(guesses, dimensions_of(checked.space, models)), guesses[0]

    def _suggest(self, trial: Suggester, seed: int) -> MergeRecipe:
        checked = self._checked
        if checked.recipes:
            return pick(checked.recipes, trial, seed)
        return propose(checked.space, self._family.references, checked.out_dtype, trial, seed)

    def _open_study(self, run: RunFolder, runner: TrialRunner, start: Start) -> MergeStudy:
        objective, database = self._checked.terms.objective, self._checked.database

        def seen(number: int) -> Mapping[str, Sequence[float]] | None:
            return runner.pool.values(objective, number)

        run.keep_hashes_in(database)
        _discard_what_is_damaged(run, self._dispatch)
        study = MergeStudy(run, self._config.study, objective, start, seen, database, self._dispatch, self._sampler)
        run.keep_missing_hashes()
        self._dispatch.on_start(str(run.path), study.planned + run.baselines, run.results())
        _say_what_is_done(study, run, self._config.study.trials, self._dispatch)
        return study

    def _baselines(self, run: RunFolder, runner: TrialRunner, crew: Crew) -> None:
        family, dispatch = self._family, self._dispatch
        if self._config.study.baselines and any(run.result(name) is None for name in family.references):
            Baselines(family, run, runner, self._checked.out_dtype, dispatch).score(crew)
            say_what_the_guard_misses(runner, dispatch)
            for line in cut_lines(rank(run.results(), self._checked.terms.objective), run.path):
                dispatch.on_note(line)

    def _merges(self, run: RunFolder, runner: TrialRunner, crew: Crew, study: MergeStudy) -> None:
        if (run.path / files.SCORES).is_file() and run.results():
            # Undoes a rescoring, so that old and new trials are scored alike.
            rescore_run(run, self._config.nex)
        if not study.is_complete:
            forget_final(run)
        Merges(run, study, runner, self._checked.space, self._suggest, self._dispatch, make_room).go_on(crew)

    @contextmanager
    def _ended(self, rows: list[Row]) -> Iterator[None]:
        try:
            yield
        finally:
            self._dispatch.on_end([row.as_mapping() for row in rows])


def _discard_what_is_damaged(run: RunFolder, dispatch: Observers) -> None:
    """Make trials unfinished whose files can't be used, so that they are evaluated again, also those of a final."""
    for stage in filter(None, (run, run.final)):
        damaged = stage.damaged()
        for trial, why in damaged.items():
            at = " of the final" if stage is not run else ""
            dispatch.on_note(f"{why.removesuffix(f'. {files.AGAIN}')}. Evaluated again: {files.trial_name(trial)}{at}")
            stage.discard(trial)
        if damaged and stage is not run:
            forget_final(run)
        mend_credits(stage, dispatch.on_note)


def _fail_without_a_ranking(rows: Sequence[Row], run: RunFolder) -> None:
    """Raise RunError if all trials, or all merges, failed."""
    if rows and not any(row.rank for row in rows):
        raise RunError(f"{run.path}: every trial failed; the first reason: {rows[0].reason}")
    merges = [row for row in rows if row.kind == "merge"]
    if merges and all(row.state == "failed" for row in merges):
        reasons = sorted({str(row.reason) for row in merges})
        raise RunError(
            f"{run.path}: {'the only merge' if len(merges) == 1 else f'all {len(merges)} merges'} failed, so "
            f"there is nothing to rank or export: {reasons[0]}"
            + (f" (and {counted(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else "")
        )


def _say_what_is_done(study: MergeStudy, run: RunFolder, trials: int, dispatch: Observers) -> None:
    results = run.results()
    merges = sum(result.kind == "merge" for result in results)
    if merges > trials:
        dispatch.on_note(
            f"study.trials: {run.path} has {counted(merges, 'merge')} already, more than {trials}; all are kept"
        )
    more = f"For more merges, use --trials with more than {merges}"
    if (recipes := run.resolved.get("recipes")) is not None and merges >= len(recipes):
        more = "For other recipes, search in another folder (--out)"
    if study.is_complete and len(results) >= run.baselines + trials:
        if run.config.study.final is not None and run.final is None:
            dispatch.on_note(
                f"{run.path}: its {counted(len(results), 'trial')} {'is' if len(results) == 1 else 'are'} finished; "
                f"the final is not"
            )
            return
        dispatch.on_note(
            f"{run.path} is complete: its {counted(len(results), 'trial')} {'is' if len(results) == 1 else 'are'} "
            f"finished, and nothing is left to evaluate. The "
            f"leaderboard is {run.path / LEADERBOARD_FILES[0]}. {more}; to start over, use --fresh"
        )
