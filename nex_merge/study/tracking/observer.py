"""An observer that keeps experiment trackers informed: the side of the search, which waits for none of them.

Each has a process of its own (`process.py`), so that a server that is away, a full disk or a library's fault costs the
search neither time nor trials. What a tracker missed, it is told when the search is resumed.
"""

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nex_merge import interrupts
from nex_merge.errors import InputError
from nex_merge.inert import one_line
from nex_merge.passwords import AMBIGUOUS, hidden, is_ambiguous, secrets_of, without_password
from nex_merge.records import TrialResult
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RunConfig
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.observers import Observer
from nex_merge.study.tracking.process import END, FAULT, NEWS, STOPPED
from nex_merge.study.tracking.told import Task

_logger = logging.getLogger(__name__)
FINISH = 20.0  # seconds that a search, at its end, waits for a tracker to take what is left
HURRY = 2.0  # the same after Ctrl-C
# Of what a process printed last, the bytes that are looked at, and the lines of them that are quoted: a warning of
# MLflow's has four.
_END, _LINES = 4096, 4
# Unless the user has set them: nothing is sent to a library's makers, and a server that is away is given up within half
# a minute.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def check_tracking(trackers: Mapping[str, str]) -> None:
    """Raise InputError if the library of a tracker is not installed, or nothing tells where a URI's password ends."""
    for name, target in trackers.items():
        if find_spec(name) is None:
            raise InputError(f"tracking.{name}: needs {name}, which is not installed; install nex-merge[{name}]")
        if is_ambiguous(target):
            raise InputError(f"tracking.{name}: {AMBIGUOUS.format(without_password(target))}")


class Tracking(Observer):
    """Tells the trackers of a configuration of a search. One that fails is warned of once, also in a quiet search."""

    def __init__(self, resolved: ResolvedConfig) -> None:
        self._resolved = resolved
        self._tellers: list[_Teller] = []

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        config = self._resolved.config
        study = RunFolder(Path(run), note=lambda text: None).study_name
        for name, target in self._resolved.trackers.items():
            where = getattr(config.tracking, name)
            task = Task(name, target, where, Path(run).resolve(), study, flat(config))
            self._tellers.append(_Teller(task))

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
                teller.give_up_after(patience)
            teller.close()


class _Teller:
    """The process of a tracker."""

    def __init__(self, task: Task) -> None:
        self._task, self._is_on = task, True
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
        said = self._said()
        return f"its process ended with exit code {code}" + (f", and said: {said[-1]}" if said else "")

    def _said(self) -> list[str]:
        """What its process printed last, by lines."""
        # Not by reading the file on: the process, if it lives, writes where the file was read to.
        file = self._output.fileno()
        end = os.pread(file, _END, max(0, os.fstat(file).st_size - _END))
        return end.decode(errors="replace").strip().splitlines()

    def give_up_after(self, seconds: float) -> None:
        """As `give_up`, for one that took too long: the cause is often in what its library has printed."""
        said = " ".join(self._said()[-_LINES:])
        why = f"did not take everything within {seconds:.0f} s of the end of the search"
        self.give_up(why + (f"; its process said last: {said}" if said else ""))

    def give_up(self, why: str) -> None:
        """Say that it is told nothing more, and why."""
        self._is_on = False
        why = one_line(hidden(why, secrets_of(self._task.target))).rstrip(".")
        _logger.warning(
            "tracking.%s: %s. It is told nothing more until the search is resumed, which tells it what is missing",
            self._task.tracker, why,
        )  # fmt: skip


def flat(config: RunConfig) -> dict[str, Any]:
    """The settings of a configuration by `section.key`."""
    found: dict[str, Any] = {}
    for name, value in config.model_dump().items():
        inside = isinstance(value, Mapping) and name != "search_space"
        found |= {f"{name}.{key}": item for key, item in value.items()} if inside else {name: value}
    return found
