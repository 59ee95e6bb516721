"""A whole search: locks the run folder, scores base and parents, runs the study, writes the leaderboard.

Composes the stages, without details of any.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nex_merge import interrupts
from nex_merge.engines.engine import Engine
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import DISK_FULL, NexMergeError, RunError, TrialError
from nex_merge.measures.estimates import objective_of
from nex_merge.measures.guard import blind_spot
from nex_merge.measures.measure import Pool, shared_weights
from nex_merge.merging import rounded_members
from nex_merge.records import MergeRecipe, TrialResult, Variant
from nex_merge.runs import custody, files
from nex_merge.runs.asked import keep_asked
from nex_merge.runs.cuts import cut_lines
from nex_merge.runs.database import Database
from nex_merge.runs.leaderboard import LEADERBOARD_FILES, rank, write_leaderboard
from nex_merge.runs.recapture import mend_credits
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import SCHEMA
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RunConfig
from nex_merge.setup.families import Family
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.budget import reached
from nex_merge.study.final import forget_final, play_final
from nex_merge.study.member_files import MemberFiles
from nex_merge.study.observers import Observer, Observers
from nex_merge.study.optuna_study import MergeStudy, as_told, failed
from nex_merge.study.preflight import Checked, check
from nex_merge.study.progress import Beacon
from nex_merge.study.proposal import Suggester, dimensions_of, first_guesses, passthrough, propose
from nex_merge.study.recipe_list import equal_weights_of, pick
from nex_merge.study.samplers import Start, check_given
from nex_merge.study.trial import Answered, TrialRunner
from nex_merge.study.warm_start import keep_warm_start
from nex_merge.wording import counted


def run_search(
    resolved: ResolvedConfig,
    fresh: bool = False,
    observers: Sequence[Observer] = (),
    engine: Engine | None = None,
    sampler: Any = None,
) -> list[Row]:
    """Run or resume a search. Returns the leaderboard's rows.

    `fresh`: start over; an earlier run is renamed. `engine`: used instead of a new one for the family. `sampler`: an
    Optuna sampler used instead of `study.sampler` (see `api.search`).

    Raises InputError if the input is invalid, RunError if the folder is in use, something other than a recipe fails, or
    every trial failed.
    """
    config, family = resolved.config, resolved.family
    objective = objective_of(config.study)
    dispatch = Observers([*observers, Beacon(resolved.run)])
    if sampler is not None:
        check_given(sampler, config.study)
    # All checks of the input come before an earlier run is renamed.
    checked = check(resolved, fresh, dispatch.on_note, engine)
    engine, space = checked.engine, checked.space
    database = Database(resolved.storage, resolved.run, dispatch.on_note)
    if sampler is not None:
        dispatch.on_note(
            f"sampler: {type(sampler).__name__}, given from Python, draws by a state of its own: if this search is "
            "stopped and resumed, the trials finished stay, and later ones are others than without the stop"
        )
    for line in rounded_members(family.folders, family.dtype):
        dispatch.on_note(line)
    for line in checked.notes:
        dispatch.on_note(line)
    if checked.rehearsal is not None:
        for line in (*checked.rehearsal.notes, f"rehearsal: {checked.rehearsal.summary()}"):
            dispatch.on_note(line)
    rows: list[Row] = []
    with (
        custody.hold(resolved, fresh, dispatch.on_note) as run,
        _ended(dispatch, rows),
        _faults_logged(run, dispatch, database.hide),
    ):
        keep_asked(run.path, checked.asked)
        if isinstance(engine, FamilyEngine):
            engine.merger.keep_ranks(run.path / files.ORDERS)

        def suggest(trial: Suggester, seed: int) -> MergeRecipe:
            if checked.recipes:
                return pick(checked.recipes, trial, seed)
            return propose(space, family.references, checked.out_dtype, trial, seed)

        start, reference = _start(checked, family)
        if checked.warm_start is not None:
            keep_warm_start(run.path, checked.warm_start)
            dispatch.on_note(checked.warm_start.note)
            start = Start(start.guesses[:1], start.dimensions, as_told(checked.warm_start.trials, suggest))
        members = MemberFiles(resolved)
        runner = TrialRunner(
            engine, config, list(family.folders), run, checked.asked.ids, reference, dispatch.on_stage,
            members_unchanged=members.unchanged,
        )  # fmt: skip
        if checked.recipes and config.study.trials < len(checked.recipes):
            dispatch.on_note(
                f"study.trials: the first {config.study.trials} of {counted(len(checked.recipes), 'recipe')} "
                f"{'is' if config.study.trials == 1 else 'are'} tried"
            )
        if run.schema < SCHEMA and config.study.sampler == "tpe":
            dispatch.on_note(
                "this run was started by version 0.1.0, whose sampler drew its first trials at random and each "
                "parameter independently; the current sampler continues from its trials"
            )

        def seen(number: int) -> Mapping[str, Sequence[float]] | None:
            return runner.pool.values(objective, number)

        run.keep_hashes_in(database)
        _discard_what_is_damaged(run, dispatch)
        study = MergeStudy(run, config.study, objective, start, seen, database, dispatch, sampler)
        run.keep_missing_hashes()
        dispatch.on_start(str(run.path), study.planned + run.baselines, run.results())
        _say_what_is_done(study, run, config.study.trials, dispatch)
        if config.study.baselines and any(run.result(name) is None for name in family.references):
            _score_baselines(resolved, run, runner, checked.out_dtype, dispatch)
            _say_what_the_guard_misses(config, runner, dispatch)
            for line in cut_lines(rank(run.results(), objective), run.path):
                dispatch.on_note(line)
        if (run.path / files.SCORES).is_file() and run.results():
            # Undoes a rescoring, so that old and new trials are scored alike.
            rescore_run(run, config.nex)

        def evaluate(trial: str, name: str, recipe: MergeRecipe) -> TrialResult:
            return runner.finish(runner.answer(trial, name, recipe), runner.pool.weights(int(trial)))

        if not study.is_complete:
            forget_final(run)
        study.run_merges(space, suggest, evaluate)
        rows += rescore_run(run, config.nex) if run.results() else []
        if config.study.final is not None and rows:
            play_final(
                run, config, engine, list(family.folders), checked.asked.ids, reference, dispatch, members.unchanged
            )
            rows[:] = rescore_run(run, config.nex)
        _fail_without_a_ranking(rows, run)
    return rows


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


def _start(checked: Checked, family: Family) -> tuple[Start, Mapping[str, Any] | None]:
    """How the search begins, and the study parameters of equal weights, None if no recipe has them."""
    if checked.recipes:
        given = [recipe.parameters for recipe in checked.recipes.values()]
        return Start(given, {}), equal_weights_of(checked.recipes, family)
    guesses = first_guesses(checked.space, family.models)
    return Start(guesses, dimensions_of(checked.space, family.models)), guesses[0]


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


def _score_baselines(
    resolved: ResolvedConfig, run: RunFolder, runner: TrialRunner, out_dtype: str, dispatch: Observers
) -> None:
    """Score base and parents that aren't scored yet.

    Shared neuron weights can be computed only after all of them have responses. Raises RunError if all of them fail and
    the shared weights would come from them.
    """
    nex = resolved.config.nex
    shared = nex.calibration in ("parents", "pool") and resolved.config.activations.capture == "all"
    answered: dict[str, Answered] = {}
    for name, reference in resolved.family.references.items():
        if run.result(name) is not None:
            continue
        if reached(run, resolved.config.study) is not None:
            break
        kind = "base" if name == "base" else "parent"
        dispatch.on_trial_start(name, kind)
        recipe = passthrough(kind, name, reference, out_dtype)
        with _recipe_faults(run, name, recipe, dispatch):
            answered[name] = runner.answer(name, name, recipe)
            if not shared:
                dispatch.on_trial_end(runner.finish(answered[name], None))
    if not shared or not answered:
        return
    waiting = [_unscored(name, item) for name, item in answered.items()]
    variants = [v for v in [*runner.pool.earlier(files.trial_id(0)), *waiting] if v.kind != "merge"]
    if not variants:
        raise RunError(
            f"nex.calibration: {nex.calibration!r} takes its weights from base and parents, and all of them failed"
        )
    weights = shared_weights(sorted(variants, key=lambda v: (v.kind != "base", v.trial)), nex)
    for name, item in answered.items():
        with _recipe_faults(run, name, item.recipe, dispatch):
            dispatch.on_trial_end(runner.finish(item, weights))


def _unscored(name: str, item: Answered) -> Variant:
    return Variant(name, item.recipe.kind, True, item.observation)


def _say_what_the_guard_misses(config: RunConfig, runner: TrialRunner, dispatch: Observers) -> None:
    baselines = runner.pool.earlier(files.trial_id(0))
    note = blind_spot(Pool(baselines, config.nex, config.consensus, questions=runner.pool.questions))
    if note is not None:
        dispatch.on_note(note)


@contextmanager
def _recipe_faults(run: RunFolder, name: str, recipe: MergeRecipe, dispatch: Observers) -> Iterator[None]:
    """Turn a TrialError of a baseline into a failed trial with its reason."""
    try:
        yield
    except TrialError as error:
        interrupts.check()
        result = failed(name, name, recipe, error, 0.0)
        run.write(result)
        dispatch.on_trial_end(result)


@contextmanager
def _ended(dispatch: Observers, rows: list[Row]) -> Iterator[None]:
    try:
        yield
    finally:
        dispatch.on_end([row.as_mapping() for row in rows])


@contextmanager
def _faults_logged(run: RunFolder, dispatch: Observers, hide: Callable[[str], str]) -> Iterator[None]:
    """End the run if something other than a recipe fails; finished trials are kept and ranked.

    The traceback goes to error.log in the run folder, as `hide` leaves it: without passwords. The trial is not marked
    as failed, which would prevent a retry.
    """
    try:
        yield
    except NexMergeError:
        _rank_what_is_done(run)
        raise
    except Exception as error:  # whatever it is, finished trials are ranked and its traceback is kept
        if interrupts.arrived():  # which it came from
            _rank_what_is_done(run)
            raise
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            _rank_what_is_done(run)
            place = run.path if error.filename is None else Path(error.filename).parent
            raise RunError(f"{place}: the disk is full. Free some space; the same command goes on") from error
        log = run.path / files.ERRORS
        trace = "".join(traceback.format_exception(error))
        with suppress(OSError):  # which would hide the first one
            log.write_text(hide(trace), encoding="utf-8")
        _rank_what_is_done(run)
        first = hide((str(error).strip().splitlines() or [""])[0])
        at = f"{files.trial_name(dispatch.trial)}: " if dispatch.trial else ""
        raise RunError(
            f"{at}{type(error).__name__}: {first} (not the recipe's fault; traceback in {log}). The same command "
            "resumes the search"
        ) from (error if hide(trace) == trace else None)
    except BaseException:  # an interrupt: do nothing slow before exiting
        _rank_what_is_done(run)
        raise


def _rank_what_is_done(run: RunFolder) -> None:
    """Write the leaderboard of the finished trials; errors here must not hide the first one."""
    interrupts.stopped()
    with suppress(NexMergeError, OSError):
        write_leaderboard(run)
