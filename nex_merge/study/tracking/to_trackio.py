"""A search in trackio: a group of runs, one for the search and one for each trial, in a project."""

import json
import warnings
from pathlib import Path
from typing import Any

import trackio

from nex_merge.runs import files
from nex_merge.runs.leaderboard import LEADERBOARD_FILES
from nex_merge.study.tracking.told import Entry, Task


class Trackio:
    """Writes to the folder of TRACKIO_DIR, or wherever trackio's own variables send it."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._heard: list[str] = []
        # It drops what it can't keep, and says so in a warning.
        warnings.simplefilter("always")
        warnings.showwarning = self._hear

    def _hear(self, message: Warning | str, *about: Any) -> None:
        if "trackio" in str(message).lower():
            self._heard.append(str(message))

    def begin(self, known: str | None) -> str:
        if known is None:
            self._log(self._task.study, {}, {}, self._task.run / files.CONFIG, "configuration")
        return self._task.study

    def tell(self, entry: Entry, known: str | None) -> str:
        name = f"{self._task.study}-{entry.trial}"
        recipe = None if known is not None else entry.recipe
        self._log(name, entry.metrics, {**entry.settings, "state": entry.state}, recipe, "recipe", entry.pool)
        return name

    def end(self, leaderboard: Path | None, complete: bool) -> None:
        if leaderboard is not None:
            rows = json.loads((leaderboard.parent / LEADERBOARD_FILES[1]).read_text(encoding="utf-8"))
            self._log(self._task.study, {"leaderboard": trackio.Table(data=rows)}, self._task.settings)

    def _log(
        self,
        name: str,
        metrics: Any,
        settings: Any,
        file: Path | None = None,
        kind: str = "",
        step: int | None = None,
    ) -> None:
        """Log to a run, a new one or one that is there. Raises RuntimeError if trackio did not keep it."""
        run = trackio.init(
            project=self._task.target, name=name, group=self._task.study, config=dict(settings), resume="allow",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        if metrics:
            run.log(dict(metrics), step=step)
        if file is not None:
            run.log_artifact(file, name=f"{name}-{kind}", type=kind)
        run.finish()
        if self._heard:
            raise RuntimeError(self._heard[0])
