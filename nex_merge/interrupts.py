"""Ctrl-C and SIGTERM, which end the program the same way: work stops where it stands, and what is done is kept.

The handler raises `Interrupted` at once, so that forward passes, merges, waits and imports all end. To what Python does
by itself, it adds four things:

- An exception in a library's callback may be swallowed there. So it is raised again until it is seen to unwind the
  stack, and `check` raises it before a result is kept.
- `held` puts it off, so that a transaction is whole or not there.
- Where C code does not return, and at a second Ctrl-C, a thread of its own ends the process. Files of a run are
  replaced whole and a killed search goes on exactly, so that this loses no more than the work under way.
- The last line names the command that goes on.

Only the command line installs it. Imports next to nothing, so that it is there from the start.
"""

import _thread
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.5  # seconds after which an interrupt that got lost is raised again
SAME = 0.5  # seconds within which a second signal is the same one, passed on by a shell or a wrapper
LIMIT = 4.0  # seconds until the work has to have stopped
EXIT = 1.0  # seconds that Python may take to exit, which waits for threads

# Commands that go on where they were, and what rescores as a whole.
_RESUMED = ("search", "audit", "compare", "benchmark", "correlate", "rescore")
_ENDED = ("watch", "dashboard")  # those that show a run until they are interrupted


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM has arrived."""


class _State:
    is_installed = False
    is_working = False  # before and after, there is nothing to unwind
    number = 0  # of the signal that arrived first
    depth = 0  # of `held`
    has_stopped = False  # the work has; what is done is being ranked
    has_spoken = False
    deadline = float("inf")  # when the process is ended
    words: tuple[str, ...] = ()


_now = _State()


def install() -> None:
    """Take both signals over, except those that are ignored, as under nohup. Until `begin`, they end the program."""
    if _now.is_installed:
        return
    _now.is_installed, _now.words = True, tuple(sys.argv[1:])
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _arrived)
    sys.unraisablehook = _unraisable
    _thread.start_new_thread(_watch, (read,))


def begin() -> None:
    """From now on, the work is there to be stopped: signals raise `Interrupted`."""
    _now.is_working = True


def end() -> None:
    """The work is over, unless a signal got lost: then raise `Interrupted`."""
    _now.is_working = False
    check()


def arrived() -> bool:
    """Whether either signal has arrived."""
    return bool(_now.number)


def check() -> None:
    """Raise `Interrupted` if a signal has arrived and did not stop the work: in long loops, before a result is kept."""
    if _now.number and not _now.depth and not _now.has_stopped:
        raise Interrupted


def stopped() -> None:
    """The work has stopped because of a signal: nothing is raised any more, and ranking may take its time."""
    if _now.number:
        _now.has_stopped, _now.deadline = True, float("inf")


def finish() -> int:
    """Say how the command goes on. Returns the exit code: 130, or 143 after SIGTERM."""
    _now.number = _now.number or signal.SIGINT  # Ctrl-C as a character, where a prompt reads single keys
    _now.has_stopped, _now.deadline = True, time.monotonic() + EXIT
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # on its way out, Python would let them kill it, with another exit code
    _say()
    return 128 + _now.number


def forget_option(name: str) -> None:
    """The command goes on without this option."""
    _now.words = tuple(word for word in _now.words if word != name)


@contextmanager
def held() -> Iterator[None]:
    """Put both signals off until the block is left, also if it fails.

    In the main thread, where alone signals are handled. Without our handler, SIGINT goes to whichever there is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
    elif not _now.is_installed:
        with _held_back():
            yield
    else:
        _now.depth += 1
        try:
            yield
        finally:
            _now.depth -= 1
            check()


@contextmanager
def _held_back() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            signal.raise_signal(signal.SIGINT)


def _arrived(number: int, frame: FrameType | None) -> None:
    if not _now.is_working:
        _end(number)
    if _now.number:
        return  # the thread sees to a second one
    _now.number, _now.deadline = number, min(_now.deadline, time.monotonic() + LIMIT)
    signal.signal(signal.SIGALRM, _again)
    signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
    check()


def _again(number: int, frame: FrameType | None) -> None:
    """Raise it again unless it is being handled: `sys.exc_info` is that of the code at which the handler runs."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Interrupted):
            return
        error = error.__context__
    check()


def _unraisable(unraisable: Any) -> None:
    """Say nothing of an interrupt that was swallowed: it is raised again."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)


def _watch(read: int) -> None:
    """End the process at a second signal, or when its time is over. The descriptor has the numbers of signals."""
    first, number = 0.0, 0
    while True:
        if select.select([read], [], [], 0.1 if first else None)[0]:
            for number in filter(SIGNALS.__contains__, os.read(read, 64)):
                now = time.monotonic()
                if first and now - first > SAME:
                    _end(number)
                if not first:  # also where C code keeps the handler from running
                    first, _now.deadline = now, min(_now.deadline, now + LIMIT)
        if time.monotonic() > _now.deadline:
            _end(_now.number or number)


def _end(number: int) -> None:
    """End the process where it stands."""
    _say()
    os._exit(128 + number)


def _say() -> None:
    """The last line, once, written past buffers that another thread may be in."""
    if _now.has_spoken:
        return
    _now.has_spoken = True
    with suppress(OSError):
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""  # which a progress line hides
        os.write(2, f"{show_cursor}{_line()}\n".encode(errors="replace"))


def _line() -> str:
    from nex_merge.inert import shell_word
    from nex_merge.passwords import masked_setting

    begun = "nex-merge: interrupted; "
    name = _now.words[0] if _now.words else ""
    is_look = any(word in ("--dry-run", "--help", "-h") for word in _now.words)
    if name in _ENDED and not is_look:
        return "nex-merge: ended; the run is as it was"
    if name not in _RESUMED or is_look:
        return f"{begun}nothing of it is kept"
    # A password in a URL is not for screens and logs.
    words = map(masked_setting, _now.words)
    return f"{begun}what is done is kept. To go on: {' '.join(map(shell_word, ['nex-merge', *words]))}"
