"""Exclusive access to a run: its lock and its driver, comparing configurations, and moving an earlier run aside."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from nex_merge.errors import InputError, InUse, RunError
from nex_merge.measures.readings import DEFINITION
from nex_merge.measures.registry import CONSENSUS
from nex_merge.runs import files
from nex_merge.runs.changes import all_places, changes, differences
from nex_merge.runs.claims import Claims
from nex_merge.runs.database import Database, open_in
from nex_merge.runs.results import SCHEMA
from nex_merge.runs.run import RunFolder
from nex_merge.setup.paths import command
from nex_merge.setup.resolve import ResolvedConfig

GLANCE = 0.2  # seconds that a lock is waited for: whoever looks whether a search holds it does so for an instant
STANDBY = 2.0  # seconds between two looks at a run that is in use

# What a search that ended before its first trial leaves behind, beside hidden files.
_LEFTOVERS = (
    files.CONFIG, files.LOCK, files.ORDERS, files.LIVE, files.WORK, files.ERRORS, files.WARM_START, files.PROMPTS
)  # fmt: skip


@contextmanager
def hold(
    resolved: ResolvedConfig, fresh: bool, note: Callable[[str], None], database: Database | None = None
) -> Iterator[RunFolder]:
    """The run folder, locked for this process, with this configuration saved in it.

    `fresh` renames an earlier run; it gets its name back if the new one ends before its first trial. `database`: the
    study's, if it is at hand. Raises what `check` raises.
    """
    database = database or Database(resolved.storage, resolved.run, note)
    _check_usable(resolved, fresh, database)
    _check_free(resolved, database)
    folder = resolved.run
    aside = _move_aside(folder) if fresh and _has_content(folder) else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _save(resolved, note)
            if aside is not None:
                note(f"renamed the earlier run to {aside}")
            # Left by a killed process; every process sorts the weights itself.
            remove_orders(folder)
            try:
                yield RunFolder(folder, resolved.storage, note=note)
            finally:
                remove_orders(folder)
    except BaseException:
        if aside is not None and not (folder / files.TRIALS).exists():
            back = _put_back(aside, folder)
            note(f"no trial was begun: the earlier run is {back} {'again' if back == folder else 'now'}")
        raise


def check(resolved: ResolvedConfig, fresh: bool = False, database: Database | None = None) -> None:
    """Check that a search can use its run folder, without changing anything.

    Raises InputError if the folder or the study's database can't be used, or the folder holds something other than a
    run, or a run of another configuration (unless `fresh`); InUse if another search holds it or drives its study.
    """
    database = database or Database(resolved.storage, resolved.run)
    _check_usable(resolved, fresh, database)
    if not fresh:
        compare(resolved)
    _check_free(resolved, database)


def stand_by(resolved: ResolvedConfig, note: Callable[[str], None]) -> None:
    """Wait until no other search holds the run folder or drives its study. That it waits is said once.

    Raises what `check` raises, but for a run in use, before it waits; RunError if the database stays unavailable.
    """
    database = Database(resolved.storage, resolved.run, note)
    _check_usable(resolved, False, database)
    compare(resolved)
    is_waiting = False
    while True:
        try:
            _check_free(resolved, database)
            break
        except InUse as error:
            if not is_waiting:
                note(f"{error.what}. Standing by, to take over when it ends; Ctrl-C ends the wait")
            is_waiting = True
        time.sleep(STANDBY)
    if is_waiting:
        note(f"{resolved.run}: the other search has ended; this one takes over")


def _check_free(resolved: ResolvedConfig, database: Database) -> None:
    """Raise InUse if another search holds the run folder or, wherever it runs, drives the study of a shared database.

    Waits for that database, and creates nothing.
    """
    folder = resolved.run
    if (folder / files.LOCK).exists():
        with locked(folder):
            pass
    # A run's own study.db is beside the lock. Hosts that share a folder may not see each other's locks.
    if database.is_own or (database.path is not None and not database.path.exists()):
        return
    with suppress(InputError):  # damaged, or of another program: without a study's name, there is no driver
        claims = Claims(database.engine, _opened(resolved).study_name)
        database.run(claims.check_free)


def _check_usable(resolved: ResolvedConfig, fresh: bool, database: Database) -> None:
    """As `check`, but for the configuration of the run that is there, and who uses it."""
    folder = resolved.run
    if not database.is_own or not fresh:  # otherwise study.db is a new file
        database.check()
    if not folder.is_dir():
        return
    if not _is_run(folder):
        others = sorted(path.name for path in folder.iterdir() if path.name not in _LEFTOVERS[1:])
        raise InputError(
            f"output: {folder} is not empty and not a run folder: it has {', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}. Choose another folder (--out)"
        )


def compare(resolved: ResolvedConfig) -> list[str]:
    """Raise InputError if the configuration differs from the run folder's.

    Returns the differences in library versions, which are allowed but worth a note.
    """
    folder, path = resolved.run, resolved.run / files.CONFIG
    has_trials = files.has_trials(folder)
    if not path.exists():
        if has_trials:
            raise InputError(
                f"{folder}: has trials but no {files.CONFIG}, which says how they were made. Restore {path} from a "
                "copy of the run, search in another folder (--out), or start over with --fresh (the folder is renamed)"
            )
        return []
    if not has_trials:
        return []  # a search that failed before its first trial holds nothing to protect
    run = _opened(resolved)
    lines = changes({**run.config.model_dump(), "resolved": run.resolved}, resolved)
    if lines:
        raise InputError(
            f"{folder} was started with another configuration:\n  " + "\n  ".join(lines) +
            f"\nTo resume it, set these back (its settings are in {path}). To keep both, search in another folder "
            "(--out). To start over, use --fresh (the earlier run is renamed)"
        )  # fmt: skip
    if run.votes != DEFINITION and _hangs_on_votes(run) and _merges(run) < resolved.config.study.trials:
        raise InputError(
            f"{folder}: its search was begun under an earlier definition of consensus, in which copies of one model "
            "counted as many voters, so that what it tries next would depend on when it was stopped. For the present "
            f"ranking of what it has: {command('rescore', folder)}. To search on, use another folder (--out), or start "
            "over with --fresh (the earlier run is renamed)"
        )
    versions = differences(run.resolved.get("versions", {}), resolved.resolved.get("versions", {}))
    return [f"{'.'.join(key)}: was {was!r}, is {now!r}" for key, was, now in versions]


@contextmanager
def locked(
    folder: Path, name: str = files.LOCK, busy: str = "another search is running in this folder", wait: float = GLANCE
) -> Iterator[None]:
    """Hold a lock of a run folder, for which it waits so many seconds.

    Raises RunError (InUse for the search's own lock), which says `busy`, if another process has it, InputError if the
    folder is read-only.
    """
    # The kernel frees this lock when its holder dies.
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        holders = open_in(folder / name)
        by = f" ({', '.join(holders)})" if holders else ""
        what, advice = f"{folder}: {busy}{by}", "Wait for it or end it"
        if name == files.LOCK:
            raise InUse(what, f"{advice}; or choose another folder") from None
        raise RunError(f"{what}. {advice}") from None
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
    config, places, votes = resolved.config.model_dump(), resolved.resolved["places"], DEFINITION
    if (resolved.run / files.CONFIG).exists():
        run = _opened(resolved)
        schema, name, places = run.schema, run.study_name, all_places(run.resolved, resolved)
        votes = run.votes
        # A longer run stays as long as it is.
        if config["study"]["trials"] < _merges(run):
            config["study"]["trials"] = run.config.study.trials
    head = {"schema": schema, "study_name": name, "votes": votes}
    content = {**head, **config, "resolved": {**resolved.resolved, "places": places}}
    files.write_atomically(resolved.run / files.CONFIG, yaml.safe_dump(content, sort_keys=False))


def _hangs_on_votes(run: RunFolder) -> bool:
    """Whether what a search tries depends on consensus."""
    study = run.config.study
    return CONSENSUS.name in {*run.objective.names, *study.constraints}


def _merges(run: RunFolder) -> int:
    return sum(name.isdigit() for name in run.folders())


def _opened(resolved: ResolvedConfig) -> RunFolder:
    """The run as it is in its folder. What of it can't be checked is said by the search itself."""
    return RunFolder(resolved.run, resolved.storage, note=lambda text: None)


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run, or empty but for what a failed search or a file manager left."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if files.CONFIG in names:
        # Without it, or damaged, the other files tell.
        with suppress(InputError):
            if "resolved" in files.read_yaml_mapping(folder / files.CONFIG):
                return True
    results = (folder / files.TRIALS).glob(f"*/{files.RECIPE}")
    return names <= set(_LEFTOVERS[1:]) or files.STUDY in names or any(results)


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _move_aside(folder: Path) -> Path:
    aside = next(path for i in range(1, 10_000) if not (path := folder.with_name(f"{folder.name}.{i}")).exists())
    with locked(folder):
        remove_orders(folder)
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
    remove_orders(folder)
    found = (f"{files.STUDY}*", "leaderboard.*", files.TRACKING.format("*"), files.RELIABILITY, files.SCORES)
    for name in (*_LEFTOVERS, *found):
        for path in folder.glob(name):
            path.unlink()
    try:
        folder.rmdir()
        os.replace(aside, folder)
    except OSError:
        return aside
    return folder


def remove_orders(folder: Path) -> None:
    """Remove the orders of the weights that a search keeps, and nothing else that may lie in a folder of this name."""
    for path in (folder / files.ORDERS).glob("*.ranks*"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / files.ORDERS).rmdir()
