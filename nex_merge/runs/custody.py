"""Who may write to a run folder: its lock, the comparison of configurations, and moving an earlier run aside."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from nex_merge.errors import InputError, RunError
from nex_merge.runs import files
from nex_merge.runs.results import SCHEMA
from nex_merge.runs.run import Run
from nex_merge.setup.resolve import ResolvedConfig

# What may change between two starts of the same run: how long it goes on, and where it lies.
_FREE = (("study", "trials"), ("output",))


@contextmanager
def hold(resolved: ResolvedConfig, fresh: bool, note: Callable[[str], None]) -> Iterator[Run]:
    """The run folder, locked for this process, holding this configuration.

    Raises InputError where it holds another configuration, RunError where another process works in it.
    """
    folder = resolved.run
    if fresh and folder.exists():
        _move_aside(folder, note)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _save(resolved, note)
        # Left by a process that was killed; a fresh process sorts for itself.
        shutil.rmtree(folder / files.ORDERS, ignore_errors=True)
        try:
            yield Run(folder)
        finally:
            shutil.rmtree(folder / files.ORDERS, ignore_errors=True)


def compare(resolved: ResolvedConfig) -> list[str]:
    """Refuse, with InputError, a configuration that differs from the run folder's.

    Returns what may differ all the same and should be mentioned: library versions.
    """
    path = resolved.run / files.CONFIG
    if not path.exists():
        if (resolved.run / files.TRIALS).exists():
            raise InputError(
                f"{resolved.run}: has trials but no {files.CONFIG}. Use --fresh to start over; the folder is kept aside"
            )
        return []
    run = Run(resolved.run)
    then, now = run.resolved, dict(resolved.resolved)
    # What an older version did not record can't be compared.
    known = {name: value for name, value in now.items() if name in then and name != "versions"}
    before = {**run.config.model_dump(), "resolved": {name: then[name] for name in known}}
    changed = list(_differences(before, {**resolved.config.model_dump(), "resolved": known}))
    if changed:
        raise InputError(
            f"{resolved.run} was begun with another configuration:\n  " + "\n  ".join(changed) +
            "\nRestore it, choose another output folder, or start over with --fresh (the earlier run is kept aside)"
        )  # fmt: skip
    return list(_differences(then.get("versions", {}), now.get("versions", {})))


def _save(resolved: ResolvedConfig, note: Callable[[str], None]) -> None:
    """Write config.yaml, once it is compared with the one that is there."""
    for line in compare(resolved):
        note(f"library versions differ from those this run was begun with: {line}; last digits may differ")
    schema, name = SCHEMA, f"{resolved.run.resolve().name}-{uuid.uuid4().hex[:12]}"
    if (resolved.run / files.CONFIG).exists():
        run = Run(resolved.run)
        schema, name = run.schema, run.study_name
    head = {"schema": schema, "study_name": name}
    content = {**head, **resolved.config.model_dump(), "resolved": dict(resolved.resolved)}
    files.write_atomically(resolved.run / files.CONFIG, yaml.safe_dump(content, sort_keys=False))


def _move_aside(folder: Path, note: Callable[[str], None]) -> None:
    aside = next(path for i in range(1, 10_000) if not (path := folder.with_name(f"{folder.name}.{i}")).exists())
    with _locked(folder):
        shutil.rmtree(folder / files.ORDERS, ignore_errors=True)
        os.replace(folder, aside)
    note(f"kept the earlier run as {aside}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # The kernel frees this lock when its holder dies.
    lock = FileLock(folder / files.LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(
            f"{folder}: another search is running in this folder. Wait for it, or choose another output folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys(), key=str):
        here = (*at, str(key))
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, here)
        elif was != now and here not in _FREE:
            yield f"{'.'.join(here)}: was {was!r}, is {now!r}"
