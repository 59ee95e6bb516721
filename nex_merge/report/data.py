"""A run folder -> what the page shows: the front, the table, facts. Knows nothing of HTML or of figures."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nex_merge.errors import InputError
from nex_merge.labels.correlate import agreement_with_accuracy
from nex_merge.labels.labelled_run import labelled_run
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES, NEX, OBJECTIVES, measure_title
from nex_merge.records import Reliability, TrialResult
from nex_merge.runs import files
from nex_merge.runs.files import trial_label
from nex_merge.runs.leaderboard import latest_results, read_rows, sorts_descending
from nex_merge.runs.recommend import Recommendation, candidates, of_last_stage, recommend
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rows import COLUMNS, PARAMETER, TASK, Row, columns_of
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import table_cells

MISSING = "–"


@dataclass(frozen=True)
class Snapshot:
    """A run as its folder has it at one moment."""

    run: RunFolder
    rows: Sequence[Row]  # the leaderboard; after a final, first the rows of the final
    searched: Sequence[Row]  # the search's own ranking, on its prompts
    results: Mapping[str, TrialResult]  # by trial, with the leaderboard's scores
    reliability: Reliability | None
    unfinished: Sequence[str]  # trials without a result: in progress or interrupted

    @property
    def objective(self) -> Objective:
        return self.run.objective

    @cached_property
    def recommended(self) -> Recommendation:
        return recommend(self.rows, self.objective, self.reliability)

    @property
    def pick(self) -> Row | None:
        """The merge that the page shows: the one that is recommended, else the objective's first."""
        return self.recommended.row or next(iter(candidates(self.rows)), None)

    @property
    def pick_name(self) -> str:
        """What the pick is, in a few words; "" without one."""
        if self.pick is None:
            return ""
        what = "Recommended" if self.recommended.row is not None else f"First by {measure_title(self.objective.name)}"
        return f"{what}: trial {trial_label(self.pick.trial)}"

    @property
    def equal_weights(self) -> Row | None:
        """The merge with equal weights, unless it is the pick; None if there is none."""
        rows = [row for row in self.latest if row.reference and row.rank is not None]
        return next((row for row in rows if row is not self.pick), None)

    @property
    def latest(self) -> Sequence[Row]:
        """The rows of the last stage: those of the final, if there was one, else all."""
        return of_last_stage(self.rows)

    @property
    def has_final(self) -> bool:
        return any(row.stage == "final" for row in self.rows)

    def of(self, kind: str) -> list[Row]:
        """The ranked rows of base, parents or merges, best first."""
        return [row for row in self.rows if row.kind == kind and row.rank is not None]

    @property
    def planned(self) -> int:
        return max(self.run.config.study.trials, self.merges)  # more may be done than were last asked for

    @property
    def merges(self) -> int:
        """Finished merges, whatever their state."""
        return sum(row.kind == "merge" for row in self.rows)


def take_snapshot(run: RunFolder) -> Snapshot:
    """The run as it is now, which need not be finished."""
    # In this order, every row has its result, and a trial that finishes meanwhile is not unfinished as well.
    begun = run.begun()
    rows, searched = read_rows(run), read_rows(run, final=False)
    results = {result.trial: result for result in latest_results(run)}
    unfinished = [trial for trial in begun if trial not in results]
    return Snapshot(run, rows, searched, results, read_reliability(run.path), unfinished)


@dataclass(frozen=True)
class Column:
    """A column of the page's leaderboard."""

    name: str
    shown: bool  # at first
    text: bool  # sorted as text
    descending: bool  # the first click sorts from high to low
    meaning: str  # "" if the name says it


@dataclass(frozen=True)
class Cell:
    text: str
    value: Any  # sorted by; None comes last


def leaderboard_table(snapshot: Snapshot) -> tuple[list[Column], list[list[Cell]]]:
    """All columns, the terminal's first, and the cells of every trial, best first."""
    rows, objective = snapshot.rows, snapshot.objective
    headings, terminal = table_cells(rows, objective.names)
    keys = _keys(objective)
    covered = {keys.get(heading, heading) for heading in headings}
    lead = [name for name in objective.names if name not in covered]
    outcome = ["state", "reason"] if any(row.state != "complete" for row in rows) else []
    outcome += ["stage"] if snapshot.has_final else []
    shown = [*headings, *lead, *outcome]
    # A terminal heading covers the column that it is sorted by, except for the interval's.
    covered = {*covered, *shown} - {keys["95 %"]}
    rest = [name for name in columns_of(rows) if name not in covered]
    # Searched parameters are asked for more often than the remaining measures.
    rest.sort(key=lambda name: (not name.startswith(PARAMETER), name not in COLUMNS))
    columns = [_column(name, keys.get(name, name), name in shown, snapshot) for name in [*shown, *rest]]
    table = []
    for row, cells in zip(rows, terminal, strict=True):
        table.append(
            [
                _terminal_cell(row, column.name, cells[column.name], keys) if column.name in headings
                else Cell(number(row.column(column.name)), row.column(column.name))
                for column in columns
            ]
        )  # fmt: skip
    return columns, table


def _keys(objective: Objective) -> dict[str, str]:
    """The row entry that each heading of the terminal's table is sorted by, unless both have the same name."""
    return {
        "#": "rank",
        "95 %": f"{objective.name}_low",
        "beats": "beats_parent",
        "acc": "accuracy",
        "s": "seconds",
        **{measure.heading: name for name, measure in MEASURES.items() if measure.heading},
    }


def _column(name: str, key: str, shown: bool, snapshot: Snapshot) -> Column:
    objective = snapshot.objective
    values = [row.column(key) for row in snapshot.rows]
    text = name in ("trial", "method") or any(isinstance(value, (str, bool)) for value in values)
    # The study's direction need not be the measure's usual one.
    descending = objective.sign_of(key) > 0 if key in objective.names else sorts_descending(key)
    return Column(name, shown, text, descending, _meaning(name, key, objective))


def _meaning(name: str, key: str, objective: Objective) -> str:
    measure = MEASURES.get(key)
    if measure is not None:
        return f"{measure.meaning}, in {measure.unit}" if measure.unit == "nats" else measure.meaning
    of, _, end = key.rpartition("_")
    if name == key and of in MEASURES:
        side = {"low": "lower", "high": "upper"}[end]
        return f"{side} end of the 95 % bootstrap interval of {measure_title(of)} over prompts"
    if name.startswith(TASK):
        return f"accuracy on {name.removeprefix(TASK)}"
    return {
        "#": "rank",
        "front": "1: no merge is better in one objective without being worse in another; 2: only those of 1 are; ...",
        "95 %": f"95 % bootstrap interval of {measure_title(objective.name)} over prompts",
        "beats": f"confidence that a merge beats base and every parent by {measure_title(objective.name)}",
        "acc": "accuracy on labelled prompts",
        "accuracy": "accuracy on labelled prompts",
        "accuracy_low": "lower end of the accuracy's 95 % interval",
        "accuracy_high": "upper end of the accuracy's 95 % interval",
        "accuracy_source": "the data that accuracy was measured on",
        "violation": "above 0: collapsed or infeasible",
        "stage": "whether the values are from the search or from the final, on other prompts",
        "s": "duration of the trial in seconds",
        "seconds": "duration of the trial in seconds",
    }.get(name, "")


def _terminal_cell(row: Row, heading: str, text: str, keys: Mapping[str, str]) -> Cell:
    text = MISSING if text == "-" else text
    if heading == "trial":
        return Cell(text, row.trial)  # ids are zero-padded: as text, 10 would come before 9
    return Cell(text, text if heading == "method" else row.column(keys.get(heading, heading)))


def number(value: Any, digits: int = 4) -> str:
    """A value to read: floats with `digits` significant digits, a dash for None."""
    if value is None:
        return MISSING
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def front_objective(objective: Objective) -> Objective:
    """What the front weighs against length: the objective, or NEX if the objective is length itself."""
    return objective if objective.name != "mean_tokens" else Objective(NEX.name, NEX.direction)


def front(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """The Pareto front of the complete variants, shortest responses first: none is better without longer responses.

    Of equal variants, all are on the front. Length is weighed against `front_objective`.
    """
    lead = front_objective(objective)
    points = [
        (row.known("mean_tokens"), -lead.sign * row.known(lead.name), row)
        for row in rows
        if row.state == "complete" and row.value("mean_tokens") is not None and row.value(lead.name) is not None
    ]
    kept = []
    for tokens, loss, row in points:
        dominated = any(t <= tokens and at <= loss and (t, at) != (tokens, loss) for t, at, _ in points)
        if not dominated:
            kept.append((tokens, loss, row))
    return [row for *_, row in sorted(kept, key=lambda point: point[:2])]


def find_agreement(snapshot: Snapshot) -> tuple[Mapping[str, Any] | None, str]:
    """The search's agreement with accuracy (`labels.correlate`); or None, and why."""
    rows = snapshot.searched
    if all(row.accuracy is None for row in rows):
        return None, "no variant has an accuracy"
    try:
        return agreement_with_accuracy(rows, labelled_run(snapshot.run, rows)), ""
    except InputError as error:
        return None, str(error)


def scored_values(snapshot: Snapshot) -> dict[str, float]:
    """The objective of every complete merge in the search, by trial: what importances explain."""
    name = snapshot.objective.name
    merges = [row for row in snapshot.searched if row.kind == "merge" and row.state == "complete"]
    return {row.trial: row.known(name) for row in merges if row.value(name) is not None}


@dataclass(frozen=True)
class Recipe:
    """How to reproduce a variant."""

    text: str
    mergekit: str
    export: str


def recipe_of(snapshot: Snapshot, row: Row) -> Recipe:
    run, trial = snapshot.run, row.trial
    path = run.folder(trial) / files.RECIPE
    return Recipe(
        files.read_utf8(path),
        f"mergekit-yaml {shlex.quote(str(path))} OUT --random-seed {snapshot.results[trial].seed}",
        f"nex-merge export {shlex.quote(str(run.path))} --trial {trial_label(trial)} --out OUT",
    )


def states(snapshot: Snapshot) -> Mapping[str, int]:
    """Number of trials by state: complete, infeasible, collapsed, failed, duplicate."""
    return Counter(row.state for row in snapshot.rows)


def stage_times(snapshot: Snapshot) -> list[tuple[str, int, float]]:
    """(stage, number of trials, total seconds), in the order of a trial's stages."""
    trials: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for result in snapshot.results.values():
        for stage, taken in result.seconds.items():
            # A failed trial records its total only.
            name = "until failure" if stage == "total" else stage
            trials[name] = trials.get(name, 0) + 1
            seconds[name] = seconds.get(name, 0.0) + taken
    return [(name, trials[name], seconds[name]) for name in seconds]


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The setup in a few lines; the configuration has the rest."""
    run, config = snapshot.run, snapshot.run.config
    resolved = run.resolved
    objectives = [f"{one.name} ({'more' if one.sign > 0 else 'less'} is better)" for one in snapshot.objective.all]
    custom = "custom, see the configuration"
    space = "none: a list of recipes" if config.study.recipes else config.search_space
    about = [
        ("family", config.family if isinstance(config.family, str) else custom),
        ("models", ", ".join(config.models) if config.models else "all of the family"),
        ("search space", space if isinstance(space, str) else custom),
        ("objective" if len(objectives) == 1 else "objectives", ", ".join(objectives)),
        ("scoring", ", ".join(f"{key} {value}" for key, value in run.scoring().model_dump().items())),
        ("prompts", config.prompts.described),
        ("SHA-256 of the prompts", resolved.get("prompts_sha256") or MISSING),
        ("sampler", config.study.sampler),
        ("study seed", str(config.study.seed)),
        ("generation seed", str(config.generation.seed)),
    ]
    return about + [(f"{name} version", str(version)) for name, version in resolved.get("versions", {}).items()]


# Names of the figures behind a verdict, other than the field's name.
_FIGURES = {
    "variants": "complete variants",
    "split_half": "split-half reliability of NEX",
    "credited": "share of responses that earn credit",
    "weighted_mass": MEASURES["weighted_mass"].meaning,
    "saturation": MEASURES["saturation"].meaning,
    "beats_parent": "confidence that the best merge by NEX beats base and every parent",
    "follows_length": "rank correlation of NEX with mean tokens",
}


def reliability_figures(reliability: Reliability) -> list[tuple[str, str]]:
    """The figures behind the verdict, and the split-half reliability of the other measures."""
    figures = [
        (_FIGURES.get(field.name, field.name.replace("_", " ")), number(getattr(reliability, field.name), 3))
        for field in dataclasses.fields(reliability)
        if field.name not in ("verdict", "reasons", "advice", "split_halves", "verdicts", "match", "complete")
    ]
    others = [
        (f"split-half reliability of {measure_title(name)}", number(value, 3))
        for name, value in reliability.split_halves.items()
        if name in OBJECTIVES and name != NEX.name and value is not None
    ]
    return figures + others
