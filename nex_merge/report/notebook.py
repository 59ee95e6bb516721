"""What notebooks show: a run as the result of a cell, its figures, and a search as it goes."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from nex_merge import terminal
from nex_merge.errors import InputError, NexMergeError
from nex_merge.records import TrialResult
from nex_merge.report.data import take_snapshot
from nex_merge.report.page import about_pick, drawn
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import table_cells
from nex_merge.runs.working import head
from nex_merge.study.followed import Followed

if TYPE_CHECKING:
    from nex_merge.report.figures import Figure

MOST = 10  # rows
EVERY = 0.5  # seconds between two updates within a trial
SHARE = 0.05  # of the time that ranking anew may take; a large run takes seconds for it


def run_html(run: RunFolder) -> str:
    """A run, finished or not, in a few lines of HTML; what is damaged is said in its place. All text is escaped."""
    try:
        snapshot = take_snapshot(run)
        return _rendered(about_pick(snapshot) | _table(run, snapshot.rows), title=str(run.path))
    except NexMergeError as error:
        return _rendered({"error": str(error)}, title=str(run.path))


def figure_of(run: RunFolder, name: str) -> "Figure":
    """A figure of the report, by its name there. Raises InputError if the run has none of this name."""
    from nex_merge.report.figures import in_light_colours

    found = drawn(take_snapshot(run))
    if name not in found:
        raise InputError(
            f"plot: expected a figure that {run.path} has ({', '.join(found) or 'none yet'}), got {name!r}"
        )
    return in_light_colours(found[name])


class LiveTable(Followed):
    """The state of a search and its first ranks, in the output of the cell that runs it."""

    def __init__(self) -> None:
        super().__init__()
        self._run: RunFolder | None = None
        self._handle: Any = None
        self._parts: dict[str, Any] = {}
        self._notes: list[str] = []
        self._shown = self._ranked = 0.0  # when something was shown, and from when it may be ranked again

    def on_start(self, run: str, total: int, finished: Sequence[TrialResult]) -> None:
        super().on_start(run, total, finished)
        self._run = RunFolder(Path(run), note=lambda text: None)  # the search itself says what can't be checked
        self._rank()

    def on_note(self, text: str) -> None:
        self._notes.append(text)
        self._show()

    def on_stage(self, trial: str, stage: str, amount: int) -> None:
        super().on_stage(trial, stage, amount)
        if time.monotonic() - self._shown >= EVERY:
            self._show()

    def on_trial_end(self, result: TrialResult) -> None:
        super().on_trial_end(result)
        if time.monotonic() >= self._ranked:
            self._rank()
        else:
            self._show()

    def on_end(self, rows: Sequence[dict[str, Any]]) -> None:
        self.workers.clear()
        if self._run is not None:
            self._rank()

    def _rank(self) -> None:
        assert self._run is not None
        began = time.monotonic()
        self._parts = _table(self._run, read_rows(self._run))
        self._ranked = time.monotonic() + (time.monotonic() - began) / SHARE
        self._show()

    def _show(self) -> None:
        ipython = terminal.kernel()
        if ipython is None:
            return
        self._shown = time.monotonic()
        state = "  ".join(head(self.live())) if self.workers else f"{self.done} of {self.total} trials done"
        page = _rendered(self._parts, title="" if self._run is None else str(self._run.path), state=state,
                         notes=self._notes)  # fmt: skip
        bundle = {"text/html": page, "text/plain": state}
        if self._handle is None:
            self._handle = ipython.display.display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def _table(run: RunFolder, rows: Sequence[Any]) -> dict[str, Any]:
    """The first ranks as the terminal shows them."""
    columns, cells = table_cells(rows, run.objective.names) if rows else ([], [])
    return {"columns": columns, "cells": cells[:MOST], "more": max(len(cells) - MOST, 0)}


def _rendered(parts: dict[str, Any], **more: Any) -> str:
    environment = Environment(
        loader=PackageLoader("nex_merge", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    empty = {"state": "", "notes": [], "error": "", "lead": [], "columns": [], "verdict": "", "reasons": [],
             "other_verdicts": [], "cuts": [], "steps": [], "progress": ""}  # fmt: skip
    return environment.get_template("cell.html.jinja").render(empty | parts | more)
