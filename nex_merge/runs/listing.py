"""The run folders near by, a line each, as `nex-merge` alone lists them.

Reads the files that hold the outcome, and neither trials nor databases: a listing must not take long, or fail for one
folder among many.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge.errors import InputError
from nex_merge.measures.registry import MEASURES, NEX, measure_title
from nex_merge.runs import files
from nex_merge.runs.results import read_reliability
from nex_merge.runs.watch import at_work

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Listed:
    """A run in a line."""

    path: Path
    family: str
    state: str  # running | finished | stopped | damaged
    trials: str  # done, and of how many
    best: str
    verdict: str


def listed(path: Path) -> Listed:
    """What the files of a run folder say."""
    try:
        return _listed(path)
    except (InputError, OSError, ValueError, TypeError, AttributeError, KeyError):
        return Listed(path, "-", "damaged", "-", "-", "-")


def _listed(path: Path) -> Listed:
    config = files.read_yaml_mapping(path / files.CONFIG)
    study, resolved, family = config.get("study") or {}, config.get("resolved") or {}, config.get("family")
    models = config.get("models") or (resolved.get("family") or {}).get("models") or ()
    planned = study.get("trials", 0) + (1 + len(models) if study.get("baselines", True) else 0)
    done = sum(1 for _ in (path / files.TRIALS).glob(f"*/{files.RESULT}"))
    live = files.read_live(path)
    state = "running" if live is not None and at_work(live) else "finished" if done >= planned else "stopped"
    best, verdict = _outcome(path, [*(study.get("objectives") or [study.get("objective", NEX.name)])])
    name = Path(family).stem if isinstance(family, str) else "custom"
    return Listed(path, name, state, f"{done} of {max(planned, done)}", best, verdict)


def _outcome(path: Path, objectives: Sequence[str]) -> tuple[str, str]:
    """What is recommended, and the verdict behind it; where nothing is, the verdicts on the objectives."""
    board, reliability = path / "leaderboard.json", read_reliability(path)
    rows: list[Mapping[str, Any]] = json.loads(files.read_utf8(board)) if board.is_file() else []
    if reliability is None or not rows:
        return "-", "-"
    for row in rows:
        if by := row.get("recommended"):
            verdict, value = reliability.of(by), f"{row[by]:.{MEASURES[by].digits}f}"
            trial = files.trial_label(row["trial"])
            return f"trial {trial}, {measure_title(by)} {value}", "-" if verdict is None else verdict.level
    found = map(reliability.of, objectives)
    return "none", ", ".join(dict.fromkeys(verdict.level for verdict in found if verdict is not None)) or "-"


def as_table(runs: Iterable[Listed]) -> "Table":
    """The runs, a row each."""
    from rich.text import Text

    from nex_merge import terminal

    left = ("run", "family", "state", "trials", "recommended", "verdict")
    table = terminal.table(*left, left=left, no_wrap=False)
    for run in runs:
        cells = (str(run.path), run.family, run.state, run.trials, run.best, run.verdict)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    return table
