"""A run under several objectives: the fronts of its variants, and the hypervolume of its merges over trials.

Merges are sorted among themselves, and base and parents have the number that they would have among them: a parent that
no merge comes near takes no merge off the front, and its own number says that it is as good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.measures.estimates import Objective
from nex_merge.measures.pareto import fronts, fronts_among, hypervolume
from nex_merge.records import TrialResult
from nex_merge.runs.files import trial_name, trial_order
from nex_merge.runs.rows import Row


@dataclass(frozen=True)
class Worst:
    """The worst value of an objective."""

    objective: Objective
    value: float
    trial: str  # whose it is


@dataclass(frozen=True)
class Volume:
    """The hypervolume of a run's complete merges after each of them.

    The reference is the worst value of each objective among base and parents, or of a complete merge that is worse.
    """

    trials: tuple[str, ...]  # complete merges by number
    values: tuple[float, ...]  # of the merges up to each
    baselines: float  # of base and parents; 0 without any
    reference: tuple[Worst, ...]  # by objective


def front_numbers(results: Sequence[TrialResult], objective: Objective) -> dict[str, int]:
    """The front of every complete variant that has all objectives, by trial; empty with a single objective."""
    if not objective.others:
        return {}
    points = {
        kind: {
            result.trial: point
            for result in results
            if result.state == "complete" and (result.kind == "merge") == (kind == "merge")
            if (point := _point(result.value, objective)) is not None
        }
        for kind in ("merge", "baseline")
    }
    merges, baselines = (np.array([*points[kind].values()]).reshape(-1, len(objective.all)) for kind in points)
    numbers = fronts(merges)
    found = dict(zip(points["merge"], numbers.tolist(), strict=True))
    return found | dict(zip(points["baseline"], fronts_among(merges, numbers, baselines).tolist(), strict=True))


def _point(value: Callable[[str], float | None], objective: Objective) -> list[float] | None:
    """The objectives, oriented so that more is better; None if one has no value."""
    found = [one.sign * known for one in objective.all if (known := value(one.name)) is not None]
    return found if len(found) == len(objective.all) else None


def first_front(rows: Sequence[Row]) -> list[Row]:
    """The merges that no other merge dominates, in the order of the leaderboard's rows."""
    return [row for row in rows if row.kind == "merge" and row.front == 1]


def volume_over(rows: Sequence[Row], objective: Objective) -> Volume | None:
    """The hypervolume over the trials of a leaderboard; None with a single objective, or without a complete merge."""
    if not objective.others:
        return None
    complete = [row for row in rows if row.state == "complete" and _point(row.value, objective) is not None]
    complete.sort(key=lambda row: trial_order(row.kind, row.trial))
    merges = [row for row in complete if row.kind == "merge"]
    if not merges:
        return None
    worst = [min(complete, key=lambda row, one=one: one.sign * row.known(one.name)) for one in objective.all]
    found = tuple(Worst(one, row.known(one.name), row.trial) for one, row in zip(objective.all, worst, strict=True))
    reference = np.array([item.objective.sign * item.value for item in found])
    baselines = [_point(row.value, objective) for row in complete if row.kind != "merge"]
    points = np.array([_point(row.value, objective) for row in merges])
    values, kept = [], points[:0]
    for point in points:
        if (kept >= point).all(axis=1).any():
            values.append(values[-1])
            continue
        kept = np.vstack([kept[~(kept <= point).all(axis=1)], point])
        values.append(hypervolume(kept, reference))
    return Volume(
        tuple(row.trial for row in merges),
        tuple(values),
        hypervolume(np.array(baselines), reference) if baselines else 0.0,
        found,
    )


def reference_in_words(volume: Volume) -> str:
    """Where the hypervolume is measured from, and whose values those are."""
    parts = [f"{item.objective.name} {item.value:.4g} ({trial_name(item.trial)})" for item in volume.reference]
    return f"the worst of all complete variants, {', '.join(parts)}"
