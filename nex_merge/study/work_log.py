"""An observer that keeps what every worker did when, in the run folder, for the report."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nex_merge.records import Stint
from nex_merge.runs.work import append_stint
from nex_merge.study.observers import Observer


class WorkLog(Observer):
    """Writes a line of work.jsonl when a worker comes, and whenever one ends with a trial or is lost."""

    def __init__(self, run: Path) -> None:
        self._run, self._session = run, time.time()
        self._under_way: dict[str, Stint] = {}  # by worker
        self._stages: dict[str, tuple[str, float]] = {}  # by worker: the stage it is in, and since when

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        now = time.time()
        if trial is not None:
            self._under_way[worker] = Stint(self._session, worker, trial, "", tries, now, now, "")
            self._stages[worker] = "merge", now
        elif worker in self._under_way:
            self._end(worker, "done")
        elif tries == 0:
            append_stint(self._run, Stint(self._session, worker, "", "", 0, now, now, "ready"))

    def on_lost(self, worker: str, why: str) -> None:
        if worker in self._under_way:
            self._end(worker, "lost")
        else:
            now = time.time()
            append_stint(self._run, Stint(self._session, worker, "", "", 0, now, now, "lost"))

    def on_trial_start(self, trial: str, method: str) -> None:
        for worker, stint in self._under_way.items():
            if stint.trial == trial:
                self._under_way[worker] = replace(stint, method=method)

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        for worker, stint in self._under_way.items():
            if stint.trial == trial and self._stages[worker][0] != stage:
                self._under_way[worker] = self._in_stage(stint, stage)

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        for worker in list(self._under_way):
            self._end(worker, "stopped")

    def _in_stage(self, stint: Stint, stage: str) -> Stint:
        """The stint with what the stage that ends has taken."""
        now, (before, since) = time.time(), self._stages[stint.worker]
        self._stages[stint.worker] = stage, now
        return replace(stint, stages={**stint.stages, before: stint.stages.get(before, 0.0) + now - since})

    def _end(self, worker: str, how: str) -> None:
        stint = self._in_stage(self._under_way.pop(worker), "")
        append_stint(self._run, replace(stint, ended=stint.began + sum(stint.stages.values()), how=how))
