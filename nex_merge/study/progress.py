"""What a search tells of itself while it runs: on stderr, and in its run folder for those who watch.

A live line in a terminal, plain lines elsewhere.
"""

import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.status import Status

from nex_merge.records import Live, TrialResult
from nex_merge.runs import files

_UNITS = {"generate": "tokens", "capture": "responses"}


class Watcher:
    """Told when stages and trials begin and end; knows how many there will be."""

    def __init__(self, run: Path, total: int, done: int = 0, objective: str = "nex", sign: int = 1) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._total, self._done = total, done
        self._objective, self._sign = objective, sign
        self._status: Status | None = None
        self._trial, self._best = "", None
        self._beacon = Beacon(run, total)
        self._began = time.monotonic()
        self._here = 0  # trials finished by this process, which the time left is reckoned from

    def __enter__(self) -> "Watcher":
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._beacon.stop()
        if self._status is not None:
            self._status.stop()

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, trial: str, name: str) -> None:
        self._trial = trial if trial == name or name in ("base", "parent") else f"{trial} ({name})"
        self._beacon.begin(trial, name, self._done)

    def stage(self, stage: str, done: int) -> None:
        self._beacon.stage(stage, done)
        if self._status is not None:
            amount = f" {done} {_UNITS[stage]}" if stage in _UNITS else ""
            self._status.update(f"[{self._done}/{self._total}] trial {self._trial}: {stage}{amount}")

    def end(self, result: TrialResult) -> None:
        self._done += 1
        self._here += 1
        score = result.value(self._objective) if result.state == "complete" else None
        if score is not None and (self._best is None or self._sign * (score - self._best[0]) > 0):
            self._best = (score, result.trial)
        found = f"{self._objective} {score:.4f}" if score is not None else f"{result.state}: {result.reason}"
        best = f", best {self._best[0]:.4f} (trial {self._best[1]})" if self._best is not None else ""
        left = (self._total - self._done) * (time.monotonic() - self._began) / self._here
        self.note(
            f"[{self._done}/{self._total}] trial {result.trial} {result.method}: {found}, "
            f"{sum(result.seconds.values()):.1f} s{best}, {duration(left)} left"
        )
        sys.stderr.flush()


class Beacon:
    """Tells whoever looks into the run folder what the search is at.

    Nothing is written before the first trial begins: until then the folder may be another search's.
    """

    EVERY = 0.5  # seconds between two notes of the same stage

    def __init__(self, run: Path, total: int) -> None:
        self._run, self._total = run, total
        self._live: Live | None = None

    def begin(self, trial: str, method: str, done: int) -> None:
        now = time.time()
        process, host = os.getpid(), platform.node()
        self._tell(Live(done, self._total, trial, method, "merge", 0, now, now, now, host, process))

    def stage(self, stage: str, amount: int) -> None:
        if self._live is None:
            return
        now = time.time()
        if stage != self._live.stage or amount < self._live.amount:
            self._tell(replace(self._live, stage=stage, amount=amount, stage_began=now, told=now))
        elif now - self._live.told >= self.EVERY:
            self._tell(replace(self._live, amount=amount, told=now))

    def stop(self) -> None:
        if self._live is not None:
            files.write_live(self._run, None)

    def _tell(self, live: Live) -> None:
        self._live = live
        files.write_live(self._run, live)


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
