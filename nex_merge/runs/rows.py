"""A row of the leaderboard: a trial with its place, its measures and how it ended; and the columns of its files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nex_merge.measures.registry import MEASURES
from nex_merge.records import Estimate
from nex_merge.runs.accuracies import Measured

IDENTITY = ("rank", "front", "trial", "kind", "method")
ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_source")
OUTCOME = ("violation", "seconds", "state", "answered", "stage", "reason", "reference", "recommended")
# Measures of accuracy whose odds hang on how far variants vouch for one another: they are given as a range.
VOTED = tuple(name for name, measure in MEASURES.items() if measure.claims_accuracy and measure.needs_pool)
ODDS = ("beats_parent", "beats_parent_most", "beats_equal", "beats_equal_most")
PARAMETER = "p."  # begins the columns of searched parameters
TASK = "accuracy."  # begins the columns of the accuracy on one task of several


def _measure_columns() -> list[str]:
    columns = []
    for name, measure in MEASURES.items():
        columns.append(name)
        if measure.with_interval:
            columns += [f"{name}_low", f"{name}_high"]
        if name in VOTED:
            columns += [f"{name}_{odds}" for odds in ODDS]
    return columns


COLUMNS = (*IDENTITY, "beats_parent", "beats_equal", *_measure_columns(), *ACCURACY, *OUTCOME)


@dataclass(frozen=True)
class Row:
    """A trial on the leaderboard."""

    trial: str  # base, a parent's name, or the study's trial number in four digits
    kind: str  # base | parent | merge
    method: str
    state: str  # complete | pruned | infeasible | collapsed | failed | duplicate
    rank: int | None = None  # None: it has no values
    front: int | None = None  # None: a single objective, or not complete with all of them
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by measure
    objectives: tuple[str, ...] = ()  # measures that the run ranks by, the first one first
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of a merge, searched parameters by name in the study
    accuracy: float | None = None  # on labelled prompts, with its 95 % interval and what it was measured on
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_source: str | None = None
    accuracies: Mapping[str, Measured] = field(default_factory=dict)  # by task, where the run's trials have several
    violation: float | None = None  # above 0: collapsed or infeasible
    seconds: float = 0.0
    answered: float = 1.0  # share of the prompts
    stage: str = "search"  # search | final: where the values come from
    reason: str | None = None  # why it is not complete
    reference: str | None = None  # what others are compared with it as
    recommended: str | None = None  # the measure that it is recommended by

    def value(self, measure: str) -> float | None:
        """A measure's value, None if it has none."""
        estimate = self.estimates.get(measure)
        return None if estimate is None else estimate.value

    def known(self, measure: str) -> float:
        """The value of a measure that has one."""
        value = self.value(measure)
        assert value is not None, (self.trial, measure)
        return value

    def interval(self, measure: str) -> tuple[float | None, float | None]:
        """Both ends of the 95 % interval of an objective, or of a measure that always has columns for it; else None."""
        estimate = self.estimates.get(measure)
        shown = measure in self.objectives or MEASURES[measure].with_interval
        return (estimate.low, estimate.high) if shown and estimate is not None else (None, None)

    @property
    def beats_parent(self) -> float | None:
        """Confidence that a merge beats base and every parent by the first objective."""
        return None if self._ranked_by is None else self._ranked_by.beats_parent

    @property
    def beats_equal(self) -> float | None:
        """Confidence that a merge beats equal weights by the first objective."""
        return None if self._ranked_by is None else self._ranked_by.beats_equal

    @property
    def _ranked_by(self) -> Estimate | None:
        return self.estimates.get(self.objectives[0]) if self.objectives else None

    def column(self, name: str) -> Any:
        """What a column of the leaderboard has here; None where it has nothing, or there is no such column."""
        return self._by_column.get(name)

    def as_mapping(self) -> dict[str, Any]:
        """By column, what the leaderboard has here; without parameters that only other rows have."""
        return dict(self._by_column)

    @cached_property
    def _by_column(self) -> Mapping[str, Any]:
        return dict(self._cells())

    def _cells(self) -> Iterator[tuple[str, Any]]:
        for name in (*IDENTITY, "beats_parent", "beats_equal"):
            yield name, getattr(self, name)
        for name, measure in MEASURES.items():
            estimate = self.estimates.get(name)
            yield name, self.value(name)
            if measure.with_interval or name in self.objectives:
                yield from zip((f"{name}_low", f"{name}_high"), self.interval(name), strict=True)
            if name in VOTED:
                yield from ((f"{name}_{odds}", estimate and getattr(estimate, odds)) for odds in ODDS)
        for name in ACCURACY:
            yield name, getattr(self, name)
        yield from ((f"{TASK}{name}", measured.accuracy) for name, measured in sorted(self.accuracies.items()))
        for name in OUTCOME:
            yield name, getattr(self, name)
        yield from ((f"{PARAMETER}{name}", value) for name, value in sorted(self.parameters.items()))


def columns_of(rows: Sequence[Row]) -> list[str]:
    """The fixed columns, those of an objective's interval and of single tasks beside them, then one per parameter."""
    given = {key for row in rows for key in row.as_mapping()}
    fixed = []
    for name in COLUMNS:
        fixed.append(name)
        if name in MEASURES:
            fixed += [end for end in (f"{name}_low", f"{name}_high") if end in given and end not in COLUMNS]
        if name == ACCURACY[-1]:
            fixed += [f"{TASK}{task}" for task in tasks_of(rows)]
    return [*fixed, *(f"{PARAMETER}{name}" for name in parameters_of(rows))]


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """What the rows have an accuracy each of, sorted; empty where all have been measured on the same alone."""
    return sorted({name for row in rows for name in row.accuracies})


def parameters_of(rows: Sequence[Row]) -> list[str]:
    """The searched parameters of any of the rows, sorted."""
    return sorted({name for row in rows for name in row.parameters})
