"""Files and folders that appear whole: written in a workspace beside their place, and renamed.

A workspace has a name of its own each time, so that nothing of anybody else's is written to or removed. What a killed
process leaves is known by that name and by its lock, which the kernel has freed; whoever next writes to the same place
removes it.
"""

import errno
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nex_merge.errors import RunError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOCK = ".nex-merge-lock"
_END = ".partial"
# Of the name that a workspace is for; a file system that takes this name takes the workspace's, too.
_LETTERS = 50


@contextmanager
def new_file(path: Path, synced: bool = True) -> Iterator[Path]:
    """A file to write, which takes the place of `path` at the end: all of it or nothing, also after a crash.

    Where `path` is a link, what it names is replaced. `synced`: False for what is of no use after a crash.
    """
    path = _real(path)
    with workspace(path) as work:
        yield work / path.name
        if synced:
            _sync_file(work / path.name)
        os.replace(work / path.name, path)
    if synced:
        _sync_folder(path.parent)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end, with the permissions that the umask gives new files.

    `out` is new, or an empty folder. Where the block ends with a RunError, what it wrote is kept, for inspection;
    otherwise nothing is left of it. Raises RunError if somebody has put something there meanwhile.
    """
    out = _real(out)
    with workspace(out) as work:
        folder = work / out.name
        folder.mkdir()
        try:
            yield folder
        except RunError:
            (work / _LOCK).unlink()  # from now on a folder like any other
            raise
        finish(folder, folder)
        if out.is_dir():
            shutil.copymode(out, folder)
        try:
            os.replace(folder, out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise RunError(f"{out}: something else was put there meanwhile; choose another name") from None
    _sync_folder(out.parent)


def is_being_written(path: Path) -> bool:
    """Whether another process, which still lives, writes a file or folder; what dead ones left of it is removed."""
    path = _real(path)
    begin = glob.escape(_begin(path))
    return any([_lives(work) for work in path.parent.glob(f"{begin}*{_END}")])  # a list: all are looked at


def abandoned(folder: Path) -> list[Path]:
    """What killed processes left half-written in a folder and below: workspaces with a lock that nobody holds."""
    found = []
    for work in sorted(folder.rglob(f"*.nex-merge-*{_END}")):
        with suppress(OSError):  # another user's
            if (work / _LOCK).is_file() and (lock := _lock(work)) is not None:
                lock.release()
                found.append(work)
    return found


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _begin(path: Path) -> str:
    return f"{path.name[:_LETTERS]}.nex-merge-"


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """A locked folder beside `path`, removed at the end unless it has no lock any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_being_written(path)
    while True:
        work = Path(tempfile.mkdtemp(prefix=_begin(path), suffix=_END, dir=path.parent))
        try:
            if lock := _lock(work):  # else another process took it for a left-over, before it was locked
                break
        except OSError:
            work.rmdir()
            raise
    try:
        yield work
    finally:
        if (work / _LOCK).exists():
            shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _lives(work: Path) -> bool:
    """Whether a workspace is in use; if not, it is removed, unless it has been kept."""
    if not (work / _LOCK).is_file():
        return False
    try:
        lock = _lock(work)
    except OSError:  # another user's
        return False
    if lock is None:
        return True
    shutil.rmtree(work, ignore_errors=True)
    lock.release()
    return False


def _lock(work: Path) -> "BaseFileLock | None":
    """A workspace's lock, held by this process; None if another holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(work / _LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def finish(folder: Path, like: Path) -> None:
    """Give a folder and all in it the permissions that a new one, `like`, has, and flush it to disk.

    Some libraries write files for their owner alone.
    """
    mode = like.stat().st_mode
    for path in [*folder.rglob("*"), folder]:
        path.chmod(stat.S_IMODE(mode) if path.is_dir() else mode & 0o666)
        _sync_folder(path) if path.is_dir() else _sync_file(path)


def _sync_file(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush renames in a folder to disk, if the system can sync folders (Windows can't)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        return
    finally:
        os.close(handle)
