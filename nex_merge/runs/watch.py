"""A running search, watched from outside: everything comes from its run folder, and nothing is written."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console, Group
from rich.live import Live as LiveScreen
from rich.text import Text

from nex_merge.runs import files
from nex_merge.runs.leaderboard import Objective, Row, objective_of, ranking_table, read_rows
from nex_merge.labels.plots import curve_text
from nex_merge.study.progress import duration
from nex_merge.records import Live

EVERY = 1.0  # seconds between two looks
SILENT = 60.0  # seconds after which a search on another host counts as gone, since its process can't be asked for
CURVE = 8  # lines


@dataclass(frozen=True)
class View:
    """What a run folder shows at a moment."""

    rows: tuple[Row, ...]  # best first
    total: int  # trials that were asked for
    objective: Objective
    live: Live | None  # None: no search is at work

    @property
    def by_time(self) -> list[Row]:
        """Merges in the order in which they were tried."""
        return sorted((row for row in self.rows if row["kind"] == "merge"), key=lambda row: row["trial"])


def look(run: Path) -> View:
    """What the folder shows now. Raises InputError where it is no run folder."""
    settings = files.read_settings(run)
    baselines = 1 + len(settings["models"] or settings["resolved"]["family"]["models"])
    total = settings["study"]["trials"] + (baselines if settings["study"]["baselines"] else 0)
    live = files.read_live(run)
    live = live if live is not None and at_work(live) else None
    return View(tuple(read_rows(run)), total, objective_of(settings["study"]), live)


def at_work(live: Live) -> bool:
    """Whether the search that told this still runs, as a killed one leaves its last note behind."""
    if live.host != platform.node():
        return time.time() - live.told < SILENT
    try:
        # A number that another process has been given since began after the note was written.
        return psutil.Process(live.process).create_time() <= live.trial_began
    except psutil.NoSuchProcess:
        return False


def seconds_left(view: View) -> float | None:
    """What the trials that are left will take if they take as long as the merges so far; None before any trial.

    Before the first merge base and parents stand in, which answer as many prompts.
    """
    scored = [row for row in view.rows if row["state"] in files.SCORED]
    times = [row["seconds"] for row in scored if row["kind"] == "merge"] or [row["seconds"] for row in scored]
    if view.live is None or not times:
        return None
    mean = sum(times) / len(times)
    begun = time.time() - view.live.trial_began
    return max(mean - begun, 0) + mean * (view.live.total - view.live.done - 1)


def best_so_far(values: Sequence[float | None], sign: int) -> list[float | None]:
    """The best of the values up to each place; None before the first."""
    best: list[float | None] = []
    for value in values:
        before = best[-1] if best else None
        known = [v for v in (before, value) if v is not None]
        best.append(max(known, key=lambda v: sign * v) if known else None)
    return best


def status(view: View) -> str:
    """One line: which trial is at which stage, how fast, how long still."""
    live = view.live
    if live is None:
        return f"{len(view.rows)} of {view.total} trials done; no search is at work in this folder"
    what = live.trial if live.method in ("base", "parent") else f"{live.trial} ({live.method})"
    parts = [f"[{live.done}/{live.total}] trial {what}: {live.stage}"]
    elapsed = live.told - live.stage_began
    if live.stage == "generate" and live.amount:
        speed = f", {live.amount / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
        parts.append(f"{live.amount:,} tokens{speed}")
    elif live.stage == "capture":
        parts.append(f"{live.amount} responses")
    left = seconds_left(view)
    parts.append("time left: known after the first trial" if left is None else f"about {duration(left)} left")
    return "  ".join(parts)


def screen(run: Path, view: View, width: int, top: int) -> Group:
    """Title, status, the objective over trials, and the best rows."""
    name = view.objective.name
    values = [row[name] if row["state"] == "complete" else None for row in view.by_time]
    parts: list[object] = [Text(str(run), style="bold"), Text(status(view))]
    curve = curve_text(values, best_so_far(values, view.objective.sign), width - 10, CURVE)
    if curve:
        parents = [row[name] for row in view.rows if row["kind"] == "parent" and row["state"] == "complete"]
        known = best_so_far(parents, view.objective.sign)
        parent = f"; best parent {known[-1]:.4f}" if known and known[-1] is not None else ""
        parts += [Text(), Text(f"{name} over merges (o), best so far (-){parent}", style="dim"), Text(curve)]
    if view.rows:
        parts += [Text(), ranking_table(view.rows[:top])]
        if len(view.rows) > top:
            parts.append(Text(f"... {len(view.rows) - top} more", style="dim"))
    else:
        parts += [Text(), Text("no trial is done yet")]
    return Group(*parts)  # pyright: ignore[reportArgumentType]


def watch(run: Path, once: bool, top: int) -> None:
    """Show the run until its search ends; only once if asked, if stdout is no terminal, or if none is at work."""
    console = Console(highlight=False)
    view = look(run)
    if once or view.live is None or not console.is_terminal:
        console.print(screen(run, view, console.width if console.is_terminal else 80, top))
        return
    with LiveScreen(console=console, auto_refresh=False, vertical_overflow="crop") as shown:
        while view.live is not None:
            # Title, status, curve and the lines between take what the table leaves.
            rows = min(top, max(console.height - CURVE - 8, 1))
            shown.update(screen(run, view, console.width, rows), refresh=True)
            time.sleep(EVERY)
            view = look(run)
        shown.update(screen(run, view, console.width, top), refresh=True)
