"""A whole search: opens the run folder, scores base and parents, has the study try merges, writes the leaderboard.

Composes everything; knows no details of any stage.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml
from filelock import FileLock, Timeout

from nex_merge.errors import InputError, RunError
from nex_merge.merging import method_specs
from nex_merge.nex.calibration import calibrate
from nex_merge.records import MergeRecipe, TrialResult
from nex_merge.runs import files
from nex_merge.runs.leaderboard import Row, objective_of
from nex_merge.runs.rescore import Pool, credits_of, write_scores
from nex_merge.study.proposal import Suggester, equal_weights, passthrough, propose
from nex_merge.study.optuna_study import TRIAL_FAULTS, failed, open_study, run_merges
from nex_merge.study.trial import Evaluator, Measured
from nex_merge.setup.config import read_yaml
from nex_merge.setup.resolve import Plan
from nex_merge.setup.search_space import load_space

# What may change between two starts of the same run: how long it goes on, and where it lies.
_FREE = (("study", "trials"), ("output",))


class Watcher(Protocol):
    """Told what a search is at (see progress.Watcher)."""

    def note(self, text: str) -> None: ...
    def begin(self, trial: str, name: str) -> None: ...
    def stage(self, stage: str, done: int) -> None: ...
    def end(self, result: TrialResult) -> None: ...


def run_search(plan: Plan, fresh: bool, watcher: Watcher) -> list[Row]:
    """Run, or go on with, a search; the leaderboard's rows.

    Raises InputError for what is wrong with the input, RunError where the folder is in use or every trial failed.
    """
    config, models = plan.config, plan.family.models
    space = load_space(config.search_space, method_specs(), models)
    objective = objective_of(config.study.model_dump())
    if not fresh:
        _compare(plan)
    # An earlier run is moved aside only once everything that can be refused has been looked at.
    evaluator = Evaluator(config, plan.family, plan.run, watcher.stage)
    check_filters(space.filters, [name for name, _ in evaluator.merger.model.named_parameters()])
    with opened_run(plan, fresh, watcher.note) as run:
        pool = Pool(run, config.nex)

        def seen(merges: int) -> dict[str, float] | None:
            return pool.scores(merges) if objective.name == "nex" else None

        study = open_study(run, config.study, objective.sign, seen)
        if config.study.baselines:
            _baselines(plan, run, evaluator, watcher)
        if files.read_scores(run):
            # The leaderboard may have been scored otherwise since; it must not mix with what is scored now.
            write_scores(run, config.nex, config.nex)
        texts = [r.text for r in files.read_results(run) if r.kind != "merge" and r.text is not None]

        def suggest(trial: Suggester, seed: int) -> MergeRecipe:
            return propose(space, plan.family.folders, evaluator.out_dtype, trial, seed)

        def evaluate(trial: str, name: str, recipe: MergeRecipe) -> TrialResult:
            return evaluator.finish(evaluator.measure(trial, name, recipe), pool.weights(int(trial)), texts)

        try:
            first = equal_weights(space, models)
            run_merges(run, study, config.study, objective, space, first, suggest, evaluate, watcher)
        finally:
            rows = write_scores(run, config.nex, config.nex) if files.read_results(run) else []
        if rows and not any(row["rank"] for row in rows):
            raise RunError(f"{run}: every trial failed; the first reason: {rows[0]['reason']}")
        return rows


def check_filters(filters: Sequence[str], tensors: Sequence[str]) -> None:
    """Refuse a filter that no tensor's name contains: mergekit would silently never use it."""
    for i, part in enumerate(filters):
        if not any(part in name for name in tensors):
            raise InputError(
                f"filters.{i}: found {part!r}, which is part of no tensor's name; for example self_attn, mlp"
            )


def _baselines(plan: Plan, run: Path, evaluator: Evaluator, watcher: Watcher) -> None:
    """Score base and parents where they aren't scored yet.

    Where everyone shares weights, theirs are known only once all of them are measured. Raises RunError where base and
    all parents fail although the weights are to come from them.
    """
    shared = plan.config.nex.calibration in ("parents", "pool")
    measured: dict[str, Measured] = {}
    for name, folder in plan.family.folders.items():
        if files.read_result(run, name) is not None:
            continue
        kind = "base" if name == "base" else "parent"
        watcher.begin(name, kind)
        recipe = passthrough(kind, name, folder, evaluator.out_dtype)
        with _failing(run, name, recipe, watcher):
            measured[name] = evaluator.measure(name, name, recipe)
            if not shared:
                watcher.end(evaluator.finish(measured[name], None))
    if not shared:
        return
    earlier = [r.trial for r in files.read_results(run) if r.kind != "merge" and r.state == "complete"]
    credits = {
        name: measured[name].credits if name in measured else credits_of(run, name, plan.config.nex)
        for name in sorted(plan.family.folders, key=lambda name: (name != "base", name))
        if name in measured or name in earlier
    }
    if not credits:
        raise RunError(
            f"nex.calibration: {plan.config.nex.calibration} has no model to take weights from, as base and all "
            "parents failed"
        )
    weights = calibrate(*credits.values())
    for name, item in measured.items():
        with _failing(run, name, item.recipe, watcher):
            watcher.end(evaluator.finish(item, weights))


@contextmanager
def _failing(run: Path, name: str, recipe: MergeRecipe, watcher: Watcher) -> Iterator[None]:
    """Turn an error of base or a parent into a failed trial with its reason."""
    try:
        yield
    except TRIAL_FAULTS as error:
        result = failed(name, name, recipe, error, 0.0)
        files.write_result(run, result)
        watcher.end(result)


@contextmanager
def opened_run(plan: Plan, fresh: bool, warn: Callable[[str], None]) -> Iterator[Path]:
    """The run folder, locked for us, holding this configuration.

    Raises InputError where it holds another configuration, RunError where another process works in it.
    """
    run = plan.run
    if fresh and run.exists():
        aside = next(path for i in range(1, 10_000) if not (path := run.with_name(f"{run.name}.{i}")).exists())
        with _locked(run):
            shutil.rmtree(run / files.ORDERS, ignore_errors=True)
            os.replace(run, aside)
        warn(f"kept the earlier run as {aside}")
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run):
        _hold(plan, run, warn)
        # Left by a process that was killed; a fresh process sorts for itself.
        shutil.rmtree(run / files.ORDERS, ignore_errors=True)
        try:
            yield run
        finally:
            shutil.rmtree(run / files.ORDERS, ignore_errors=True)


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    # The kernel frees this lock when its holder dies.
    lock = FileLock(run / files.LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{run}: another search is at work in this folder; wait for it, or choose another output"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _asked(plan: Plan) -> dict[str, Any]:
    return {**plan.config.model_dump(), "resolved": dict(plan.resolved)}


def _compare(plan: Plan) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Refuse, with InputError, a configuration that differs from the run folder's; library versions then and now."""
    path = plan.run / files.CONFIG
    if not path.exists():
        if (plan.run / files.TRIALS).exists():
            raise InputError(f"{plan.run}: has trials but no {files.CONFIG}; --fresh starts over and keeps it aside")
        return {}, {}
    saved = read_yaml(path)
    versions = saved.get("resolved", {}).pop("versions", {}), plan.resolved["versions"]
    changed = list(_differences(saved, {**_asked(plan), "resolved": {**plan.resolved, "versions": None}}))
    if changed:
        raise InputError(
            f"{plan.run} was begun with another configuration:\n  " + "\n  ".join(changed) +
            "\nGo back to it, choose another output, or start over with --fresh (the earlier run is kept aside)"
        )  # fmt: skip
    return versions


def _hold(plan: Plan, run: Path, warn: Callable[[str], None]) -> None:
    """Save the configuration, once it is compared with the one saved."""
    for line in _differences(*_compare(plan)):
        warn(f"this run was begun with other library versions: {line}; scores may differ in their last digits")
    # How long to go on is saved as last asked.
    files.write_atomically(run / files.CONFIG, yaml.safe_dump(_asked(plan), sort_keys=False))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys(), key=str):
        here = (*at, str(key))
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, here)
        elif was != now and here not in _FREE:
            yield f"{'.'.join(here)}: {was!r} then, {now!r} now"
