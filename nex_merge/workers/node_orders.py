"""Orders of weights on the node of a cluster: a folder for all workers of a search there, as each could hold gigabytes.

No process is sure to outlive the others and tidy up: workers are killed, and nodes go away. So every worker has the
folder locked while it lives, and whoever comes or goes removes the folders that nobody has.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "nex-merge-orders-"
_held: list[int] = []  # descriptors, whose locks end with the process, however it ends


def hold_orders(search: str) -> Path:
    """The folder of a search on this node, from now on in use by this process."""
    remove_abandoned()
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{search}"
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = _locked(folder, fcntl.LOCK_SH)
        if descriptor is not None:
            if _is_at(folder, descriptor):
                _held.append(descriptor)
                return folder
            os.close(descriptor)  # removed, and perhaps made anew, before it was locked


def let_go() -> None:
    """This process needs no orders any more."""
    while _held:
        os.close(_held.pop())
    remove_abandoned()


def remove_abandoned() -> None:
    """Remove the folders that no process has in use."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        descriptor = _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _locked(folder: Path, kind: int) -> int | None:
    """A descriptor of a folder that is locked; None: it is gone, in use, or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
