"""A whole search: opens the run folder, scores base and parents, has the study try merges, writes the leaderboard.

Composes everything; knows no details of any stage.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from nex_merge import trials
from nex_merge.config import RunConfig, find_file, load_config, read_yaml
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.families import Family, family_defaults, open_family, read_family

# What may change between two starts of the same run: how long it goes on, and where it lies.
_FREE = (("study", "trials"), ("output",))
_LIBRARIES = ("nex-merge", "mergekit", "torch", "transformers", "optuna", "scikit-learn", "hmmlearn")


@dataclass(frozen=True)
class Plan:
    """A configuration with everything it names at hand."""

    config: RunConfig
    family: Family
    source: str
    resolved: Mapping[str, Any]  # the family and search space as read, the prompts' checksum, library versions

    @property
    def run(self) -> Path:
        return Path(self.config.output)


def make_plan(name: str, overrides: Mapping[str, Any]) -> Plan:
    """Load a configuration and what it names. Raises InputError for whatever is wrong with it."""
    config, source = load_config(name, overrides, family_defaults)
    if config.nex.calibration == "pool" and not config.study.baselines:
        raise InputError(f"{source}: nex.calibration: found 'pool', which takes its weights from base and parents; "
                         "study.baselines: true or calibration: self would do")  # fmt: skip
    family = open_family(config.family, config.models)
    prompts = find_file(config.prompts.file)
    if prompts is None:
        raise InputError(f"{source}: prompts.file: found no file {config.prompts.file!r}; a path that exists would do")
    space = config.search_space
    if isinstance(space, str):
        path = find_file(space, "search_spaces")
        space = read_yaml(path) if path is not None else {}
    resolved = {
        "family": read_family(config.family)[0].model_dump(exclude_none=True),
        "search_space": space,
        "prompts_sha256": hashlib.sha256(prompts.read_bytes()).hexdigest() if prompts.is_file() else None,
        "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
    }
    return Plan(config, family, source, resolved)


@contextmanager
def opened_run(plan: Plan, fresh: bool, warn: Any) -> Iterator[Path]:
    """The run folder, locked for us, holding this configuration.

    Raises InputError where it holds another configuration, RunError where another process works in it.
    """
    run = plan.run
    if fresh and run.exists():
        aside = next(path for i in range(1, 10_000) if not (path := run.with_name(f"{run.name}.{i}")).exists())
        os.replace(run, aside)
        warn(f"kept the earlier run as {aside}")
    run.mkdir(parents=True, exist_ok=True)
    # The kernel frees this lock when its holder dies.
    lock = FileLock(run / trials.LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{run}: another search is at work in this folder; wait for it, or choose another output"
        ) from None
    try:
        _hold(plan, run, warn)
        yield run
    finally:
        lock.release()


def _hold(plan: Plan, run: Path, warn: Any) -> None:
    """Save the configuration, or compare it with the one saved."""
    asked = {**plan.config.model_dump(), "resolved": dict(plan.resolved)}
    path = run / trials.CONFIG
    if not path.exists():
        if (run / trials.TRIALS).exists():
            raise InputError(f"{run}: has trials but no {trials.CONFIG}; --fresh starts over and keeps it aside")
        trials.write_atomically(path, yaml.safe_dump(asked, sort_keys=False))
        return
    saved = read_yaml(path)
    versions = saved.get("resolved", {}).pop("versions", {}), plan.resolved["versions"]
    changed = [line for line in _differences(saved, {**asked, "resolved": {**plan.resolved, "versions": None}})]
    if changed:
        raise InputError(
            f"{run} was begun with another configuration:\n  " + "\n  ".join(changed) +
            "\nGo back to it, choose another output, or start over with --fresh (the earlier run is kept aside)"
        )  # fmt: skip
    for line in _differences(*versions):
        warn(f"this run was begun with other library versions: {line}; scores may differ in their last digits")
    # How long to go on is saved as last asked.
    trials.write_atomically(path, yaml.safe_dump(asked, sort_keys=False))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys(), key=str):
        here = (*at, str(key))
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, here)
        elif was != now and here not in _FREE:
            yield f"{'.'.join(here)}: {was!r} then, {now!r} now"


def run_search(plan: Plan, fresh: bool, watcher: Any) -> list[dict[str, Any]]:
    """Run, or go on with, a search; the leaderboard's rows.

    `watcher` is told of stages and trials (see cli_progress.Watcher). Raises InputError, RunError.
    """
    # Heavy imports come after everything that can be refused without them.
    from nex_merge.evaluate import Evaluator
    from nex_merge.leaderboard import write_leaderboard
    from nex_merge.merging import method_specs
    from nex_merge.proposal import equal_weights, propose
    from nex_merge.search_space import load_space
    from nex_merge.study import run_merges

    config, models = plan.config, plan.family.models
    space = load_space(config.search_space, method_specs(), models)
    with opened_run(plan, fresh, watcher.note) as run:
        evaluator = Evaluator(config, plan.family, run, watcher.stage)
        check_filters(space.filters, evaluator)
        weights = _baselines(plan, run, evaluator, watcher) if config.study.baselines else None

        def suggest(trial: Any, seed: int) -> Any:
            return propose(space, plan.family.folders, evaluator.out_dtype, trial, seed)

        def evaluate(trial: str, name: str, recipe: Any) -> Any:
            return evaluator.finish(evaluator.measure(trial, name, recipe), weights)

        try:
            run_merges(run, config.study, space, equal_weights(space, models), suggest, evaluate, watcher)
        finally:
            rows = write_leaderboard(run)
        if not any(row["rank"] for row in rows) and rows:
            raise RunError(f"{run}: every trial failed; the first reason: {rows[0]['reason']}")
        return rows


def check_filters(filters: tuple[str, ...], evaluator: Any) -> None:
    """Refuse a filter that no tensor's name contains: mergekit would silently never use it."""
    names = [name for name, _ in evaluator.merger.model.named_parameters()]
    for i, part in enumerate(filters):
        if not any(part in name for name in names):
            raise InputError(
                f"filters.{i}: found {part!r}, which is part of no tensor's name; for example self_attn, mlp"
            )


def _baselines(plan: Plan, run: Path, evaluator: Any, watcher: Any) -> Any:
    """Score base and parents where they aren't scored yet; the pool's neuron weights, or None under `self`.

    Raises RunError where the pool would be empty.
    """
    from nex_merge.nex.calibration import calibrate

    pool = plan.config.nex.calibration == "pool"
    missing = [name for name in plan.family.folders if trials.read_result(run, name) is None]
    measured = {}
    for name, folder in plan.family.folders.items():
        if name in missing:
            watcher.begin(name, "base" if name == "base" else "parent")
            measured[name] = _measure_baseline(run, evaluator, name, folder, watcher)
            if not pool:
                _finish_baseline(run, evaluator, measured[name], None, watcher)
    if not pool:
        return None
    # The weights are fixed before the first merge; a run gone on with finds them from the caches again.
    analyses = [
        m.analyses if (m := measured.get(name)) else _cached_analyses(plan, run, name)
        for name in plan.family.folders
        if measured.get(name) is not None or (name not in missing and _is_complete(run, name))
    ]
    if not analyses:
        raise RunError("nex.calibration: pool has no model to take weights from, as base and all parents failed")
    weights = calibrate(*analyses)
    for item in measured.values():
        _finish_baseline(run, evaluator, item, weights, watcher)
    return weights


def _finish_baseline(run: Path, evaluator: Any, item: Any, weights: Any, watcher: Any) -> None:
    from nex_merge.study import failed

    if item is None:
        return
    try:
        watcher.end(evaluator.finish(item, weights))
    except TrialError as error:
        result = failed(item.trial, item.name, item.recipe, error, 0.0)
        trials.write_result(run, result)
        watcher.end(result)


def _measure_baseline(run: Path, evaluator: Any, name: str, folder: Path, watcher: Any) -> Any:
    from nex_merge.proposal import passthrough
    from nex_merge.study import TRIAL_FAULTS, failed

    kind = "base" if name == "base" else "parent"
    recipe = passthrough(kind, name, folder, evaluator.out_dtype)
    try:
        return evaluator.measure(name, name, recipe)
    except TRIAL_FAULTS as error:
        result = failed(name, name, recipe, error, 0.0)
        trials.write_result(run, result)
        watcher.end(result)
        return None


def _is_complete(run: Path, name: str) -> bool:
    result = trials.read_result(run, name)
    return result is not None and result.state == "complete"


def _cached_analyses(plan: Plan, run: Path, name: str) -> Any:
    from nex_merge.cache import read_cache
    from nex_merge.nex.calibration import analyse

    return analyse(
        read_cache(trials.trial_folder(run, name) / trials.CACHE), plan.config.nex.rho, plan.config.nex.min_run
    )
