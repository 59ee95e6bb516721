"""TrialResults -> ranking, as table, CSV, JSON and Markdown. Knows nothing of how scores come about."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nex_merge.runs import files
from nex_merge.setup.config import nearest
from nex_merge.errors import InputError
from nex_merge.records import SCORES, Reliability, TextMeasures, TrialResult

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "rank", "trial", "kind", "method", "nex", "nex_low", "nex_high", "beats_parent", "log_gap", "mean_tokens",
    "truncated", "distinct_ratio", "entropy", "explore_share", "cycles_per_response", "accuracy", "accuracy_low",
    "accuracy_high", "accuracy_source", "entropy_spread", "self_certainty", "perplexity", "utilization", "novelty",
    "repeated", "empty", "non_text", "weighted_mass", "saturation", "violation", "seconds", "state", "reason",
)  # fmt: skip
# What fits a terminal of 80 columns; the files have every column.
TABLE = ("#", "trial", "method", "nex", "95 %", "beats", "tokens", "entropy", "cycles", "acc", "s")
FORMATS = ("table", "csv", "json", "md")
LEADERBOARD_FILES = ("leaderboard.csv", "leaderboard.json")
# Columns of which less is better, when sorted by; SCORES says it of the scores.
_ASCENDING = ("rank", "trial", "kind", "method", "truncated", "repeated", "empty", "non_text", "saturation",
              "violation", "seconds", "state", "reason")  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Objective:
    """What a run ranks its variants by."""

    name: str
    sign: int  # +1: more is better


def objective_of(study: Mapping[str, Any]) -> Objective:
    """The objective that the `study` part of a configuration asks for."""
    name, direction = study["objective"], study["direction"]
    return Objective(name, SCORES[name] if direction == "auto" else {"maximize": 1, "minimize": -1}[direction])


def rank(results: Sequence[TrialResult], objective: Objective = Objective("nex", 1)) -> list[Row]:
    """Rows from the best to the worst; equal ones in order of trial.

    Collapsed variants come below every sound one, unscored trials last and without rank. `results` are in order: base,
    parents, merges by number.
    """

    def key(result: TrialResult) -> tuple[bool, float]:
        value = result.value(objective.name)
        return result.state != "complete", -objective.sign * value if value is not None else float("inf")

    scored = [result for result in results if result.score is not None and result.state in files.SCORED]
    rest = [result for result in results if result not in scored]
    rows = [_row(result, place) for place, result in enumerate(sorted(scored, key=key), 1)]  # stable
    return rows + [_row(result, None) for result in rest]


def _row(result: TrialResult, place: int | None) -> Row:
    score, text = result.score, result.text
    row: Row = {
        "rank": place,
        "trial": result.trial,
        "kind": result.kind,
        "method": result.method,
        "nex": score and score.nex,
        "nex_low": score and score.low,
        "nex_high": score and score.high,
        "beats_parent": score and score.beats_parent,
        "log_gap": score and score.log_gap,
        "weighted_mass": score and score.weighted_mass,
        "saturation": score and score.saturation,
        **{name: result.value(name) for name in SCORES if name != "nex"},
        **{item.name: text and getattr(text, item.name) for item in fields(TextMeasures)},
        "violation": result.violation,
        "accuracy": result.accuracy,
        "accuracy_low": result.accuracy_low,
        "accuracy_high": result.accuracy_high,
        "accuracy_source": result.accuracy_source,
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


def read_rows(run: Path) -> list[Row]:
    """The run's trials, ranked, with the scores of its leaderboard and what is known of their accuracy.

    A trial that finished since the leaderboard was written has the score it was given then.
    """
    scores = files.read_scores(run)
    results = []
    for result in files.read_results(run):
        found = files.read_accuracy(run, result.trial)
        names = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_source")
        known = {name: found.get(name.replace("accuracy_source", "source")) for name in names} if found else {}
        score = scores.get(result.same_as or result.trial, result.score)
        results.append(replace(result, score=score, **known))
    return rank(results, objective_of(files.read_settings(run)["study"]))


def write_leaderboard(run: Path) -> list[Row]:
    """Rank the run's trials and write leaderboard.csv and leaderboard.json."""
    rows = read_rows(run)
    for name, text in zip(LEADERBOARD_FILES, (as_csv(rows), as_json(rows)), strict=True):
        files.write_atomically(run / name, text)
    return rows


def sort_rows(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows by a column, best first where that is known; rows without a value last."""
    known = columns_of(rows)
    if column not in known:
        raise InputError(f"--sort: no column {column!r}.{nearest(column, known)}")
    with_value = [row for row in rows if row.get(column) is not None]
    without = [row for row in rows if row.get(column) is None]
    mixed = len({isinstance(row[column], str) for row in with_value}) > 1
    descending = falls(column)
    return sorted(with_value, key=lambda r: str(r[column]) if mixed else r[column], reverse=descending) + without


def falls(column: str) -> bool:
    """Whether a column is sorted from high to low, so that the best come first."""
    return SCORES.get(column, 1) > 0 and column not in _ASCENDING and not column.startswith("p.")


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


def print_table(
    rows: Sequence[Row], title: str, reliability: Reliability | None = None, objective: str = "nex"
) -> None:
    """The ranking on the terminal (stdout), the reasons of failures, and how far the scores can be trusted."""
    from rich.console import Console

    console = Console()
    console = console if console.is_terminal else Console(width=120)
    # Not the table's own title, which is folded to the table's width.
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(ranking_table(rows))
    console.print("beats: probability of beating the best parent, over resampled prompts", highlight=False)
    for row in rows:
        if row["reason"] is not None:
            console.print(
                f"trial {_short(row['trial'])} {row['state']}: {row['reason']}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if reliability is not None:
        console.print()
        for line in verdict(reliability, objective):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def ranking_table(rows: Sequence[Row]) -> "Table":
    """The rows as a table of the terminal's columns."""
    from rich.table import Table
    from rich.text import Text

    columns, shown = table_cells(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("trial", "method", "95 %") else "right", no_wrap=True)
    for row, cells in zip(rows, shown, strict=True):
        style = {1: "bold green", 2: "green", 3: "green"}.get(row["rank"], None if row["rank"] else "dim")
        table.add_row(*(Text(cells[column]) for column in columns), style=style)
    return table


def verdict(found: Reliability, objective: str = "nex") -> list[str]:
    """How far a run's NEX can be trusted, in plain words, with what would help."""
    meaning = {
        "sound": "other prompts would give much the same ranking; whether accuracy agrees, only labels tell",
        "weak": "this ranking is coarse, or says little that length does not",
        "insufficient": "this ranking is mostly noise: other prompts would give another",
    }
    aside = "" if objective == "nex" else f" (this ranking is by {objective})"
    lines = [f"Verdict on NEX{aside}: {found.verdict}; {meaning[found.verdict]}."]
    lines += [f"  - {reason}" for reason in found.reasons]
    lines += [f"  What would help: {advice}" for advice in found.advice]
    return lines


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, str]]]:
    """The columns worth showing in 80 characters, and every row's cells: seconds give way to accuracy."""
    left_out = "s" if any(row["accuracy"] is not None for row in rows) else "acc"
    return [column for column in TABLE if column != left_out], [_cells(row) for row in rows]


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
        "beats": number("beats_parent", 2),
        "tokens": number("mean_tokens", 0),
        "entropy": number("entropy", 4),
        "cycles": number("cycles_per_response", 1),
        "acc": number("accuracy", 3),
        "s": number("seconds", 1),
    }


def render(rows: Sequence[Row], form: str) -> str:
    """Rows as text in one of the formats for programs and documents."""
    return {"csv": as_csv, "json": as_json, "md": as_markdown}[form](rows).rstrip("\n")
