"""An observer that keeps experiment trackers informed: the side of the search, which waits for none of them.

Each has a process of its own (`process.py`), so that a server that is away, a full disk or a library's fault costs the
search neither time nor trials. What a tracker missed, it is told when the search is resumed.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nex_merge import interrupts
from nex_merge.errors import InputError
from nex_merge.inert import one_line
from nex_merge.passwords import HIDDEN, masked, secrets_of
from nex_merge.records import TrialResult
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RunConfig, TrackingConfig
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.observers import Observer
from nex_merge.study.tracking.process import END, FAULT, NEWS, STOPPED
from nex_merge.study.tracking.told import Task

FINISH = 20.0  # seconds that a search, at its end, waits for a tracker to take what is left
HURRY = 2.0  # the same after Ctrl-C
# Unless the user has set them: nothing is sent to a library's makers, and a server that is away is given up within half
# a minute.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def check_tracking(tracking: TrackingConfig) -> None:
    """Raise InputError if the library of a tracker is not installed."""
    for name, target in tracking.model_dump().items():
        if target is not None and find_spec(name) is None:
            raise InputError(f"tracking.{name}: needs {name}, which is not installed; install nex-merge[{name}]")


class Tracking(Observer):
    """Tells the trackers of a configuration of a search. `note` is told, once, of one that failed."""

    def __init__(self, resolved: ResolvedConfig, note: Callable[[str], None]) -> None:
        self._resolved, self._note = resolved, note
        self._tellers: list[_Teller] = []

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        config = self._resolved.config
        study = RunFolder(Path(run), note=lambda text: None).study_name
        for name, target in self._resolved.trackers.items():
            where = getattr(config.tracking, name)
            task = Task(name, target, where, Path(run).resolve(), study, flat(config))
            self._tellers.append(_Teller(task, self._note))

    def on_trial_end(self, result: TrialResult) -> None:
        for teller in self._tellers:
            teller.tell(NEWS)

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        tellers, self._tellers = self._tellers, []
        for teller in tellers:
            teller.tell(END if rows else STOPPED)
        patience = HURRY if interrupts.arrived() else FINISH
        until = time.monotonic() + patience
        for teller in tellers:
            if not teller.has_ended(max(0.0, until - time.monotonic())):
                teller.give_up(f"did not take everything within {patience:.0f} s of the end of the search")
            teller.close()


class _Teller:
    """The process of a tracker."""

    def __init__(self, task: Task, note: Callable[[str], None]) -> None:
        self._task, self._note, self._is_on = task, note, True
        here, there = socket.socketpair()
        self._output = tempfile.TemporaryFile(prefix="nex-merge-")  # noqa: SIM115  as long as the process
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "nex_merge.study.tracking.process", str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=_ENVIRONMENT | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # a terminal's Ctrl-C reaches the search alone, which ends it
            )
        self._connection = Connection(here.detach())
        with suppress(OSError):  # it has ended, as `has_ended` finds
            self._connection.send(task)

    def tell(self, word: bytes) -> None:
        """Send a word: so few bytes that none is waited for, however long the tracker hangs."""
        if not self.has_ended():
            with suppress(OSError):
                self._connection.send_bytes(word)

    def close(self) -> None:
        """End it."""
        self._connection.close()
        try:
            self._process.wait(HURRY)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it says its last word, good or bad, within so many seconds."""
        if not self._is_on:
            return True
        try:
            if not self._connection.poll(seconds):
                return False
            kind, words = self._connection.recv()
        except (EOFError, OSError):
            kind, words = FAULT, self._last_words()
        if kind == FAULT:
            self.give_up(words)
        self._is_on = False
        return True

    def _last_words(self) -> str:
        code = self._process.wait()
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with exit code {code}" + (f", and said: {said[-1]}" if said else "")

    def give_up(self, why: str) -> None:
        """Say that it is told nothing more, and why."""
        self._is_on = False
        for secret in secrets_of(self._task.target):
            why = why.replace(secret, HIDDEN)
        self._note(
            f"tracking.{self._task.tracker}: {masked(one_line(why)).rstrip('.')}. It is told nothing more until the "
            "search is resumed, which tells it what is missing"
        )


def flat(config: RunConfig) -> dict[str, Any]:
    """The settings of a configuration by `section.key`."""
    found: dict[str, Any] = {}
    for name, value in config.model_dump().items():
        inside = isinstance(value, Mapping) and name != "search_space"
        found |= {f"{name}.{key}": item for key, item in value.items()} if inside else {name: value}
    return found
