"""What a search makes: recipes, results, and what it is at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nex_merge.records.answers import Rivals, TextMeasures
from nex_merge.records.scores import NexScore


@dataclass(frozen=True)
class MergeRecipe:
    """One variant: a complete mergekit configuration and the seed that its stochastic parts take."""

    kind: str  # base | parent | merge
    method: str
    config: Mapping[str, Any]  # as `mergekit-yaml` takes it
    seed: int
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what was searched, by name


# What a variant can be ranked by, and which way: +1, more is better. NEX as defined; the rest as they are usually read.
SCORES: Mapping[str, int] = {
    "nex": 1, "mean_tokens": -1, "entropy": -1, "entropy_spread": -1, "self_certainty": 1, "perplexity": -1,
    "utilization": -1, "novelty": -1, "explore_share": -1, "cycles_per_response": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TrialResult:
    """One row of the leaderboard. A failed trial has a reason and no score."""

    trial: str  # base, a parent's name, or the study's trial number in four digits
    kind: str
    name: str  # base, the parent's name, or the method
    method: str
    seed: int
    state: str  # complete | collapsed | failed | duplicate
    reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    score: NexScore | None = None
    text: TextMeasures | None = None
    rivals: Rivals | None = None
    violation: float | None = None  # above 0: collapsed, or beyond the token budget; told to the sampler
    weights_sha256: str | None = None  # of the merged tensors that were scored
    seconds: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_low: float | None = None  # 95 % binomial interval
    accuracy_high: float | None = None
    accuracy_source: str | None = None
    same_as: str | None = None  # of a duplicate: the earlier trial with the same recipe

    def value(self, name: str) -> float | None:
        """One of SCORES, None where it is not known."""
        if name == "nex":
            return self.score.nex if self.score is not None else None
        if name == "explore_share":
            return self.score.explore_share if self.score is not None else None
        if name == "cycles_per_response":
            return self.score.cycles / max(self.score.responses, 1) if self.score is not None else None
        return getattr(self.rivals, name) if self.rivals is not None else None


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
