"""Observers that report progress: on stderr, in a log file, and in the run folder for `nex-merge watch`."""

import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from nex_merge import interrupts, terminal
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES
from nex_merge.records import LiveWorker, TrialResult
from nex_merge.runs import files
from nex_merge.runs.watch import duration
from nex_merge.runs.working import head, time_left, worker_lines
from nex_merge.setup.paths import command
from nex_merge.study.followed import Followed
from nex_merge.wording import counted, fitted

_UNITS = {"generate": "token", "capture": "response"}


class Progress(Followed):
    """A live line in a terminal, with one for each of several workers; plain lines elsewhere."""

    def __init__(self, objective: Objective, console: Console | None = None, with_stages: bool = False) -> None:
        """`console`: where it reports, by default on stderr. `with_stages`: a trial's line has the seconds of each."""
        super().__init__()
        self._console = terminal.console(err=True) if console is None else console
        self._objective, self._with_stages = objective, with_stages
        self._status: Status | None = None
        self._began = time.monotonic()
        self._spent: dict[str, list[float]] = {}  # seconds of the trials that this process has finished, by kind

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        super().on_start(run, total, finished)
        self._began = time.monotonic()
        if self.done < total:
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

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        super().on_worker(worker, trial, tries)
        if trial is None and len(self.workers) > 1:  # with one, its start follows
            self._show()

    def on_trial_start(self, trial: str, method: str) -> None:
        super().on_trial_start(trial, method)
        if len(self.workers) > 1:
            self._show()

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        super().on_stage(trial, stage, amount)
        interrupts.forget_option("--fresh")  # the new run has begun: what goes on with it would begin another one
        self._show()

    def _show(self) -> None:
        if self._status is None:
            return
        if len(self.workers) > 1:
            live, width = self.live(), self._console.width
            lines = ["  ".join(head(live)), *worker_lines(live.workers, width, max(self._console.height // 3, 4))]
        else:
            lines = [self._line(worker) for worker in self.workers.values()]
        # As Text: rich takes a plain string here for markup, whatever its console is told.
        self._status.update(Text("\n".join(lines)))

    def _line(self, worker: LiveWorker) -> str:
        shown = f" {counted(worker.amount, _UNITS[worker.stage])}" if worker.stage in _UNITS else ""
        trial = files.trial_in_words(worker.trial, worker.method)
        return f"[{self.done}/{self.total}] {trial}: {worker.stage}{shown}"

    def on_trial_end(self, result: TrialResult) -> None:
        super().on_trial_end(result)
        self._spent.setdefault(result.kind, []).append(sum(result.seconds.values()))
        name = self._objective.name
        # No best so far: the values of earlier trials may change with every variant that joins the pool.
        if result.state == "complete" and result.value(name) is not None:
            shown = ", ".join(_shown(one, result) for one in self._objective.names)
        else:  # the first variant has no others to be compared with
            shown = f"{result.state}: {result.reason}" if result.reason else f"{name} not defined yet"
        kind = result.method if result.kind == "merge" else result.kind
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
        self.on_note(
            f"[{self.done}/{self.total}] {files.trial_in_words(result.trial, kind)}: {shown}, "
            f"{sum(result.seconds.values()):.1f} s{f' ({stages})' * self._with_stages}, "
            f"{duration(self._left())} left"
        )

    def _left(self) -> float:
        """Estimated seconds: what merges have taken; before there is one, what parents took.

        They are drafted from base and one another as merges are from all of them, while nothing drafts base. Of one
        worker what passes between its trials is known as well.
        """
        spent = next(self._spent[kind] for kind in ("merge", "parent", "base") if kind in self._spent)
        each = mean(spent)
        if len(self.workers) > 1:
            return time_left(self.live(), each, time.time())
        passed, finished = time.monotonic() - self._began, list(chain(*self._spent.values()))
        between = (passed - sum(finished)) / len(finished)
        return (self.total - self.done) * (each + between)


def _shown(name: str, result: TrialResult) -> str:
    value = result.value(name)
    if value is None:
        return f"{name} not defined yet"
    # A value against the pool changes with every variant that joins it.
    return f"{name} {value:.{MEASURES[name].digits}f}{' so far' if MEASURES[name].needs_pool else ''}"


class LogFile(Progress):
    """Progress as plain lines in a file, each with its time."""

    def __init__(self, objective: Objective, file: TextIO) -> None:
        super().__init__(objective, terminal.console(file=file), with_stages=True)

    def on_note(self, text: str) -> None:
        super().on_note(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


class Beacon(Followed):
    """Keeps live.json in the run folder up to date, for `nex-merge watch`."""

    EVERY = 0.5  # seconds between two updates within a stage

    def __init__(self, run: Path) -> None:
        super().__init__()
        self._run = run
        self._told: float | None = None  # when it was last updated; None: never, the folder may be another search's

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        super().on_worker(worker, trial, tries)
        if trial is None:  # with one, its start follows
            self._publish_again()

    def on_lost(self, worker: str, why: str) -> None:
        super().on_lost(worker, why)
        self._publish_again()

    def on_trial_start(self, trial: str, method: str) -> None:
        super().on_trial_start(trial, method)
        self._publish()

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        before = {worker.worker: worker.stage_began for worker in self.workers.values()}
        super().on_stage(trial, stage, amount)
        is_new = before != {worker.worker: worker.stage_began for worker in self.workers.values()}
        if is_new or (self._told is not None and time.time() - self._told >= self.EVERY):
            self._publish_again()

    def on_trial_end(self, result: TrialResult) -> None:
        super().on_trial_end(result)
        self._publish_again()

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        if self._told is not None:
            files.write_live(self._run, None)

    def _publish(self) -> None:
        live = self.live()
        self._told = live.told
        files.write_live(self._run, live)

    def _publish_again(self) -> None:
        if self._told is not None:
            self._publish()
