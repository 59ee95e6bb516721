"""The side of `cluster.py` that knows Ray: a process of its own, `python -c "...main()" DESCRIPTOR`, and its actors.

Ray takes over signals, the environment and the output of the process that connects to it, and blocks for seconds while
it starts. In this process it may, and the search is none the wiser. It passes on what the search and the workers say
without reading it; an actor is a worker of `serve.py`. Everything is ended where the search ends, in whatever way.
"""

import logging
import os
import platform
import socket
import sys
import threading
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from nex_merge.errors import InputError, RunError
from nex_merge.workers.cluster import Wanted
from nex_merge.workers.nodes import Facts, facts
from nex_merge.workers.serve import serve
from nex_merge.workers.sessions import end_session

STEP = 0.25  # seconds after which a new actor is looked for among those that are waited for, at the latest
REACHED = 10.0  # seconds in which a cluster has to be reached
LEAVE = 1.0  # seconds that actors have to tidy up
OBJECTS = 256 << 20  # bytes for what answers take on their way


class Actor:
    """A worker on a node. Two threads call it: one that tells it what to do, one that waits for what it says."""

    def __init__(self, threads: int | None) -> None:
        """`threads`: None with a GPU, which comes with its part of the node's cores."""
        context = ray.get_runtime_context()
        self._gpu = next(iter(context.get_accelerator_ids().get("GPU", ())), None)
        node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        if threads is None:
            has = node["Resources"]
            threads = max(1, int(has.get("CPU", 1)) // max(1, int(has.get("GPU", 1))))
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves those of the node
        os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}  # torch is not imported yet
        self._node = f"{platform.node()} ({context.get_node_id()[:8]})"

    def facts(self) -> Facts:
        """What the search has to know before it tells anything; and the worker begins."""
        found = facts(self._node, self._gpu)
        self._end, other = Pipe()
        threading.Thread(target=self._serve, args=(other,), name="worker", daemon=True).start()
        return found

    def _serve(self, connection: Connection) -> None:
        with connection:  # closed when the worker has said its last word, so that `said` fails
            serve(connection)

    def tell(self, what: bytes) -> None:
        self._end.send_bytes(what)

    def said(self) -> bytes:
        """The next thing that the worker says. Raises EOFError if it has ended."""
        return self._end.recv_bytes()

    def leave(self) -> None:
        """Leave nothing on the node."""
        from nex_merge.workers.node_orders import let_go

        let_go()


class Bridge:
    """Between a search and the actors of a cluster."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending, self._changing = threading.Lock(), threading.Lock()
        self._actors: dict[str, Any] = {}
        self._waited: dict[Any, str] = {}  # reference of what an actor says next -> its name
        self._answered: set[str] = set()
        self._options: dict[str, Any] = {}
        self._threads: int | None = None
        self._number = 0
        self._wanted: Wanted = connection.recv()

    def run(self) -> None:
        """Until the search closes the connection."""
        threading.Thread(target=self._receive, name="receiver", daemon=True).start()
        try:
            self._connect()
            for _ in range(self._count()):
                self._start()
        except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
            kind = RunError if self._wanted.folder else InputError
            self._send("", "fault", kind(f"runtime.cluster: {self._wanted.address}: {_first_line(error)}"))
            return
        while True:
            with self._changing:
                waited = list(self._waited)
            for reference in ray.wait(waited, timeout=STEP)[0] if waited else ():
                self._heard(reference)

    def _connect(self) -> None:
        wanted = self._wanted
        if wanted.folder is None:
            host, colon, port = wanted.address.rpartition(":")
            if colon:  # where nobody listens, Ray would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
            ray.init(address=wanted.address, log_to_driver=False, logging_level=logging.ERROR)
            return
        ray.init(
            address="local", num_cpus=wanted.cpus, include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR, object_store_memory=OBJECTS, _temp_dir=wanted.folder,
        )  # fmt: skip

    def _count(self) -> int:
        """How many actors there will be; and what each of them has for itself."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        with_gpus = self._wanted.device == "cuda" or (self._wanted.device == "auto" and gpus > 0)
        room = gpus if with_gpus else sum(cpus)
        count = self._wanted.count or max(1, min(self._wanted.at_most, room))
        if not with_gpus:  # as many threads as leave room for all of them
            fitting = (n for n in range(max(cpus, default=1), 1, -1) if sum(cpu // n for cpu in cpus) >= count)
            self._threads = next(fitting, 1)
        each = {"num_gpus": 1, "num_cpus": 0} if with_gpus else {"num_cpus": self._threads}
        self._options = {**each, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 3}
        if room < count:
            kind = "GPUs" if with_gpus else "CPUs"
            self._send("", "note", f"the cluster has {room} {kind}; of {count} workers, some wait until there are more")
        return count

    def _start(self) -> None:
        made: Any = ray.remote(**self._options)(Actor)
        actor = made.remote(self._threads)
        with self._changing:
            self._number += 1
            name = f"worker {self._number}"
            self._actors[name] = actor
            self._waited[actor.facts.remote()] = name
        self._send(name, "starting", None)

    def _heard(self, reference: Any) -> None:
        with self._changing:
            name = self._waited.pop(reference)
            actor = self._actors[name]
        try:
            said = ray.get(reference)
        except RayError as error:
            ray.kill(actor)
            del self._actors[name]
            self._send(name, "gone", _why(error))
            return
        with self._changing:
            self._waited[actor.said.remote()] = name
        self._send(name, "facts" if isinstance(said, Facts) else "said", said)

    def _send(self, name: str, kind: str, what: Any) -> None:
        with self._sending:
            self._connection.send((name, kind, what))

    def _receive(self) -> None:
        """Pass on what the search tells; end all when it is gone, wherever Ray is at."""
        while True:
            try:
                name, what = self._connection.recv()
            except (EOFError, OSError):
                break
            if not name:
                self._start()
            elif (actor := self._actors.get(name)) is not None:
                actor.tell.remote(what)
        self._leave()

    def _leave(self) -> None:
        """End everything that was started, and this process."""
        if self._wanted.folder is None and self._actors:
            threading.Timer(2 * LEAVE, os._exit, [0]).start()  # whatever becomes of the cluster
            actors = list(self._actors.values())
            left = [actor.leave.remote() for actor in actors]
            ray.wait(left, num_returns=len(left), timeout=LEAVE)
            for actor in actors:
                ray.kill(actor)
            ray.shutdown()
        end_session(os.getpid(), self._wanted.folder)
        os._exit(0)


def _why(error: Exception) -> str:
    """Why an actor is lost, as words that follow its name."""
    if isinstance(error, RayTaskError):  # from `said`: it has said why
        return "ended"
    text = str(error)
    for sign, words in (
        ("failed to import", "cannot be started, as its node lacks nex-merge or one of its libraries"),
        ("node has died", "was lost with its node"),
        ("worker process has died", "ended, as a process does that is killed or runs out of memory"),
    ):
        if sign in text:
            return words
    return f"was lost ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, with all that follows if it announces that."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines) if lines[0].endswith(":") else lines[0]


def main() -> None:
    Bridge(Connection(int(sys.argv[1]))).run()
