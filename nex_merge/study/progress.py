"""Observers that report progress: on stderr, and in the run folder for `nex-merge watch`."""

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.status import Status
from rich.text import Text

from nex_merge import interrupts, terminal
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES
from nex_merge.records import Live, TrialResult
from nex_merge.runs import files
from nex_merge.runs.watch import duration
from nex_merge.setup.paths import command
from nex_merge.study.observers import Observer
from nex_merge.wording import counted, fitted

_UNITS = {"generate": "token", "capture": "response"}


class Progress(Observer):
    """A live line in a terminal, plain lines elsewhere."""

    def __init__(self, objective: Objective) -> None:
        self._console = terminal.console(err=True)
        self._objective = objective
        self._total = self._done = 0
        self._status: Status | None = None
        self._trial = ""
        self._began = time.monotonic()
        self._here = 0  # trials finished by this process, for estimating the time left

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        self._total, self._done = total, len(finished)
        if self._done < total:
            self.on_note(f"the ranking so far, from another terminal: {command('watch', Path(run))}")
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        if self._status is not None:
            self._status.stop()

    def on_note(self, text: str) -> None:
        text = fitted(text, self._console.width) if self._console.is_terminal else text
        self._console.print(text, markup=False, soft_wrap=True)

    def on_trial_start(self, trial: str, method: str) -> None:
        self._trial = files.trial_in_words(trial, method)

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        interrupts.forget_option("--fresh")  # the new run has begun: what goes on with it would begin another one
        if self._status is not None:
            shown = f" {counted(amount, _UNITS[stage])}" if stage in _UNITS else ""
            # As Text: rich takes a plain string here for markup, whatever its console is told.
            self._status.update(Text(f"[{self._done}/{self._total}] {self._trial}: {stage}{shown}"))

    def on_trial_end(self, result: TrialResult) -> None:
        self._done += 1
        self._here += 1
        self._total = max(self._total, self._done)  # another search on the same study may add trials
        name = self._objective.name
        # No best so far: the values of earlier trials may change with every variant that joins the pool.
        if result.state == "complete" and result.value(name) is not None:
            shown = ", ".join(_shown(one, result) for one in self._objective.names)
        else:  # the first variant has no others to be compared with
            shown = f"{result.state}: {result.reason}" if result.reason else f"{name} not defined yet"
        kind = result.method if result.kind == "merge" else result.kind
        left = (self._total - self._done) * (time.monotonic() - self._began) / self._here
        self.on_note(
            f"[{self._done}/{self._total}] {files.trial_in_words(result.trial, kind)}: {shown}, "
            f"{sum(result.seconds.values()):.1f} s, {duration(left)} left"
        )
        sys.stderr.flush()


def _shown(name: str, result: TrialResult) -> str:
    value = result.value(name)
    if value is None:
        return f"{name} not defined yet"
    # A value against the pool changes with every variant that joins it.
    return f"{name} {value:.{MEASURES[name].digits}f}{' so far' if MEASURES[name].needs_pool else ''}"


class Beacon(Observer):
    """Keeps live.json in the run folder up to date, for `nex-merge watch`."""

    EVERY = 0.5  # seconds between two updates within a stage

    def __init__(self, run: Path) -> None:
        self._run = run
        self._total = self._done = 0
        self._live: Live | None = None

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        self._total, self._done = total, len(finished)

    def on_trial_start(self, trial: str, method: str) -> None:
        now = time.time()
        process, host = os.getpid(), platform.node()
        self._publish(Live(self._done, self._total, trial, method, "merge", 0, now, now, now, host, process))

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        if self._live is None:
            return
        now = time.time()
        if stage != self._live.stage or amount < self._live.amount:
            self._publish(replace(self._live, stage=stage, amount=amount, stage_began=now, told=now))
        elif now - self._live.told >= self.EVERY:
            self._publish(replace(self._live, amount=amount, told=now))

    def on_trial_end(self, result: TrialResult) -> None:
        self._done += 1
        self._total = max(self._total, self._done)

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        if self._live is not None:
            files.write_live(self._run, None)

    def _publish(self, live: Live) -> None:
        self._live = live
        files.write_live(self._run, live)
