"""The seam for progress bars, live views and experiment trackers: what a search tells those who follow it."""

import logging
from collections.abc import Sequence
from typing import Any

from nex_merge.records import TrialResult

_logger = logging.getLogger(__name__)


class Observer:
    """Follows a search. Override what you need; everything does nothing by default.

    An observer's failure is logged once and never ends a search. Calls come from the search's own thread, in order;
    what takes long delays the search.
    """

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        """The search has its run folder: how many trials there will be, and those that were finished before."""

    def on_note(self, text: str) -> None:
        """Something worth telling that is no error."""

    def on_trial_start(self, trial: str, method: str) -> None:
        """A trial begins: base, a parent or the number of a merge; its merge method (base, parent)."""

    def on_stage(self, stage: str, amount: int) -> None:
        """The stage at work (merge, generate, capture, score), and tokens generated or responses captured so far."""

    def on_trial_end(self, result: TrialResult) -> None:
        """A trial is finished and on disk, whatever came of it."""

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        """The search is over, finished or not; the leaderboard's rows, best first (none before there are any)."""


class Observers(Observer):
    """Passes everything on to several observers and contains their failures."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)
        self._failed: set[int] = set()
        self.trial = ""  # the one under way

    def _call(self, name: str, *arguments: Any) -> None:
        for observer in self._observers:
            try:
                getattr(observer, name)(*arguments)
            # Whatever a tracker does wrong, hours of trials must not be lost for it.
            except Exception as error:
                if id(observer) not in self._failed:
                    self._failed.add(id(observer))
                    _logger.warning(
                        "observer %s failed in %s (%s: %s); the search goes on, and its later failures are not shown",
                        type(observer).__name__, name, type(error).__name__, error,
                    )  # fmt: skip

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        self._call("on_start", run, total, finished)

    def on_note(self, text: str) -> None:
        self._call("on_note", text)

    def on_trial_start(self, trial: str, method: str) -> None:
        self.trial = trial
        self._call("on_trial_start", trial, method)

    def on_stage(self, stage: str, amount: int) -> None:
        self._call("on_stage", stage, amount)

    def on_trial_end(self, result: TrialResult) -> None:
        self.trial = ""
        self._call("on_trial_end", result)

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        self._call("on_end", rows)
