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
# What fits a terminal of 80 columns; the files have every column.
TABLE = ("#", "trial", "method", "nex", "95 %", "tokens", "entropy", "cycles", "accuracy", "s")
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
    columns, shown = table_cells(rows)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cells[column].replace("|", "\\|") for column in columns) + " |" for cells in shown]
    return "\n".join(lines)


def print_table(rows: Sequence[Row], title: str) -> None:
    """The ranking on the terminal (stdout), followed by the reasons of failures."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=120)
    columns, shown = table_cells(rows)
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("trial", "method", "95 %") else "right", no_wrap=True)
    for row, cells in zip(rows, shown, strict=True):
        style = {1: "bold green", 2: "green", 3: "green"}.get(row["rank"], None if row["rank"] else "dim")
        table.add_row(*(cells[column] for column in columns), style=style)
    console.print(table)
    for row in rows:
        if row["reason"] is not None:
            console.print(
                f"trial {_short(row['trial'])} {row['state']}: {row['reason']}", markup=False, highlight=False
            )


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns worth showing and every row's cells; accuracy is left out where there is none."""
    measured = any(row["accuracy"] is not None for row in rows)
    return [column for column in TABLE if measured or column != "accuracy"], [_cells(row) for row in rows]


def _short(trial: str) -> str:
    return str(int(trial)) if trial.isdigit() else trial


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    def number(key: str, digits: int) -> str:
        return "-" if row.get(key) is None else f"{row[key]:.{digits}f}"

    return {
        "#": "-" if row["rank"] is None else str(row["rank"]),
        "trial": _short(row["trial"]),
        "method": row["kind"] if row["kind"] != "merge" else row["method"],
        "nex": number("nex", 4) if row["state"] != "failed" else "failed",
        "95 %": "-" if row["nex_low"] is None else f"{row['nex_low']:.3f}-{row['nex_high']:.3f}",
        "tokens": number("mean_tokens", 0),
        "entropy": number("entropy", 4),
        "cycles": number("cycles_per_response", 1),
        "accuracy": number("accuracy", 3),
        "s": number("seconds", 1),
    }


def render(rows: Sequence[Row], form: str) -> str:
    """Rows as text in one of the formats for programs and documents."""
    return {"csv": as_csv, "json": as_json, "md": as_markdown}[form](rows).rstrip("\n")
