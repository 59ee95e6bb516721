"""Exclusive access to a run folder: its lock, comparing configurations, and moving an earlier run aside."""

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

# Keys that may differ when a run is resumed.
_FREE = (("study", "trials"), ("output",))


@contextmanager
def hold(resolved: ResolvedConfig, fresh: bool, note: Callable[[str], None]) -> Iterator[Run]:
    """The run folder, locked for this process, with this configuration saved in it.

    Raises InputError if it has another configuration, RunError if another process has locked it.
    """
    folder = resolved.run
    if fresh and folder.exists():
        _move_aside(folder, note)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _save(resolved, note)
        # Left by a killed process; every process sorts the weights itself.
        shutil.rmtree(folder / files.ORDERS, ignore_errors=True)
        try:
            yield Run(folder)
        finally:
            shutil.rmtree(folder / files.ORDERS, ignore_errors=True)


def compare(resolved: ResolvedConfig) -> list[str]:
    """Raise InputError if the configuration differs from the run folder's.

    Returns the differences in library versions, which are allowed but worth a note.
    """
    path = resolved.run / files.CONFIG
    if not path.exists():
        if (resolved.run / files.TRIALS).exists():
            raise InputError(
                f"{resolved.run}: has trials but no {files.CONFIG}. Use --fresh to start over (the folder is renamed)"
            )
        return []
    if not (resolved.run / files.TRIALS).exists() and not (resolved.run / files.STUDY).exists():
        return []  # a search that failed before its first trial holds nothing to protect
    run = Run(resolved.run)
    saved, current = run.resolved, dict(resolved.resolved)
    # Entries that an older version did not record can't be compared.
    comparable = {name: value for name, value in current.items() if name in saved and name != "versions"}
    previous = {**run.config.model_dump(), "resolved": {name: saved[name] for name in comparable}}
    changed = list(_differences(previous, {**resolved.config.model_dump(), "resolved": comparable}))
    if changed:
        raise InputError(
            f"{resolved.run} was started with another configuration:\n  " + "\n  ".join(changed) +
            "\nRestore it, choose another output folder, or start over with --fresh (the earlier run is renamed)"
        )  # fmt: skip
    return list(_differences(saved.get("versions", {}), current.get("versions", {})))


def _save(resolved: ResolvedConfig, note: Callable[[str], None]) -> None:
    """Write config.yaml, after comparing it with an existing one."""
    for line in compare(resolved):
        note(f"library version changed since this run was started: {line}; results may differ in the last digits")
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
    note(f"renamed the earlier run to {aside}")


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
