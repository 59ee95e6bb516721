"""The leaderboard on a terminal and as Markdown, and the verdict in words."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge import inert
from nex_merge.inert import markdown
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES, NEX, measure_title
from nex_merge.records import Reliability
from nex_merge.runs.advice import lead, verdict_lines
from nex_merge.runs.cuts import cut_lines
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.runs.leaderboard import as_csv, as_json
from nex_merge.runs.preferred import compared_lines, picked
from nex_merge.runs.rows import Row
from nex_merge.terminal import console_of
from nex_merge.wording import counted, decimal, fitted

if TYPE_CHECKING:
    from rich.table import Table

# Columns that fit into 80 characters; the files have all. Measures have their headings in `MEASURES`.
_HEADED = {measure.heading: name for name, measure in MEASURES.items() if measure.heading}
_LEADING = [heading for heading, name in _HEADED.items() if MEASURES[name].with_interval]
TABLE = (
    "#",
    "trial",
    "method",
    *_LEADING,
    "95 %",
    "beats",
    "vs =",
    *(h for h in _HEADED if h not in _LEADING),
    "acc",
    "s",
)
SENTENCES = 80  # columns; wider ones are hard to read
UNBROKEN = 10_000  # columns
REASONS = 4  # of merges that ended in the same state
LEGEND = (
    "95 %: interval of {measure} over prompts; beats: confidence, at its lowest, that a merge beats base and every "
    "parent; vs =: equal weights (the row marked =).",
    "Confidences: bootstrap over prompts, corrected for choosing among many merges.",
)


# Headings that are not measures, by the column they show.
_OTHERS = {"rank": "#", "beats_parent": "beats", "beats_equal": "vs =", "accuracy": "acc", "seconds": "s"}
_COLUMNS = {**_HEADED, **{heading: column for column, heading in _OTHERS.items()}}


def column_named(name: str) -> str:
    """The column of the leaderboard's files that `name`, a heading of the table or a column already, stands for."""
    return _COLUMNS.get(name, name)


def count_trials(rows: Sequence[Row], shown: int | None = None) -> str:
    """'1 trial', '8 trials', or 'the first 3 of 8 trials' where not all are shown."""
    trials = f"{counted(len(rows), 'trial')}"
    return trials if shown is None or shown == len(rows) else f"the first {shown} of {trials}"


def _reasons(rows: Sequence[Row]) -> Iterator[str]:
    """Why merges did not end as complete, a few of each state; those that ended early are told together."""
    by_state: dict[str, list[Row]] = {}
    for row in rows:
        if row.reason is not None and row.state != "pruned":
            by_state.setdefault(row.state, []).append(row)
    for state, found in by_state.items():
        for row in found[:REASONS]:
            yield f"{trial_name(row.trial)} {state}: {inert.one_line(row.reason or '')}"
        if (more := len(found) - REASONS) > 0:
            yield f"{more} more {state}; leaderboard.csv has why."


def print_table(
    rows: Sequence[Row],
    title: str,
    objective: Objective,
    reliability: Reliability | None = None,
    every: Sequence[Row] | None = None,
    sorted_by: str | None = None,
    run: Path | None = None,
) -> None:
    """Print what is recommended, the ranking, the reasons of failures, what is cut, the verdicts, and what blind
    comparisons say.

    `every`: all rows of the leaderboard, of which `rows` may be some; None: without what is recommended. `run`: the
    run's folder; None: without what is cut, and without comparisons.
    """
    console = console_of()

    # In a file, commands stay in one piece.
    commands = console.width if console.is_terminal else UNBROKEN

    def say(line: str = "", width: int = console.width) -> None:
        console.print(fitted(line, width, commands), markup=False, highlight=False, soft_wrap=True)

    def wrap(line: str) -> None:
        say(line, min(console.width, SENTENCES))

    # Not as the table's title, which rich wraps at the table's width.
    say(title)
    for line in () if every is None else lead(every, objective, reliability):
        wrap(line)
    table, left_out = ranking_table(rows, objective.names, console.width, sorted_by)
    console.print(table)
    if left_out:
        wrap(left_out)
    for line in LEGEND if any(column.header in ("beats", "vs =") for column in table.columns) else ():
        wrap(line.format(measure=measure_title(objective.name)))
    for line in _reasons(rows):
        wrap(line)
    if finalists := sum(row.stage == "final" for row in rows):
        wrap(
            f"The first {finalists} ranks are from the final, on prompts that the search had not seen; the other rows "
            "are from the search, on its prompts."
        )
    if pruned := sum(row.state == "pruned" for row in rows):
        asked = sum(row.answered for row in rows if row.state == "pruned") / pruned
        wrap(
            f"{counted(pruned, 'merge')} ended early (pruned), unlikely to overtake the best so far by the prompts "
            f"answered until then, {asked:.0%} on average. Their values are estimates for all prompts; "
            "leaderboard.csv has why."
        )
    for line in () if run is None else cut_lines(rows if every is None else every, run):
        wrap(line)
    if reliability is not None:
        say()
        for line in verdict_lines(reliability, objective.name, objective.names):
            wrap(line)
    if run is not None:
        for line in compared_lines(run, picked(rows if every is None else every, objective, reliability)):
            wrap(line)


def ranking_table(
    rows: Sequence[Row], objectives: Sequence[str] = (NEX.name,), width: int = 120, sorted_by: str | None = None
) -> "tuple[Table, str]":
    """The rows as a terminal table of at most `width` columns, and a line on the columns that are left out for it.

    Rank, front, trial, the objectives and the column that is `sorted_by` always stay; of the others, the rightmost go
    first.
    """
    from rich.table import Table
    from rich.text import Text

    columns, shown = table_cells(rows, objectives)
    headings = {column: heading for heading, column in _COLUMNS.items()}
    kept = {"#", "front", "trial", *(headings.get(name, name) for name in objectives)}
    if sorted_by is not None:
        heading = headings.get(sorted_by, sorted_by)
        kept.add(heading)
        if heading not in columns:
            columns = [*columns, heading]
            shown = [{**cells, heading: _plain(row.column(sorted_by))} for row, cells in zip(rows, shown, strict=True)]
    widths = {name: max([len(name), *(len(cells[name]) for cells in shown)]) for name in columns}
    left_out: list[str] = []
    for name in reversed(columns):
        if sum(widths.values()) + 2 * (len(widths) - 1) > width and name not in kept:
            left_out.insert(0, name)
            del widths[name]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in widths:
        left = name in ("trial", "method", "95 %")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "trial", overflow="fold")
    for row, cells in zip(rows, shown, strict=True):
        style = {1: "bold green", 2: "green", 3: "green"}.get(row.rank or 0, None if row.rank else "dim")
        table.add_row(*(Text(cells[name]) for name in widths), style=style)
    what = f"{counted(len(left_out), 'column')}"
    note = f"{what} left out for want of width: {', '.join(left_out)}" if left_out else ""
    return table, note


def _plain(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def table_cells(rows: Sequence[Row], objectives: Sequence[str] = (NEX.name,)) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of the terminal table and the cells of every row.

    Accuracy, if there is any, replaces seconds; an objective that has no heading is shown under its name; fronts are
    shown where there are several objectives. Without activations, NEX has no column.
    """
    left_out = {"s" if any(row.accuracy is not None for row in rows) else "acc"}
    uncaptured = [name for name in _HEADED.values() if MEASURES[name].reads_activations and name not in objectives]
    left_out |= {MEASURES[name].heading for name in uncaptured if rows and all(row.value(name) is None for row in rows)}
    columns = [column for column in TABLE if column not in left_out]
    at = columns.index("method") + 1
    columns[at:at] = [name for name in objectives if name not in _HEADED.values()]
    if len(objectives) > 1:
        columns.insert(1, "front")
    return columns, [_cells(row, objectives) for row in rows]


def _cells(row: Row, objectives: Sequence[str]) -> dict[str, str]:
    def number(key: str, digits: int) -> str:
        return decimal(row.column(key), f".{digits}f")

    measured = {
        heading: number(name, MEASURES[name].digits)
        for heading, name in {**dict(zip(objectives, objectives, strict=True)), **_HEADED}.items()
    }
    name = objectives[0]
    if row.state == "failed":
        measured[MEASURES[name].heading or name] = "failed"
    digits = min(MEASURES[name].digits, 3)
    ends = row.interval(name)
    interval = "-" if None in ends else "-".join(f"{end:.{digits}f}" for end in ends)
    if row.state == "pruned":
        interval = f"after {row.answered:.0%}"
    return {
        "#": "-" if row.rank is None else str(row.rank),
        "front": number("front", 0),
        "trial": trial_label(row.trial),
        "method": row.kind if row.kind != "merge" else row.method + (" =" if row.reference else ""),
        **measured,
        "95 %": interval,
        "beats": number("beats_parent", 2),
        "vs =": number("beats_equal", 2),
        "acc": number("accuracy", 3),
        "s": number("seconds", 1),
    }


def as_markdown(rows: Sequence[Row], objectives: Sequence[str] = (NEX.name,)) -> str:
    """The rows as a table; of the objectives, the first has its interval."""
    columns, shown = table_cells(rows, objectives)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(markdown(cells[column]) for column in columns) + " |" for cells in shown]
    return "\n".join(lines)


def render(
    rows: Sequence[Row],
    form: str,
    objective: Objective,
    reliability: Reliability | None = None,
    every: Sequence[Row] | None = None,
) -> str:
    """Rows as text in one of the formats for programs and documents.

    `every`: all rows of the leaderboard, of which `rows` may be some; in Markdown, what it recommends comes first.
    """
    if form != "md":
        return {"csv": as_csv, "json": as_json}[form](rows).rstrip("\n")
    first = next(lead(rows if every is None else every, objective, reliability))
    return f"{markdown(first)}\n\n{as_markdown(rows, objective.names)}"
