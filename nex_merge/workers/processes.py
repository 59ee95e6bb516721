"""Workers that are processes of this machine, each with its threads or its GPU.

Started as programs of their own rather than by `multiprocessing`, which would run a user's script again in each of
them. A closed connection tells of a death at once, in either direction.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import IO

from nex_merge.errors import RunError
from nex_merge.workers.executors import Done, Executor, Gone, Progress
from nex_merge.workers.job import Job
from nex_merge.workers.places import Place
from nex_merge.workers.serve import Setup

PATIENCE = 1.0  # seconds in which a worker has to end when its connection is closed
STARTS = 3  # times that a worker may end before it is ready, until it is given up


@dataclass
class _Worker:
    name: str
    place: Place
    process: subprocess.Popen[bytes]
    connection: Connection
    output: IO[bytes]  # what it and its libraries print
    starts: int
    is_ready: bool = False
    why: str | None = None  # it says itself why it ends


class Processes(Executor):
    """Spawned processes, one at each place; one that ends is replaced."""

    def __init__(self, places: Sequence[Place]) -> None:
        """Start them. They do nothing before `set_up`."""
        self._workers: dict[str, _Worker] = {}
        self._setup: Setup | None = None
        self._number = 0
        try:
            for place in places:
                self._start(place)
        except BaseException:
            self.close()
            raise

    def set_up(self, setup: Setup) -> None:
        """Let the workers make their engines."""
        self._setup = setup
        for worker in self._workers.values():
            self._tell(worker, setup)

    def ready(self) -> Sequence[str]:
        return [name for name, worker in self._workers.items() if worker.is_ready]

    def place(self, worker: str) -> str:
        return self._workers[worker].place.device

    def places(self) -> Sequence[str]:
        return [worker.place.device for worker in self._workers.values()]

    def send(self, worker: str, job: Job) -> None:
        self._tell(self._workers[worker], job)

    def wait(self, progress: Progress) -> Done | Gone | None:
        by_connection = {worker.connection: worker for worker in self._workers.values()}
        for found in wait(list(by_connection), timeout=1.0):
            worker = by_connection[found]  # pyright: ignore[reportArgumentType]
            event = self._event(worker, progress)
            if event is not None:
                return event
        return None

    def close(self) -> None:
        workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            _end(worker)
            worker.output.close()

    def _start(self, place: Place, starts: int = 0) -> None:
        self._number += 1
        here, there = socket.socketpair()
        output = tempfile.TemporaryFile(prefix="nex-merge-")  # noqa: SIM115  as long as the worker
        with there:
            process = subprocess.Popen(
                [sys.executable, "-m", "nex_merge.workers.serve", str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | place.environment() | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # a terminal's Ctrl-C reaches the search alone, which ends it
            )
        name = f"worker {self._number}"
        worker = _Worker(name, place, process, Connection(here.detach()), output, starts)
        self._workers[name] = worker
        if self._setup is not None:
            self._tell(worker, self._setup)

    def _tell(self, worker: _Worker, what: Setup | Job) -> None:
        with suppress(OSError):  # it has ended, as its connection will say
            worker.connection.send(what)

    def _event(self, worker: _Worker, progress: Progress) -> Done | Gone | None:
        try:
            kind, what = worker.connection.recv()
        except (EOFError, OSError):
            return self._ended(worker)
        match kind:
            case "progress":
                progress(worker.name, *what)
            case "ready":
                worker.is_ready, worker.starts = True, 0
            case "done":
                return Done(worker.name, what)
            case "lost":
                worker.why = what
            case "note":
                logging.getLogger(__name__).warning("%s: %s", worker.name, what)
            case "fault":
                raise what
        return None

    def _ended(self, worker: _Worker) -> Gone:
        """Replace a worker. Raises RunError if none is left, and this one can't be started."""
        del self._workers[worker.name]
        worker.connection.close()
        code = _end(worker)
        said = _last_words(worker)
        why = worker.why or _cause(code)
        if worker.is_ready or worker.starts + 1 < STARTS:
            self._start(worker.place, 0 if worker.is_ready else worker.starts + 1)
        elif not self._workers:
            raise RunError(f"runtime.workers: no worker can be started: the last one {why}{said}")
        return Gone(worker.name, worker.place.device, why)


def _end(worker: _Worker) -> int:
    """The exit code of a worker whose connection is closed."""
    try:
        return worker.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        return worker.process.wait()


def _last_words(worker: _Worker) -> str:
    """What a worker that has ended printed last; closes what it printed to."""
    with worker.output as output:
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    return f", and said: {said[-1]}" if said else ""


def _cause(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    return f"was ended by {name}" + (", as the kernel does where memory runs out" if code == -signal.SIGKILL else "")
