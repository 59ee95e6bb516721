"""Timing two ways of the same work, alternating, and what of it is kept."""

import ctypes
import gc
import os
import platform
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import psutil


@dataclass
class Comparison:
    """Seconds of the baseline and of ours, in the order they were taken; the ratio is of their medians."""

    what: str
    against: str
    baseline: list[float]
    ours: list[float]
    goal: str
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return median(self.baseline) / median(self.ours)

    def row(self) -> dict[str, Any]:
        return {
            "what": self.what, "against": self.against, "runs": len(self.baseline),
            "baseline_seconds": self.baseline, "our_seconds": self.ours, "ratio": self.ratio, "goal": self.goal,
            **self.notes,
        }  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def alternating(
    what: str, against: str, baseline: Callable[[], Any], ours: Callable[[], Any], goal: str, runs: int = 5
) -> Comparison:
    """Baseline, ours, baseline, ours, ..."""
    found = Comparison(what, against, [], [], goal)
    for _ in range(runs):
        found.baseline.append(timed(baseline)[0])
        found.ours.append(timed(ours)[0])
    return found


class PeakMemory:
    """The largest memory of this process while the context lasts, in bytes, sampled every 20 ms.

    `own` counts what no file backs (mapped checkpoints and ranks do not count), `resident` everything, and `before` is
    what was the process's own to begin with. What earlier work freed is given back first: used again, it would hide.
    """

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        if platform.system() == "Linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        info = psutil.Process().memory_info()
        self.before = self.own = info.rss - info.shared
        self.resident = info.rss
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process(os.getpid())
        while not self._ended.is_set():
            info = process.memory_info()
            self.resident = max(self.resident, info.rss)
            self.own = max(self.own, info.rss - info.shared)
            self._ended.wait(0.02)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def children_peak() -> int:
    """The largest resident memory of any ended child process, bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
