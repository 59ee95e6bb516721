"""Agreement of measures with accuracy: all measures that can be objectives, the leaderboard's rank, and baselines.

Computes over leaderboard rows and prints nothing. Symbols: n variants; x a measure, oriented so that more is better; y
accuracy.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.labels.ceiling import noise_ceiling, shared_noise, true_accuracies
from nex_merge.labels.labelled_run import LabelledRun
from nex_merge.labels.recipe_baselines import BASELINES
from nex_merge.labels.statistics import correlations, curve
from nex_merge.measures.registry import OBJECTIVES
from nex_merge.runs.files import trial_order
from nex_merge.runs.rows import Row
from nex_merge.wording import counted

# The leaderboard's rank is compared as well: unlike any measure, it puts infeasible and collapsed variants last.
COMPARED: Mapping[str, int] = {"rank": -1, **{name: measure.direction for name, measure in OBJECTIVES.items()}}
CURVED = ("entropy", "novelty", "explore_share")
TOPS = (1, 3, 5)
FEWEST = 3
FEWEST_IN_HALF = 5
_UNKNOWN = LabelledRun()


def agreement_with_accuracy(rows: Sequence[Row], run: LabelledRun = _UNKNOWN) -> dict[str, Any]:
    """Agreement of every measure and baseline with accuracy, over the ranked rows that have an accuracy.

    run: of which the rows are all or a part. Without it there are no baselines, noise ceiling and gain over equal
    weights. Raises InputError if fewer than three rows have an accuracy.
    """
    measured = [row for row in rows if row.accuracy is not None and row.rank is not None]
    # Ties are in order of trial, however the leaderboard is sorted.
    measured.sort(key=lambda row: trial_order(row.kind, row.trial))
    if len(measured) < FEWEST:
        raise InputError(
            f"only {len(measured)} of {counted(len(rows), 'trial')} {'has' if len(measured) == 1 else 'have'} "
            f"accuracy; give it for at least {FEWEST}, "
            "or measure it: --accuracy builtin (qwen3-tiny only), or nex-merge benchmark"
        )
    check_one_source(row.accuracy_source for row in measured)
    accuracy = np.array([row.accuracy for row in measured], float)
    parents = [row.accuracy for row in measured if row.kind == "parent" and row.accuracy is not None]
    best = int(np.argmax(accuracy))
    references = {"best_parent": max(parents) if parents else None, "equal_weights": run.equal_weights}
    columns = {name: _column([row.column(name) for row in measured]) for name in COMPARED}
    defined = {name: x for name, x in columns.items() if not np.isnan(x).any()}
    computed = {name: _column([values.get(row.trial) for row in measured]) for name, values in run.baselines.items()}
    return {
        "trials": len(measured),
        "collapsed": sum(row.state == "collapsed" for row in measured),
        "best_accuracy": float(accuracy[best]),
        "best_trial": measured[best].trial,
        "best_parent_accuracy": references["best_parent"],
        "equal_weights_accuracy": references["equal_weights"],
        "noise_ceiling": _ceiling(measured, accuracy, run),
        "scores": {
            name: _agreement_of(COMPARED[name], x, measured, accuracy, references) for name, x in defined.items()
        },
        "left_out": [name for name in COMPARED if name not in defined],
        # Unlike a measure, a baseline is compared over the variants that have it.
        "baselines": {
            name: _agreement_of(BASELINES[name], x, measured, accuracy, references)
            for name, x in computed.items()
            if np.isfinite(x).sum() >= FEWEST
        },
        "baselines_left_out": [name for name, x in computed.items() if np.isfinite(x).sum() < FEWEST],
        "distance_from": run.nearest,
        "curves": {name: figures for name in CURVED if (figures := curve(columns[name], accuracy)) is not None},
    }


def check_one_source(sources: Iterable[str | None]) -> None:
    """Raise InputError where accuracies were measured on different data. `sources`: what each was measured on."""
    found = sorted(set(map(str, sources)))
    if len(found) > 1:
        raise InputError(
            f"accuracy comes from different data ({'; '.join(found)}), which can't be compared; measure all variants "
            "on the same data"
        )


def _column(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _agreement_of(
    direction: int,
    values: np.ndarray,
    rows: Sequence[Row],
    accuracy: np.ndarray,
    references: Mapping[str, float | None],
) -> dict[str, Any]:
    """The figures of one measure, over the variants with a value. Regrets are against the best of all variants."""
    there = np.flatnonzero(~np.isnan(values))
    x, y = direction * values[there], accuracy[there]
    order = np.argsort(-x, kind="stable")
    top = rows[int(there[order[0]])]
    better = y >= np.median(accuracy)
    half = correlations(x[better], y[better])["spearman"] if better.sum() >= FEWEST_IN_HALF else None
    return {
        "direction": "higher is better" if direction > 0 else "lower is better",
        "variants": len(there),
        **correlations(x, y),
        "spearman_better_half": half or {"value": None, "low": None, "high": None},
        "better_half": int(better.sum()),
        "top_trial": top.trial,
        "top_accuracy": top.accuracy,
        "regret": {str(k): float(accuracy.max() - y[order[:k]].max()) for k in TOPS},
        **{
            f"gain_over_{name}": None if reference is None or top.accuracy is None else top.accuracy - reference
            for name, reference in references.items()
        },
        "overlap": {str(k): _overlap(x, y, k) for k in TOPS},
    }


def _ceiling(rows: Sequence[Row], accuracy: np.ndarray, run: LabelledRun) -> dict[str, Any] | None:
    """How well labels on the run's prompts and samples would rank the rows' variants; None if its size is not known.

    The accuracies' own noise is removed first if the number of problems behind each is known, and the noise that they
    have in common if all their answers are. `accuracy_ranks_at`: the same for labels on those problems.
    """
    if run.prompts is None or run.prompts < 1:
        return None
    trials = [row.trial for row in rows]
    problems = np.array([run.problems.get(trial, 0) for trial in trials])
    known = bool((problems > 0).all())
    answers = [run.right.get(trial, "") for trial in trials]
    paired = min(map(len, answers)) > 1 and len(set(map(len, answers))) == 1
    shared = shared_noise(np.array([[mark == "1" for mark in line] for line in answers])) if paired else None
    true = true_accuracies(accuracy, problems, shared or 0.0) if known else accuracy
    return {
        **noise_ceiling(true, run.prompts, run.samples, shared or 0.0),
        "prompts": run.prompts,
        "samples": run.samples,
        "problems": int(problems.min()) if known else None,
        "shared_noise": shared,
        "accuracy_ranks_at": noise_ceiling(true, int(problems.min()), 1, shared or 0.0)["value"] if known else None,
    }


def _overlap(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Share of the top k by x that are in the top k by y; the expectation if the k-th place is tied."""
    k = min(k, len(x))
    inside = []
    for values in (x, y):
        edge = np.sort(values)[-k]
        above, tied = values > edge, values == edge
        inside.append(above + tied * (k - above.sum()) / tied.sum())
    return float((inside[0] * inside[1]).sum() / k)


def split(rows: Sequence[Row], by: str) -> dict[str, list[Row]]:
    """The rows of every value of a column (for example method), base and parents in every part."""
    shared = [row for row in rows if row.kind != "merge"]
    values = sorted({str(row.column(by)) for row in rows if row.kind == "merge"})
    return {
        value: [*shared, *(row for row in rows if row.kind == "merge" and str(row.column(by)) == value)]
        for value in values
    }
