"""Recipes, trial results, and the state of a running search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nex_merge.records.observations import Estimate
from nex_merge.records.scores import NexScore


@dataclass(frozen=True)
class MergeRecipe:
    """One variant: a complete mergekit configuration and the seed of its random masks."""

    kind: str  # base | parent | merge
    method: str
    config: Mapping[str, Any]  # as `mergekit-yaml` takes it
    seed: int
    parameters: Mapping[str, Any] = field(default_factory=dict)  # searched parameters, by name


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial, a row of the leaderboard. A failed trial has a reason and no values."""

    trial: str  # base, a parent's name, or the study's trial number in four digits
    kind: str  # base | parent | merge
    name: str  # base, the parent's name, or the method
    method: str
    seed: int
    state: str  # complete | pruned | infeasible | collapsed | failed | duplicate
    reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)  # searched parameters, by name in the study
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by measure, as of the end of the trial
    score: NexScore | None = None
    violation: float | None = None  # the greatest of `violations`; above 0: collapsed or infeasible
    # By constraint, collapse and those of the configuration, as reported to the sampler; above 0: violated. Empty in
    # results that were written before constraints had names.
    violations: Mapping[str, float] = field(default_factory=dict)
    weights_sha256: str | None = None  # of the merged tensors that were scored
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage
    same_as: str | None = None  # for a duplicate: the earlier trial with the same recipe
    tokens: int | None = None  # generated, over all responses; None: not recorded (older versions, failed trials)
    is_reference: bool = False  # the merge with equal weights, which other merges are compared with
    answered: float = 1.0  # share of the prompts; less if the trial ended early
    lost_to: str | None = None  # if pruned: the trial that it was unlikely to overtake

    def value(self, measure: str) -> float | None:
        """A measure's value, None if it has none."""
        estimate = self.estimates.get(measure)
        return estimate.value if estimate is not None else None


@dataclass(frozen=True)
class LiveWorker:
    """What a worker is at. Times are seconds since the epoch."""

    worker: str
    state: str  # idle | busy | lost
    trial: str = ""  # its latest; "": none yet
    method: str = ""
    tries: int = 0
    stage: str = ""  # merge | generate | capture | score
    amount: int = 0  # tokens generated or responses captured in this stage
    stage_began: float = 0.0
    trial_began: float = 0.0
    told: float = 0.0  # when the amount was as it is


@dataclass(frozen=True)
class Live:
    """The state of a running search, as in live.json. Times are seconds since the epoch."""

    done: int  # finished trials, base and parents included
    total: int
    waiting: int  # trials that are done, and not finished before those ahead of them
    workers: Sequence[LiveWorker]
    told: float  # when this state was published
    host: str
    process: int


@dataclass(frozen=True)
class Stint:
    """What a worker did from one moment to another, a line of work.jsonl. Times are seconds since the epoch."""

    session: float  # when the search began, or went on
    worker: str
    trial: str  # "": none
    method: str  # base, parent, the method of a merge, or final
    tries: int
    began: float
    ended: float
    how: str  # ready (it came) | done | lost | stopped (the search ended)
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds by stage, in order
