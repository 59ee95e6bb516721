"""Shows a running search from its run folder, without writing to it."""

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from rich.console import Group
from rich.live import Live as LiveScreen
from rich.text import Text

from nex_merge import terminal
from nex_merge.measures.estimates import Objective
from nex_merge.records import Live
from nex_merge.runs import files
from nex_merge.runs.advice import lead
from nex_merge.runs.front import reference_in_words, volume_over
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import ranking_table
from nex_merge.runs.working import head, time_left, worker_lines
from nex_merge.wording import counted, wrapped

EVERY = 1.0  # seconds between updates
SILENT = 60.0  # seconds without an update after which a search on another host counts as gone
CURVE = 8  # lines


@dataclass(frozen=True)
class View:
    """A snapshot of a run folder."""

    rows: tuple[Row, ...]  # best first
    searched: tuple[Row, ...]  # the search's own ranking: without a final, the same
    total: int  # trials planned
    objective: Objective
    live: Live | None  # None: no search is running
    told: str = ""  # once none is running, what is recommended

    @property
    def by_time(self) -> list[Row]:
        """Merges in the order of their trials, with the values of the search."""
        return sorted((row for row in self.searched if row.kind == "merge"), key=lambda row: int(row.trial))


def look(run: RunFolder) -> View:
    """A snapshot of the folder now."""
    live = files.read_live(run.path)
    live = live if live is not None and at_work(live) else None
    rows, searched = tuple(read_rows(run)), tuple(read_rows(run, final=False))
    # A run may have more trials than were last asked for.
    total = max(run.config.study.trials + run.baselines, len(rows))
    told = next(lead(rows, run.objective, read_reliability(run.path))) if live is None and rows else ""
    return View(rows, searched, total, run.objective, live, told)


def at_work(live: Live) -> bool:
    """Whether the search that published this state is still running; a killed one leaves its live.json behind."""
    if live.host != platform.node():
        return time.time() - live.told < SILENT
    try:
        # If the process id was reused, the new process started after what this one told.
        return psutil.Process(live.process).create_time() <= live.told
    except psutil.NoSuchProcess:
        return False


def seconds_left(view: View) -> float | None:
    """Estimated time of the remaining trials, from the mean of the merges so far; None before any trial.

    Before the first merge, the mean of base and parents is used; they answer the same prompts.
    """
    scored = [row for row in view.rows if row.state in files.SCORED]
    times = [row.seconds for row in scored if row.kind == "merge"] or [row.seconds for row in scored]
    if view.live is None or not times:
        return None
    return time_left(view.live, sum(times) / len(times), time.time())


def best_so_far(values: Sequence[float | None], sign: int) -> list[float | None]:
    """The running best of the values; None before the first."""
    best: list[float | None] = []
    for value in values:
        previous = best[-1] if best else None
        defined = [v for v in (previous, value) if v is not None]
        best.append(max(defined, key=lambda v: sign * v) if defined else None)
    return best


def status(view: View) -> str:
    """One line: trial and stage, or of several workers how many; speed, time left."""
    live = view.live
    if live is None:
        return f"{len(view.rows)} of {counted(view.total, 'trial')} done; no search is running in this folder"
    left = seconds_left(view)
    until = "time left: available after the first trial" if left is None else f"about {duration(left)} left"
    return "  ".join([*head(live), until])


def screen(run: RunFolder, view: View, width: int, top: int, room: int | None = None) -> Group:
    """Title, status, workers if there are several, the objective (of several, their hypervolume), and the best rows.

    `room`: lines for the workers, all of them by default.
    """
    parts: list[object] = [Text(str(run.path), style="bold"), Text(status(view))]
    parts += [Text(line) for line in (worker_lines(view.live.workers, width, room) if view.live is not None else ())]
    parts += [Text(wrapped(view.told, width))] if view.told else []
    parts += _volumes(view, width) if view.objective.others else _values(view, width)
    if view.rows:
        table, left_out = ranking_table(view.rows[:top], view.objective.names, width)
        parts += [Text(), table, *([Text(left_out, style="dim")] if left_out else [])]
        if len(view.rows) > top:
            parts.append(Text(f"... {len(view.rows) - top} more", style="dim"))
    else:
        parts += [Text(), Text("no trial has finished yet")]
    return Group(*parts)  # pyright: ignore[reportArgumentType]


def _values(view: View, width: int) -> list[Text]:
    """The objective of every merge, and the best so far; nothing before the first."""
    name = view.objective.name
    values = [row.value(name) if row.state == "complete" else None for row in view.by_time]
    curve = curve_text(values, best_so_far(values, view.objective.sign), width - 10, CURVE)
    if not curve:
        return []
    parents = [row.value(name) for row in view.searched if row.kind == "parent" and row.state == "complete"]
    best_parent = best_so_far(parents, view.objective.sign)
    parent = f"; best parent {best_parent[-1]:.4f}" if best_parent and best_parent[-1] is not None else ""
    stage = " in the search" if any(row.stage == "final" for row in view.rows) else ""
    return [Text(), Text(f"{name} over merges{stage} (o), best so far (-){parent}", style="dim"), Text(curve)]


def _volumes(view: View, width: int) -> list[Text]:
    """The hypervolume after every merge; nothing before the first."""
    volume = volume_over(view.searched, view.objective)
    if volume is None:
        return []
    title = f"hypervolume over merges (-), now {volume.values[-1]:.4g}; base and parents {volume.baselines:.4g}"
    curve = curve_text([None] * len(volume.values), volume.values, width - 10, CURVE)
    return [
        Text(),
        Text(title, style="dim"),
        Text(f"reference: {reference_in_words(volume)}", style="dim"),
        Text(curve),
    ]


def watch(run: RunFolder, once: bool, top: int) -> View:
    """Show the run until its search ends; just once if asked, if stdout is not a terminal, or if no search runs.

    Returns what was last shown.
    """
    console = terminal.console()
    view = look(run)
    if once or view.live is None or not console.is_terminal:
        console.print(screen(run, view, console.width if console.is_terminal else 80, top))
        return view
    with LiveScreen(console=console, auto_refresh=False, vertical_overflow="crop") as shown:
        while view.live is not None:
            # The workers get half of the lines that title, status, curve and blank lines leave, the table the rest.
            free = max(console.height - CURVE - (10 if view.objective.others else 8), 1)
            room = max(free // 2, 3)
            workers = len(worker_lines(view.live.workers, console.width, room))
            rows = min(top, max(free - workers, 1))
            shown.update(screen(run, view, console.width, rows, room), refresh=True)
            time.sleep(EVERY)
            view = look(run)
        shown.update(screen(run, view, console.width, top), refresh=True)
    return view


def curve_text(values: Sequence[float | None], best: Sequence[float | None], width: int, height: int) -> str:
    """A text plot of the last `width` values (o) and the best so far (-)."""
    values, best = values[-width:], best[-width:]
    defined = [value for value in (*values, *best) if value is not None]
    if not defined:
        return ""
    low, high = min(defined), max(defined)
    grid = [[" "] * len(values) for _ in range(height)]
    for series, mark in ((best, "-"), (values, "o")):
        for column, value in enumerate(series):
            if value is not None:
                grid[height - 1 - round((value - low) / ((high - low) or 1) * (height - 1))][column] = mark
    ends = {0: f"{high:.4f}", height - 1: f"{low:.4f}"}
    margin = max(8, *map(len, ends.values()))
    return "\n".join(f"{ends.get(i, ''):>{margin}} |{''.join(line).rstrip()}" for i, line in enumerate(grid))


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
