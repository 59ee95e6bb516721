"""TrialResults -> ranking, as table, CSV, JSON and Markdown. Knows nothing of how scores come about."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nex_merge import trials
from nex_merge.config import nearest
from nex_merge.errors import InputError
from nex_merge.records import TrialResult

COLUMNS = (
    "rank", "trial", "kind", "method", "nex", "nex_low", "nex_high", "log_gap", "mean_tokens", "truncated",
    "distinct_ratio", "entropy", "explore_share", "cycles_per_response", "accuracy", "seconds", "state", "reason",
)  # fmt: skip
# What fits a terminal; the files have every column.
TABLE = (
    "rank",
    "trial",
    "method",
    "nex",
    "interval",
    "mean_tokens",
    "entropy",
    "cycles",
    "accuracy",
    "seconds",
    "state",
)
FORMATS = ("table", "csv", "json", "md")
# Columns of which less is better, when sorted by.
_ASCENDING = ("rank", "trial", "kind", "method", "mean_tokens", "truncated", "entropy", "seconds", "state", "reason")

Row = dict[str, Any]


def rank(results: Sequence[TrialResult]) -> list[Row]:
    """Rows from the best score to the worst; equal scores in order of trial. Unscored trials come last, without rank.

    `results` are in order: base, parents, merges by number.
    """
    scored = [result for result in results if result.score is not None and result.state == "complete"]
    ranked = sorted(scored, key=lambda result: -((result.score and result.score.nex) or 0.0))  # stable
    rest = [result for result in results if result not in scored]
    rows = [_row(result, place) for place, result in enumerate(ranked, 1)]
    return rows + [_row(result, None) for result in rest]


def _row(result: TrialResult, place: int | None) -> Row:
    score = result.score
    row: Row = {
        "rank": place,
        "trial": result.trial,
        "kind": result.kind,
        "method": result.method,
        "nex": score and score.nex,
        "nex_low": score and score.low,
        "nex_high": score and score.high,
        "log_gap": score and score.log_gap,
        "mean_tokens": result.mean_tokens,
        "truncated": result.truncated,
        "distinct_ratio": result.distinct_ratio,
        "entropy": result.entropy,
        "explore_share": score and score.explore_share,
        "cycles_per_response": score and score.cycles / max(score.responses, 1),
        "accuracy": result.accuracy,
        "seconds": sum(result.seconds.values()),
        "state": result.state,
        "reason": result.reason,
    }
    if result.kind == "merge":
        row |= {f"p.{name}": value for name, value in sorted(result.parameters.items())}
    return row


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The fixed columns, then one per searched parameter."""
    return [*COLUMNS, *sorted({key for row in rows for key in row if key.startswith("p.")})]


def write_leaderboard(run: Path) -> list[Row]:
    """Rank the run's trials and write leaderboard.csv and leaderboard.json."""
    rows = rank(with_accuracy(run, trials.read_results(run)))
    trials.write_atomically(run / "leaderboard.csv", as_csv(rows))
    trials.write_atomically(run / "leaderboard.json", as_json(rows))
    return rows


def with_accuracy(run: Path, results: Sequence[TrialResult]) -> list[TrialResult]:
    """The results with what is known of their accuracy."""
    from dataclasses import replace

    return [
        replace(result, accuracy=found["accuracy"]) if (found := trials.read_accuracy(run, result.trial)) else result
        for result in results
    ]


def sort_rows(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows by a column, best first where that is known; rows without a value last."""
    known = columns_of(rows)
    if column not in known:
        raise InputError(f"--sort: no column {column!r}.{nearest(column, known)}")
    with_value = [row for row in rows if row.get(column) is not None]
    without = [row for row in rows if row.get(column) is None]
    descending = column not in _ASCENDING and not column.startswith("p.")
    mixed = len({isinstance(row[column], str) for row in with_value}) > 1
    return sorted(with_value, key=lambda r: str(r[column]) if mixed else r[column], reverse=descending) + without


def as_csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns_of(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    columns = columns_of(rows)
    return json.dumps([{column: row.get(column) for column in columns} for row in rows], indent=1)


def as_markdown(rows: Sequence[Row]) -> str:
    shown = [_cells(row) for row in rows]
    lines = ["| " + " | ".join(TABLE) + " |", "|" + "---|" * len(TABLE)]
    lines += ["| " + " | ".join(cells[column].replace("|", "\\|") for column in TABLE) + " |" for cells in shown]
    return "\n".join(lines)


def print_table(rows: Sequence[Row], title: str) -> None:
    """The ranking on the terminal (stdout), followed by the reasons of failures."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    width = None if console.is_terminal else 120
    console = Console(width=width) if width else console
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in TABLE:
        numeric = column not in ("trial", "method", "interval", "state")
        table.add_column(column.replace("_", " "), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        style = {1: "bold green", 2: "green", 3: "green"}.get(row["rank"], None if row["rank"] else "dim")
        cells = _cells(row)
        table.add_row(*(cells[column] for column in TABLE), style=style)
    console.print(table)
    for row in rows:
        if row["state"] == "failed":
            console.print(f"trial {row['trial']} failed: {row['reason']}", markup=False, highlight=False)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    def number(key: str, digits: int) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    interval = "-" if row["nex_low"] is None else f"{row['nex_low']:.4f} to {row['nex_high']:.4f}"
    trial = row["trial"].lstrip("0") or "0"
    return {
        "rank": "-" if row["rank"] is None else str(row["rank"]),
        "trial": trial,
        "method": row["kind"] if row["kind"] != "merge" else row["method"],
        "nex": number("nex", 4),
        "interval": interval,
        "mean_tokens": number("mean_tokens", 0),
        "entropy": number("entropy", 4),
        "cycles": number("cycles_per_response", 1),
        "accuracy": number("accuracy", 3),
        "seconds": number("seconds", 1),
        "state": row["state"],
    }


def render(rows: Sequence[Row], form: str) -> str:
    """Rows as text in one of the formats for programs and documents."""
    return {"csv": as_csv, "json": as_json, "md": as_markdown}[form](rows).rstrip("\n")
