"""Workers on the nodes of a Ray cluster: one that was started for this search, or one that runs already.

Ray itself is in another process, `ray_actors.py`, which sends on what workers say. Without a worker that has answered,
nothing is sent: one that finds no room in the cluster yet holds no trial.
"""

import logging
import os
import pickle
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError, RunError
from nex_merge.setup.config import RuntimeConfig
from nex_merge.workers.executors import Done, Executor, Gone, Progress
from nex_merge.workers.job import Job
from nex_merge.workers.nodes import Facts, OnNode, facts, held_against
from nex_merge.workers.places import cores
from nex_merge.workers.serve import Setup
from nex_merge.workers.sessions import end_session

HERE = "ray"  # the value of runtime.cluster for a cluster of this machine
PATIENCE = 2.5  # seconds in which the other process leaves a cluster that it has joined
STARTS = 3  # times in a row that a worker may end before it is ready, until no other is started
ROOM = 900.0  # seconds without any worker on a node, until the cluster is given up
TELLING = 30.0  # seconds of these, until it is said
LONGEST = 20  # characters of a folder for temporary files: Ray's sockets are deep in it, and limited to about 100

# Of the cluster that is started here: a node that is gone is noticed within two seconds, and nobody is told of it.
_ENVIRONMENT = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Wanted:
    """What the other process is told first."""

    address: str
    folder: str | None  # of the cluster that it starts; None: it joins one
    cpus: int  # of the cluster that it starts
    device: str  # auto: GPUs if there are any
    count: int | None  # None: as many workers as there is room for, and no more than `at_most`
    at_most: int


@dataclass
class _Worker:
    facts: Facts | None = None
    is_ready: bool = False
    why: str | None = None  # it says itself why it ends


def check_ray(runtime: RuntimeConfig) -> None:
    """Raise InputError if a configuration can't run on a cluster."""
    if find_spec("ray") is None:
        raise InputError(f"runtime.cluster: {runtime.cluster!r} needs Ray; install nex-merge[ray]")
    if runtime.devices != "auto":
        raise InputError(
            f"runtime.devices: expected auto with runtime.cluster, which gives every worker a GPU, or a share of the "
            f"CPUs, of its own, got {', '.join(runtime.devices)}"
        )


class Cluster(Executor):
    """Ray actors, one for each GPU or share of CPUs; one that is lost is replaced."""

    def __init__(self, runtime: RuntimeConfig, parallel: int, note: Callable[[str], None]) -> None:
        """Start them. They do nothing before `set_up`. `parallel`: `study.parallel`; `note` is told what is special."""
        self._note, self._own = note, facts("here")
        self._said: set[str] = set()
        self._workers: dict[str, _Worker] = {}
        self._setup: Setup | None = None
        self._failed = 0  # workers in a row that ended before they were ready
        self._idle = time.monotonic()  # since when no worker has a node
        self._folder: str | None = None
        count = runtime.workers if isinstance(runtime.workers, int) else None
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "RAY_USAGE_STATS_ENABLED": "0",
            # An actor out of reach is told as "unavailable" after this time, 1 s by default: before a node is known to
            # be lost, which takes a cluster with Ray's own health checks 15 s.
            "RAY_timeout_ms_task_wait_for_death_info": "30000",
        }
        if runtime.cluster == HERE:
            self._folder = _folder()
            environment |= _ENVIRONMENT | _token(self._folder) | {"TMPDIR": self._folder}
        device = runtime.device.partition(":")[0]
        cpus = max(cores(), count or 0)
        wanted = Wanted(str(runtime.cluster), self._folder, cpus, device, count, parallel)
        here, there = socket.socketpair()
        self._connection = Connection(here.detach())
        self._output = tempfile.TemporaryFile(prefix="nex-merge-")  # noqa: SIM115  what Ray prints
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from nex_merge.workers.ray_actors import main; main()", str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                start_new_session=True,  # of all that Ray starts, too: neither has Ctrl-C, and both end together
            )
        self._tell(wanted)

    def set_up(self, make: Callable[[], Any]) -> None:
        """Let the workers make their engines, on their nodes, by `make`."""
        self._setup, self._idle = Setup(OnNode(make, secrets.token_hex(8))), time.monotonic()
        for name, worker in self._workers.items():
            if worker.facts is not None:
                self._tell_worker(name, self._setup)

    def ready(self) -> Sequence[str]:
        return [name for name, worker in self._workers.items() if worker.is_ready]

    def place(self, worker: str) -> str:
        found = self._workers[worker].facts
        return "" if found is None else found.place

    def places(self) -> Sequence[str]:
        """Of those that have one: a worker that still looks for room may never get it, so none is waited for."""
        return [worker.facts.place for worker in self._workers.values() if worker.facts is not None]

    def send(self, worker: str, job: Job) -> None:
        self._tell_worker(worker, job)

    def wait(self, progress: Progress) -> Done | Gone | None:
        try:
            if not self._connection.poll(1.0):
                self._look_for_room()
                return None
            name, kind, what = self._connection.recv()
        except (EOFError, OSError):
            raise RunError(f"runtime.cluster: the connection to Ray has ended{self._last_words()}") from None
        match kind:
            case "note":
                self._note(what)
            case "fault":
                raise what
            case "starting":
                self._workers[name] = _Worker()
            case "facts":
                self._introduced(name, what)
            case "said":
                return self._event(name, pickle.loads(what), progress)
            case "gone":
                return self._gone(name, what)
        return None

    def close(self) -> None:
        self._connection.close()
        if self._folder is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        end_session(self._process.pid, self._folder)
        self._process.wait()
        self._output.close()

    def _look_for_room(self) -> None:
        """Raise RunError if no worker has had a node for long."""
        idle = time.monotonic() - self._idle
        if self.places():
            self._idle = time.monotonic()
        elif idle > ROOM:
            raise RunError(
                f"runtime.cluster: there was no room for a worker in {ROOM / 60:.0f} minutes. Give the cluster nodes, "
                "or free some; the same command goes on"
            )
        elif idle > TELLING:
            self._say_once("no worker has a node yet; waiting for room in the cluster")

    def _introduced(self, name: str, found: Facts) -> None:
        """Let a worker make its engine, if its node may. Raises InputError if it may not."""
        self._workers[name].facts = found
        others = [worker.facts.kind for worker in self._workers.values() if worker.facts is not None]
        for line in held_against(self._own.versions, found):
            self._say_once(line)
        if len(set(others)) > 1:
            self._say_once(
                f"warning: the cluster's nodes differ ({', '.join(sorted(set(others)))}), and equal weights may be "
                "sorted, and half precision rounded, otherwise on some of them: what a merge is then depends on where "
                "it was tried. Use nodes of one kind where the leaderboard has to be the same every time"
            )
        if self._setup is not None:
            self._tell_worker(name, self._setup)

    def _event(self, name: str, said: tuple[str, Any], progress: Progress) -> Done | None:
        worker, (kind, what) = self._workers[name], said
        match kind:
            case "progress":
                progress(name, *what)
            case "ready":
                worker.is_ready, self._failed = True, 0
            case "done":
                return Done(name, what)
            case "lost":
                worker.why = what
            case "note":
                logging.getLogger(__name__).warning("%s: %s", self.place(name), what)
            case "fault":
                raise what
        return None

    def _gone(self, name: str, why: str) -> Gone:
        """Replace a worker. Raises RunError if none is left, and the last ones ended before they were ready."""
        worker, place = self._workers[name], self.place(name)
        del self._workers[name]
        why = worker.why or why
        self._failed = 0 if worker.is_ready else self._failed + 1
        if self._failed < STARTS:
            self._tell(("", None))
        elif not self._workers:
            raise RunError(f"runtime.cluster: no worker can be started: the last one {why}")
        return Gone(name, place, why)

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._note(line)

    def _tell_worker(self, name: str, what: Setup | Job) -> None:
        self._tell((name, pickle.dumps(what)))

    def _tell(self, what: Any) -> None:
        with suppress(OSError):  # it has ended, as the connection will say
            self._connection.send(what)

    def _last_words(self) -> str:
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip().splitlines()
        return f", and said: {said[-1]}" if said else ""


def _folder() -> str:
    """A folder for all that Ray writes."""
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="nex-merge-", dir=usual if len(usual) <= LONGEST else "/tmp")


def _token(folder: str) -> dict[str, str]:
    """What lets nobody else use the cluster, whose ports are open to others on this machine and its network.

    By itself, Ray would keep a token in the user's home, and so close clusters that are started later.
    """
    path = Path(folder) / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), encoding="utf-8")
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
