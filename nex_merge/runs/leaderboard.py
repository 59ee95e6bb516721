"""The leaderboard: a run's trials as ranked rows, and its file formats. `tables.py` prints it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nex_merge.errors import InputError
from nex_merge.inert import csv_cell, json_text
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES, OBJECTIVES
from nex_merge.records import TrialResult
from nex_merge.runs import files
from nex_merge.runs.accuracies import by_name, read_measurements
from nex_merge.runs.files import trial_label
from nex_merge.runs.front import first_front, front_numbers
from nex_merge.runs.recommend import Recommendation, best_by, candidates, of_last_stage, recommend
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rows import ACCURACY, IDENTITY, OUTCOME, PARAMETER, Row, columns_of
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import nearest

if TYPE_CHECKING:
    import pandas

LEADERBOARD_FILES = ("leaderboard.csv", "leaderboard.json")


def rank(results: Sequence[TrialResult], objective: Objective) -> list[Row]:
    """Rows from best to worst, ties in order of trial.

    Pruned variants rank below all complete ones, below these infeasible and then collapsed ones; trials without a value
    come last, unranked. With several objectives, complete ones are ordered by front, then by the first objective.
    `results` are ordered: base, parents, merges by number.
    """
    numbers = front_numbers(results, objective)

    def key(result: TrialResult) -> tuple[int, float, float]:
        value = result.value(objective.name)
        loss = -objective.sign * value if value is not None else float("inf")
        return files.SCORED.index(result.state), numbers.get(result.trial, float("inf")), loss

    scored = [result for result in results if result.estimates and result.state in files.SCORED]
    rest = [result for result in results if result not in scored]
    placed = [*enumerate(sorted(scored, key=key), 1), *((None, result) for result in rest)]  # stable
    return [_row(result, place, numbers.get(result.trial), objective) for place, result in placed]


def _row(result: TrialResult, place: int | None, front: int | None, objective: Objective) -> Row:
    return Row(
        trial=result.trial,
        kind=result.kind,
        method=result.method,
        state=result.state,
        rank=place,
        front=front,
        estimates=result.estimates,
        objectives=objective.names,
        parameters=result.parameters if result.kind == "merge" else {},
        violation=result.violation,
        seconds=sum(result.seconds.values()),
        answered=result.answered,
        reason=result.reason,
        reference="equal weights" if result.is_reference else None,
    )


def read_rows(run: RunFolder, final: bool = True) -> list[Row]:
    """The run's trials, ranked by its current scores, with their accuracy if measured.

    A trial that finished after the last scoring has the estimates of its own result. After a final, its rows come
    first, with the values that they have there; `final` False: the search's own ranking, which recommends nothing. The
    row of the merge that is recommended names the measure that it is recommended by.
    """
    rows = rank([result for result in latest_results(run) if run.ranks(result)], run.objective)
    played = run.final if final else None
    if played is not None:
        spent = {row.trial: row.seconds for row in rows}
        leading = [
            replace(row, stage="final", seconds=row.seconds + spent.get(row.trial, 0.0))
            for row in read_rows(played, final=False)
            if row.rank is not None
        ]
        trials = {row.trial for row in leading}
        rows = leading + [row for row in rows if row.trial not in trials]
        ranked = [row for row in rows if row.rank is not None]
        rows = [replace(row, rank=i) for i, row in enumerate(ranked, 1)] + [row for row in rows if row.rank is None]
    rows = _with_accuracy(rows, run)
    found = recommendation(run, rows) if final else None
    if found is not None and found.row is not None:
        rows = [replace(row, recommended=found.by) if row is found.row else row for row in rows]
    return rows


def _with_accuracy(rows: Sequence[Row], run: RunFolder) -> list[Row]:
    """The rows with the accuracy that was measured last, if any was; with each task's, where there are several."""
    known = {row.trial: read_measurements(run.path, row.trial) for row in rows}
    tasks = {trial: by_name(measurements) for trial, measurements in known.items()}
    several = len({name for found in tasks.values() for name in found}) > 1
    return [
        replace(row, **_latest(known[row.trial][0]), accuracies=tasks[row.trial] if several else {})
        if known[row.trial]
        else row
        for row in rows
    ]


def _latest(measurement: Mapping[str, Any]) -> dict[str, Any]:
    return {name: measurement.get(name.replace("accuracy_source", "source")) for name in ACCURACY}


def latest_results(run: RunFolder) -> list[TrialResult]:
    """The run's results with its current scores, which may come from a later rescoring."""
    scores = run.scores()
    if scores is None:
        return run.results()
    rescored = []
    for result in run.results():
        source = result.same_as or result.trial
        estimates = {**result.estimates, **scores.estimates.get(source, {})}
        rescored.append(replace(result, estimates=estimates, score=scores.trials.get(source, result.score)))
    return rescored


def shown_in(run: RunFolder, trial: str) -> RunFolder:
    """The run whose values and responses of a trial the leaderboard shows: its final's if the trial stands in it."""
    final = run.final
    if final is not None and any(row.trial == trial and row.rank is not None for row in read_rows(final)):
        return final
    return run


def write_leaderboard(run: RunFolder) -> list[Row]:
    """Rank the run's trials and write leaderboard.csv and leaderboard.json."""
    from nex_merge.runs.custody import locked

    # The last to write has read what all before it wrote.
    with locked(run.path, files.LEADERBOARD_LOCK, "another command is writing the leaderboard", wait=60):
        rows = read_rows(run)
        for name, text in zip(LEADERBOARD_FILES, (as_csv(rows), as_json(rows)), strict=True):
            files.write_atomically(run.path / name, text)
    return rows


def first_trial(run: RunFolder) -> str:
    """The first trial of the run's leaderboard. Raises InputError if none is scored."""
    ranked = [row.trial for row in read_rows(run) if row.rank is not None]
    if not ranked:
        raise InputError(f"{run.path}: none of its trials is scored yet")
    return ranked[0]


def best_merge(run: RunFolder, by: str | None = None) -> TrialResult:
    """The merge that is recommended, where nothing is the objective's first; or the best by a measure.

    Raises InputError if there is none, or no such measure, or if there are several objectives and `by` is None.
    """
    if by is not None and by not in OBJECTIVES:
        raise InputError(f"--by: unknown measure {by!r}.{nearest(by, list(OBJECTIVES), 'measures')}")
    rows = read_rows(run)
    if by is None and run.objective.others:
        trials = ", ".join(trial_label(row.trial) for row in first_front(of_last_stage(rows))) or "none"
        raise InputError(
            f"{run.path}: {' and '.join(run.objective.names)} are objectives alike, so there is no single best merge. "
            f"Choose one of the front with --trial ({trials}), or the best by one measure with --by (such as "
            f"{run.objective.name})"
        )
    if by is None:
        first = recommendation(run, rows).row or next(iter(candidates(rows)), None)
    elif run.objective.names == (by,):
        first = next(iter(candidates(rows)), None)
    else:
        first = best_by(rows, by, run.objective.sign_of(by))
    if first is None:
        of = "" if by is None else f" with a value of {by}"
        raise InputError(f"{run.path}: expected a complete merge{of}, got none. To use another trial, name it")
    return run.find(first.trial)


def recommendation(run: RunFolder, rows: Sequence[Row] | None = None) -> Recommendation:
    """What the run recommends. `rows`: its leaderboard, if that is at hand."""
    return recommend(read_rows(run) if rows is None else rows, run.objective, read_reliability(run.path))


def sort_rows(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows sorted by a column, best first if it has a direction; rows without a value last."""
    columns = columns_of(rows)
    if column not in columns:
        raise InputError(f"--sort: unknown column {column!r}.{nearest(column, columns)}")
    with_value = [row for row in rows if row.column(column) is not None]
    without = [row for row in rows if row.column(column) is None]
    mixed = len({isinstance(row.column(column), str) for row in with_value}) > 1

    def key(row: Row) -> Any:
        return str(row.column(column)) if mixed else row.column(column)

    return sorted(with_value, key=key, reverse=sorts_descending(column)) + without


def sorts_descending(column: str) -> bool:
    """Whether a column is sorted from high to low, so that the best come first."""
    measure = column.removesuffix("_low").removesuffix("_high")
    if measure in MEASURES:
        return MEASURES[measure].direction > 0
    return column not in IDENTITY and column not in OUTCOME and not column.startswith(PARAMETER)


def as_frame(rows: Sequence[Row]) -> "pandas.DataFrame":
    """The rows with every column; ranks are nullable integers."""
    import pandas

    frame = pandas.DataFrame([row.as_mapping() for row in rows], columns=columns_of(rows))
    return frame.astype({"rank": "Int64"})


def as_csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    columns = columns_of(rows)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([csv_cell(column) for column in columns])
    writer.writerows([csv_cell(row.column(column)) for column in columns] for row in rows)
    return file.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    columns = columns_of(rows)
    return json_text([{column: row.column(column) for column in columns} for row in rows])
