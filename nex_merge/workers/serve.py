"""A worker: `python -m nex_merge.workers.serve DESCRIPTOR`, started by `processes.py`, which it talks to.

It ends when the other end of its connection is closed, also in the middle of a job: so none outlives its search,
however that ends.
"""

import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from nex_merge.engines.contracts import Engine
from nex_merge.errors import TrialError
from nex_merge.wording import first_line
from nex_merge.workers.job import Answered, Job, perform

EVERY = 0.25  # seconds between two reports within a stage


@dataclass(frozen=True)
class Setup:
    """What a worker is told before its first job."""

    make: Callable[[], Engine]  # its engine
    orders: Path | None = None  # where orders of weights are kept, for all workers of a machine


def opened(setup: Setup) -> Engine:
    """A worker's engine. Raises whatever making one raises."""
    engine = setup.make()
    if engine.family_weights is not None and setup.orders is not None:
        engine.family_weights.keep_ranks(setup.orders)
    return engine


def is_lost(error: Exception) -> str | None:
    """Whether an error is one of the machine that a job was done on, as words that follow a worker's name."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"ran out of memory ({first_line(error)})"
    if isinstance(error, torch.AcceleratorError):
        return f"lost its device ({first_line(error)})"
    return None


def portable(error: Exception) -> Exception:
    """An error as it can be sent, with its traceback here as its cause's text."""
    text = "".join(traceback.format_exception(error))
    try:
        found = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error's own class makes of it
        found = None
    if not isinstance(found, Exception) or str(found) != str(error):
        found = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
    found.add_note(f"in a worker:\n{text}")
    return found


class _Notes(logging.Handler):
    """What is logged as a warning, sent on."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send("note", self.format(record))


def serve(connection: Connection) -> None:
    """Do jobs until the connection is closed."""
    received: SimpleQueue[bytes] = SimpleQueue()
    sending = threading.Lock()

    def send(kind: str, what: Any) -> None:
        with sending:
            connection.send((kind, what))

    def receive() -> None:
        while True:
            try:
                # Read by the main thread: what is in it imports modules, which two threads must not at once.
                received.put(connection.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # nobody is there to be told anything

    threading.Thread(target=receive, name="receiver", daemon=True).start()
    logging.getLogger("nex_merge").addHandler(_Notes(send))
    import nex_merge.engines.transformers  # noqa: F401  slow, and needed by most; while the search is rehearsed

    try:
        engine = opened(pickle.loads(received.get()))
    except Exception as error:  # whatever it is, the search has to be told
        send("fault", portable(error))
        return
    send("ready", None)
    while True:
        kind, what = _outcome(pickle.loads(received.get()), engine, send)
        send(kind, what)
        if kind == "lost":
            return


def _outcome(job: Job, engine: Engine, send: Callable[[str, Any], None]) -> tuple[str, Answered | Exception | str]:
    last = (0.0, "")

    def notify(stage: str, amount: int) -> None:
        nonlocal last
        now = time.monotonic()
        if stage != last[1] or now - last[0] >= EVERY:
            last = (now, stage)
            send("progress", (stage, amount))

    try:
        return "done", perform(job, engine, notify)
    except TrialError as error:
        return "done", error
    except Exception as error:  # of the program or of the machine
        why = is_lost(error)
        return ("lost", why) if why is not None else ("done", portable(error))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the search's, whose end is the end of this
    serve(Connection(int(sys.argv[1])))
