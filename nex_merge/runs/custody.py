"""Exclusive access to a run folder: its lock, comparing configurations, and moving an earlier run aside."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from nex_merge.errors import InputError, RunError
from nex_merge.runs import files
from nex_merge.runs.database import Database, open_in
from nex_merge.runs.results import SCHEMA
from nex_merge.runs.run import Run
from nex_merge.setup.resolve import ResolvedConfig

# Keys that may differ when a run is resumed.
_FREE = (("study", "trials"), ("study", "timeout"), ("study", "max_tokens"), ("output",))
# Mappings whose order says something: the first objective leads, and the study's values are in this order.
_ORDERED = (("study", "objectives"),)
# What a search that ended before its first trial leaves behind, beside hidden files.
_LEFTOVERS = (files.CONFIG, files.LOCK, files.ORDERS, files.LIVE, files.ERRORS, files.WARM_START, files.PROMPTS)


@contextmanager
def hold(resolved: ResolvedConfig, fresh: bool, note: Callable[[str], None]) -> Iterator[Run]:
    """The run folder, locked for this process, with this configuration saved in it.

    `fresh` renames an earlier run; it gets its name back if the new one ends before its first trial. Raises what
    `check` raises.
    """
    check(resolved, fresh)
    folder = resolved.run
    aside = _move_aside(folder) if fresh and _has_content(folder) else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _save(resolved, note)
            if aside is not None:
                note(f"renamed the earlier run to {aside}")
            # Left by a killed process; every process sorts the weights itself.
            _remove_orders(folder)
            try:
                yield Run(folder)
            finally:
                _remove_orders(folder)
    except BaseException:
        if aside is not None and not (folder / files.TRIALS).exists():
            back = _put_back(aside, folder)
            note(f"no trial was begun: the earlier run is {back} {'again' if back == folder else 'now'}")
        raise


def check(resolved: ResolvedConfig, fresh: bool = False) -> list[str]:
    """Check that a search can use its run folder, without changing anything.

    Returns the differences in library versions, which are allowed but worth a note. Raises InputError if the folder
    or the study's database can't be used, or the folder holds something other than a run, or a run of another
    configuration (unless `fresh`); RunError if another process has locked it.
    """
    folder, storage = resolved.run, resolved.config.study.storage
    if storage is not None or not fresh:  # otherwise study.db is a new file
        Database(storage, folder).check()
    if not folder.is_dir():
        return []
    if not _is_run(folder):
        others = sorted(path.name for path in folder.iterdir() if path.name not in _LEFTOVERS[1:])
        raise InputError(
            f"output: {folder} is not empty and not a run folder: it has {', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}. Choose another folder (--out)"
        )
    if (folder / files.LOCK).exists():
        with locked(folder):
            pass
    return [] if fresh else compare(resolved)


def compare(resolved: ResolvedConfig) -> list[str]:
    """Raise InputError if the configuration differs from the run folder's.

    Returns the differences in library versions, which are allowed but worth a note.
    """
    folder, path = resolved.run, resolved.run / files.CONFIG
    has_trials = (folder / files.TRIALS).exists() or (folder / files.STUDY).exists()
    if not path.exists():
        if has_trials:
            raise InputError(
                f"{folder}: has trials but no {files.CONFIG}, which says how they were made. Restore {path} from a "
                "copy of the run, search in another folder (--out), or start over with --fresh (the folder is renamed)"
            )
        return []
    if not has_trials:
        return []  # a search that failed before its first trial holds nothing to protect
    run = Run(folder)
    saved, current = run.resolved, dict(resolved.resolved)
    # Entries that an older version did not record can't be compared.
    comparable = {name: value for name, value in current.items() if name in saved and name != "versions"}
    previous = {**run.config.model_dump(), "resolved": {name: saved[name] for name in comparable}}
    changed = differences(previous, {**resolved.config.model_dump(), "resolved": comparable})
    lines = list(dict.fromkeys(_in_words(*difference, resolved) for difference in changed))
    if lines:
        raise InputError(
            f"{folder} was started with another configuration:\n  " + "\n  ".join(lines) +
            f"\nTo resume it, set these back (its settings are in {path}). To keep both, search in another folder "
            "(--out). To start over, use --fresh (the earlier run is renamed)"
        )  # fmt: skip
    versions = differences(saved.get("versions", {}), current.get("versions", {}))
    return [f"{'.'.join(key)}: was {was!r}, is {now!r}" for key, was, now in versions]


@contextmanager
def locked(
    folder: Path, name: str = files.LOCK, busy: str = "another search is running in this folder", wait: float = 0
) -> Iterator[None]:
    """Hold a lock of a run folder, for which it waits so many seconds.

    Raises RunError, which says `busy`, if another process has it, InputError if the folder is read-only.
    """
    # The kernel frees this lock when its holder dies.
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        holders = open_in(folder / name)
        by = f" ({', '.join(holders)})" if holders else ""
        other = "; or choose another folder" if name == files.LOCK else ""
        raise RunError(f"{folder}: {busy}{by}. Wait for it or end it{other}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def measuring(folder: Path) -> AbstractContextManager[None]:
    """Only one command at a time gives a run's trials their accuracy: two would mix what they measured it on.

    Raises RunError if another does.
    """
    return locked(folder, files.ACCURACY_LOCK, "another command is measuring the accuracy of its trials")


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


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run, or empty but for what a failed search or a file manager left."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if files.CONFIG in names:
        try:
            return "resolved" in files.read_yaml_mapping(folder / files.CONFIG)
        except InputError:
            pass  # damaged; the other files tell
    results = (folder / files.TRIALS).glob(f"*/{files.RECIPE}")
    return names <= set(_LEFTOVERS[1:]) or files.STUDY in names or any(results)


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _move_aside(folder: Path) -> Path:
    aside = next(path for i in range(1, 10_000) if not (path := folder.with_name(f"{folder.name}.{i}")).exists())
    with locked(folder):
        _remove_orders(folder)
        try:
            os.replace(folder, aside)
        except OSError as error:
            raise InputError(
                f"--fresh: cannot rename {folder} to {aside.name} ({error.strerror}). Choose another folder (--out)"
            ) from None
    return aside


def _put_back(aside: Path, folder: Path) -> Path:
    """Give an earlier run its name back, unless somebody has put something into the new one. Returns its folder."""
    if (folder / files.ERRORS).exists():
        os.replace(folder / files.ERRORS, aside / files.ERRORS)
    _remove_orders(folder)
    for name in (*_LEFTOVERS, f"{files.STUDY}*", "leaderboard.*", files.RELIABILITY, files.SCORES):
        for path in folder.glob(name):
            path.unlink()
    try:
        folder.rmdir()
        os.replace(aside, folder)
    except OSError:
        return aside
    return folder


def _remove_orders(folder: Path) -> None:
    """Remove the orders of the weights that a search keeps, and nothing else that may lie in a folder of this name."""
    for path in (folder / files.ORDERS).glob("*.ranks*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / files.ORDERS).rmdir()


Key = tuple[str, ...]


def _in_words(key: Key, was: Any, now: Any, resolved: ResolvedConfig) -> str:
    """A difference in the keys and files that the user wrote."""
    if key[:2] in (("resolved", "checkpoints"), ("resolved", "settings")) and key[2:]:
        name = key[2]
        where = "family.base" if name == "base" else f"family.models.{name}"
        what = ".".join(key[3:]) or "the weights"
        return f"{where}: {what} in {resolved.family.folders.get(name, name)} changed since the run was started"
    if key[:2] == ("resolved", "recipes") and key[2:]:
        whole = not key[3:]
        what = "was added" if whole and was is None else "is missing" if whole and now is None else "has changed"
        return f"study.recipes: {key[2]} {what} since the run was started"
    if key == ("resolved", "prompts_sha256"):
        return f"prompts.file: the content of {resolved.config.prompts.file} has changed"
    if key[0] == "resolved":
        key = key[1:]
    return f"{'.'.join(key)}: was {was!r}, is {now!r}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], at: Key = ()) -> Iterator[tuple[Key, Any, Any]]:
    """The keys that differ, with both values."""
    for key in sorted(old.keys() | new.keys(), key=str):
        here = (*at, str(key))
        was, now = old.get(key), new.get(key)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from differences(was, now, here)
            if here in _ORDERED and was == now and list(was) != list(now):
                yield here, list(was), list(now)
        elif was != now and here not in _FREE:
            yield here, was, now
