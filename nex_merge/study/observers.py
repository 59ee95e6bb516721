"""Callbacks of a search, for progress bars, live views and experiment trackers."""

import logging
from collections.abc import Sequence
from typing import Any

from nex_merge.records import TrialResult

_logger = logging.getLogger(__name__)


class Observer:
    """Callbacks of a search. Override what you need; all methods do nothing by default.

    An observer's first exception is logged; none ends the search. Methods are called in order from the thread of the
    search, which waits for them.
    """

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        """The search starts in its run folder, with the total number of trials and those already finished."""

    def on_note(self, text: str) -> None:
        """An informational message."""

    def on_trial_start(self, trial: str, method: str) -> None:
        """A trial starts, once for every try: `base`, a parent's name or a merge's number; its method (`base`, …).

        With `study.parallel` above 1, others may start before it ends.
        """

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        """A trial's stage (merge, generate, capture, score), and tokens generated or responses captured so far."""

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        """A worker begins with a trial, for the first time or again (`tries`).

        None: it is done with it, or lost; with 0 tries, it has become ready for its first.
        """

    def on_lost(self, worker: str, why: str) -> None:
        """A worker is lost, for a reason in words that follow its name. Its trial, if any, is tried again or failed."""

    def on_trial_end(self, result: TrialResult) -> None:
        """A trial is finished, in whatever state, and on disk."""

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        """The search ends, with the leaderboard's rows, best first (none if it did not complete)."""


class Observers(Observer):
    """Calls several observers and catches their exceptions."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)
        self._failed: set[int] = set()
        self.trial = ""  # the running one

    def _call(self, name: str, *arguments: Any) -> None:
        for observer in self._observers:
            try:
                getattr(observer, name)(*arguments)
            # A faulty tracker must not cost hours of trials.
            except Exception as error:
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    _logger.warning(
                        "observer %s failed in %s (%s: %s); the search continues, and later failures are not logged",
                        type(observer).__name__, name, type(error).__name__, error,
                    )  # fmt: skip

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        self._call("on_start", run, total, finished)

    def on_note(self, text: str) -> None:
        self._call("on_note", text)

    def on_trial_start(self, trial: str, method: str) -> None:
        self.trial = trial
        self._call("on_trial_start", trial, method)

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        self._call("on_stage", trial, stage, amount)

    def on_worker(self, worker: str, trial: str | None, tries: int) -> None:
        self._call("on_worker", worker, trial, tries)

    def on_lost(self, worker: str, why: str) -> None:
        self._call("on_lost", worker, why)

    def on_trial_end(self, result: TrialResult) -> None:
        self.trial = ""
        self._call("on_trial_end", result)

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        self._call("on_end", rows)
