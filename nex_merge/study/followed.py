"""The state of a search, put together from what observers are told."""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace

from nex_merge.records import Live, LiveWorker, TrialResult
from nex_merge.study.crew import TRIES
from nex_merge.study.observers import Observer
from nex_merge.wording import by_number


class Followed(Observer):
    """Knows which workers there are, what each is at, and how many trials are done."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self.workers: dict[str, LiveWorker] = {}
        self._waiting: set[str] = set()  # trials that are done and have not ended

    def live(self) -> Live:
        """The state now."""
        workers = sorted(self.workers.values(), key=lambda worker: by_number(worker.worker))
        waiting = len(self._waiting)
        return Live(self.done, self.total, waiting, workers, time.time(), platform.node(), os.getpid())

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        self.total, self.done = total, len(finished)

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        if trial is not None:
            now = time.time()
            self.workers[worker] = LiveWorker(worker, "busy", trial, "", tries, "merge", 0, now, now, now)
        elif tries == 0:
            # It takes the place of one that was lost, if any was.
            lost = next((name for name, other in self.workers.items() if other.state == "lost"), None)
            self.workers.pop(lost or "", None)
            self.workers[worker] = LiveWorker(worker, "idle")
        else:
            before = self.workers[worker]
            # The final has no ends of trials.
            if before.method != "final" and (before.state != "lost" or tries == TRIES):
                self._waiting.add(before.trial)
            if before.state != "lost":
                self.workers[worker] = replace(before, state="idle")

    def on_lost(self, worker: str, why: str) -> None:
        if worker in self.workers:  # it was ready once
            self.workers[worker] = replace(self.workers[worker], state="lost")

    def on_trial_start(self, trial: str, method: str) -> None:
        worker = self._at(trial)
        if worker is None:  # it is known without work
            self._waiting.add(trial)
        else:
            self.workers[worker.worker] = replace(worker, method=method)

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        worker = self._at(trial)
        if worker is not None:
            now = time.time()
            # A trial that answers in blocks begins to count anew with each.
            began = now if stage != worker.stage or amount < worker.amount else worker.stage_began
            self.workers[worker.worker] = replace(worker, stage=stage, amount=amount, stage_began=began, told=now)

    def on_trial_end(self, result: TrialResult) -> None:
        self._waiting.discard(result.trial)
        self.done += 1
        self.total = max(self.total, self.done)  # another search on the same study may add trials

    def _at(self, trial: str) -> LiveWorker | None:
        return next((one for one in self.workers.values() if one.trial == trial and one.state == "busy"), None)
