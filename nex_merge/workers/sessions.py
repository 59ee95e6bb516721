"""A session of processes: whatever was started by its leader and by what it started, unless it made one of its own."""

import os
import shutil
import signal
import time
from contextlib import suppress

import psutil

PATIENCE = 5.0  # seconds


def end_session(leader: int, folder: str | None = None) -> None:
    """Kill all processes of a session but this one, and remove the folder that they were at work in.

    One that waits in the kernel, as for a device, ends when that lets it: it is not waited for longer than PATIENCE.
    """
    last = time.monotonic() + PATIENCE
    while found := [pid for pid in psutil.pids() if pid != os.getpid() and _is_in(pid, leader)]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > last:
            break
        time.sleep(0.01)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _is_in(pid: int, leader: int) -> bool:
    try:
        return os.getsid(pid) == leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False
