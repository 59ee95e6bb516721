"""Recipes, trial results, and the state of a running search."""

from collections.abc import Mapping
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
class Live:
    """The state of a running search, as in live.json. Times are seconds since the epoch."""

    done: int  # finished trials, base and parents included
    total: int
    trial: str
    method: str
    stage: str  # merge | generate | capture | score
    amount: int  # tokens generated or responses captured in this stage
    stage_began: float
    trial_began: float
    told: float  # when this state was published
    host: str
    process: int
