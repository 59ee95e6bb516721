"""A run folder -> what the page says. Reads the run's files and counts; knows nothing of HTML or of figures."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.labels.correlate import agreement
from nex_merge.records import Reliability, TrialResult
from nex_merge.runs import files
from nex_merge.runs.leaderboard import COLUMNS, Objective, Row, columns_of, falls, objective_of, read_rows, table_cells

# The row that each of the terminal's columns is sorted by.
_SORTED_BY = {
    "#": "rank", "95 %": "nex_low", "beats": "beats_parent", "tokens": "mean_tokens", "cycles": "cycles_per_response",
    "acc": "accuracy", "s": "seconds",
}  # fmt: skip
MISSING = "–"


@dataclass(frozen=True)
class Snapshot:
    """A run as its folder has it at one moment."""

    run: Path
    settings: Mapping[str, Any]
    objective: Objective
    rows: Sequence[Row]  # as the leaderboard has them
    results: Mapping[str, TrialResult]
    reliability: Reliability | None
    begun: Sequence[str]  # trials without a result: under way, or cut off

    @property
    def pick(self) -> Row | None:
        """The sound merge that ranks first."""
        return next((row for row in self.of("merge") if row["state"] == "complete"), None)

    def of(self, kind: str) -> list[Row]:
        """The ranked rows of base, parents or merges, best first."""
        return [row for row in self.rows if row["kind"] == kind and row["rank"] is not None]

    @property
    def planned(self) -> int:
        return self.settings["study"]["trials"]

    @property
    def merges(self) -> int:
        """Merges that are finished, whatever came of them."""
        return sum(row["kind"] == "merge" for row in self.rows)


def take_snapshot(run: Path) -> Snapshot:
    """The run as it is now, which need not be finished. Raises InputError where `run` is no run folder."""
    settings = files.read_settings(run)
    rows = read_rows(run)
    # Read after the rows, so that every row has its result.
    results = {result.trial: result for result in files.read_results(run)}
    folders = sorted(path.name for path in (run / files.TRIALS).glob("*") if path.is_dir())
    return Snapshot(
        run,
        settings,
        objective_of(settings["study"]),
        rows,
        results,
        files.read_reliability(run),
        [trial for trial in folders if trial not in results],
    )


@dataclass(frozen=True)
class Column:
    """A column of the page's leaderboard."""

    name: str
    shown: bool  # without being asked for
    text: bool  # sorted as text
    falls: bool  # best first is from high to low
    about: str


@dataclass(frozen=True)
class Cell:
    shown: str
    value: Any  # what it is sorted by; None comes last


# Short, for the columns whose name doesn't say it; the rest are in the README.
_ABOUT = {
    "nex": "mean Good-Mass Fraction",
    "95 %": "bootstrap interval of NEX over prompts",
    "beats": "probability of beating the best parent on NEX, over resampled prompts",
    "tokens": "mean tokens of a response",
    "entropy": "mean token entropy, nats",
    "cycles": "explore-exploit cycles of a response",
    "acc": "accuracy on labelled prompts",
    "s": "seconds that the trial took",
    "log_gap": "-log10(1 - nex)",
    "truncated": "share of responses cut at generation.max_new_tokens",
    "distinct_ratio": "share of distinct token 4-grams",
    "explore_share": "share of rows that explore",
    "entropy_spread": "standard deviation of token entropy, nats",
    "self_certainty": "divergence of the next-token distribution from uniform, nats",
    "utilization": "share of all neurons that a response uses",
    "novelty": "new neurons per token",
    "repeated": "share of tokens in a loop",
    "weighted_mass": "share of activation mass on neurons with a weight",
    "saturation": "share of that mass on weights beyond 0.99",
    "violation": "above 0: collapsed",
}


def leaderboard_table(snapshot: Snapshot) -> tuple[list[Column], list[list[Cell]]]:
    """All columns, the terminal's first, and every trial's cells, best first."""
    rows = snapshot.rows
    first, short = table_cells(rows)
    asked = [snapshot.objective.name] if snapshot.objective.name not in _names(first) else []
    told = ["state", "reason"] if any(row["state"] != "complete" for row in rows) else []
    shown = [*first, *asked, *told]
    there = {*_names(first), *shown} - {"nex_low"}
    rest = [name for name in columns_of(rows) if name not in there]
    # What was searched is asked for more often than the other measures.
    rest.sort(key=lambda name: (not name.startswith("p."), name not in COLUMNS))
    columns = []
    for name in [*shown, *rest]:
        key = _SORTED_BY.get(name, name)
        values = [row.get(key) for row in rows if row.get(key) is not None]
        text = name in ("trial", "method") or any(isinstance(value, (str, bool)) for value in values)
        columns.append(Column(name, name in shown, text, falls(key), _ABOUT.get(name, "")))
    table = []
    for row, cells in zip(rows, short, strict=True):
        table.append([_cell(column.name, row, cells if column.name in first else None) for column in columns])
    return columns, table


def _names(first: Sequence[str]) -> set[str]:
    return {_SORTED_BY.get(name, name) for name in first}


def _cell(name: str, row: Row, cells: Mapping[str, str] | None) -> Cell:
    if cells is not None:
        shown = MISSING if cells[name] == "-" else cells[name]
        # As text, 10 would come before 9.
        value = row["trial"] if name == "trial" else shown if name == "method" else row.get(_SORTED_BY.get(name, name))
        return Cell(shown, value)
    value = row.get(name)
    return Cell(number(value), value)


def number(value: Any, digits: int = 4) -> str:
    """A value to read: floats to so many digits, nothing as a dash."""
    if value is None:
        return MISSING
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def short(trial: str) -> str:
    return str(int(trial)) if trial.isdigit() else trial


def front(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """The sound variants that no other one beats in the objective without longer responses; shortest first.

    Equal ones are all of them on the front. With mean tokens as the objective, NEX takes its place.
    """
    name, sign = (objective.name, objective.sign) if objective.name != "mean_tokens" else ("nex", 1)
    points = [
        (row["mean_tokens"], -sign * row[name], row)
        for row in rows
        if row["state"] == "complete" and row["mean_tokens"] is not None and row[name] is not None
    ]
    kept = []
    for tokens, loss, row in points:
        beaten = any(t <= tokens and at <= loss and (t, at) != (tokens, loss) for t, at, _ in points)
        if not beaten:
            kept.append((tokens, loss, row))
    return [row for *_, row in sorted(kept, key=lambda point: point[:2])]


def found_agreement(snapshot: Snapshot) -> tuple[Mapping[str, Any] | None, str]:
    """correlate.agreement of the run, or None and why there is none."""
    if all(row["accuracy"] is None for row in snapshot.rows):
        return None, ""
    try:
        return agreement(snapshot.rows), ""
    except InputError as error:
        return None, str(error)


def scored_values(snapshot: Snapshot) -> dict[str, float]:
    """The objective of every sound merge: what parameters can be held accountable for."""
    name = snapshot.objective.name
    merges = [row for row in snapshot.of("merge") if row["state"] == "complete"]
    return {row["trial"]: row[name] for row in merges if row[name] is not None}


@dataclass(frozen=True)
class Recipe:
    """How to have a variant again."""

    text: str
    mergekit: str
    export: str


def recipe_of(snapshot: Snapshot, row: Row) -> Recipe:
    path = files.trial_folder(snapshot.run, row["trial"]) / files.RECIPE
    seed = snapshot.results[row["trial"]].seed
    return Recipe(
        path.read_text(encoding="utf-8"),
        f"mergekit-yaml {shlex.quote(str(path))} OUT --random-seed {seed}",
        f"nex-merge export {shlex.quote(str(snapshot.run))} --trial {short(row['trial'])} --out OUT",
    )


def states(snapshot: Snapshot) -> Mapping[str, int]:
    """How many trials are complete, collapsed, failed or duplicates."""
    return Counter(row["state"] for row in snapshot.rows)


def stage_times(snapshot: Snapshot) -> list[tuple[str, int, float]]:
    """(stage, trials that went through it, seconds in all), in the order in which a trial goes through them."""
    counts: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for result in snapshot.results.values():
        for stage, taken in result.seconds.items():
            # A failed trial knows only how long it took.
            name = "until it failed" if stage == "total" else stage
            counts[name] = counts.get(name, 0) + 1
            seconds[name] = seconds.get(name, 0.0) + taken
    return [(name, counts[name], seconds[name]) for name in seconds]


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """What was run, in a few lines; the configuration has the rest."""
    settings = snapshot.settings
    study, prompts, resolved = settings["study"], settings["prompts"], settings.get("resolved", {})
    sign = "more is better" if snapshot.objective.sign > 0 else "less is better"
    scoring = files.read_scoring(snapshot.run) or settings["nex"]
    family, space = settings["family"], settings["search_space"]
    about = [
        ("family", family if isinstance(family, str) else "given in the configuration"),
        ("models", ", ".join(settings["models"]) if settings.get("models") else "all of the family"),
        ("search space", space if isinstance(space, str) else "given in the configuration"),
        ("objective", f"{snapshot.objective.name}, {sign}"),
        ("scoring", ", ".join(f"{key} {value}" for key, value in scoring.items())),
        ("prompts", prompts["file"] + (f", the first {prompts['limit']}" if prompts["limit"] else "")),
        ("sha256 of the prompts", resolved.get("prompts_sha256", MISSING)),
        ("sampler", study["sampler"]),
        ("seed of the study", str(study["seed"])),
        ("seed of generation", str(settings["generation"]["seed"])),
    ]
    return about + [(f"version of {name}", str(version)) for name, version in resolved.get("versions", {}).items()]


def reliability_facts(found: Reliability) -> list[tuple[str, str]]:
    """The figures behind the verdict."""
    return [
        (field.name.replace("_", " "), number(getattr(found, field.name), 3))
        for field in dataclasses.fields(found)
        if field.name not in ("verdict", "reasons", "advice")
    ]
