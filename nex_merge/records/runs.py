"""What a search makes: recipes, results, and what it is at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nex_merge.records.observations import Estimate
from nex_merge.records.scores import NexScore


@dataclass(frozen=True)
class MergeRecipe:
    """One variant: a complete mergekit configuration and the seed that its stochastic parts take."""

    kind: str  # base | parent | merge
    method: str
    config: Mapping[str, Any]  # as `mergekit-yaml` takes it
    seed: int
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what was searched, by name


@dataclass(frozen=True)
class TrialResult:
    """What came of one trial: one row of the leaderboard. A failed trial has a reason and no values."""

    trial: str  # base, a parent's name, or the study's trial number in four digits
    kind: str  # base | parent | merge
    name: str  # base, the parent's name, or the method
    method: str
    seed: int
    state: str  # complete | collapsed | failed | duplicate
    reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what was searched, by name in the study
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by measure, as known when the trial ended
    score: NexScore | None = None
    violation: float | None = None  # above 0: infeasible; the sampler is told
    weights_sha256: str | None = None  # of the merged tensors that were scored
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage
    same_as: str | None = None  # of a duplicate: the earlier trial with the same recipe
    is_reference: bool = False  # the merge with equal weights, which the others are compared with

    def value(self, measure: str) -> float | None:
        """A measure's value, None where it is not known."""
        estimate = self.estimates.get(measure)
        return estimate.value if estimate is not None else None


@dataclass(frozen=True)
class Live:
    """What a search is at, told while it runs. Times are seconds since the epoch."""

    done: int  # trials, base and parents among them
    total: int
    trial: str
    method: str
    stage: str  # merge | generate | capture | score
    amount: int  # tokens generated, or responses captured, of this stage
    stage_began: float
    trial_began: float
    told: float
    host: str
    process: int
