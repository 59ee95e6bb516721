"""What a measure is: a function of the pool of variants, with a rule for its values on resampled prompts.

Symbols: K variants of a pool, P prompts, B resamples of the prompts; `counts`, int64 [B, P], says how often each prompt
is in each resample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nex_merge.errors import InputError
from nex_merge.nex.calibration import calibrate
from nex_merge.nex.scoring import rescore
from nex_merge.records import NeuronWeights, NexScore, Variant
from nex_merge.setup.config import ConsensusConfig, NexConfig


@dataclass(frozen=True)
class Value:
    """A measure's value for one variant: sum(parts) / sum(weights), or what the measure makes of that ratio."""

    value: float | None  # None: undefined
    parts: np.ndarray | None = None  # float64 [P]; None: there are no figures by prompt
    weights: np.ndarray | None = None  # float64 [P]


class Pool:
    """The variants that answered, and the settings that measures go by. Base, parents, then merges by number."""

    def __init__(
        self,
        variants: Sequence[Variant],
        nex: NexConfig,
        consensus: ConsensusConfig,
        weights: NeuronWeights | None = None,
    ) -> None:
        """`weights`: those that all variants share, where they are known already."""
        self.variants = tuple(variants)
        self.nex, self.consensus = nex, consensus
        self._weights = weights

    @cached_property
    def prompts(self) -> int:
        """How many prompts there are: P."""
        return max((response.prompt + 1 for v in self.variants for response in v.observation.responses), default=0)

    @cached_property
    def weights(self) -> NeuronWeights | None:
        """The neuron weights that all variants share; None under `self` and `crossfit`."""
        return self._weights if self._weights is not None else shared_weights(self.variants, self.nex)

    @cached_property
    def scores(self) -> Mapping[str, NexScore]:
        """The NEX of every variant whose activations were captured, by trial."""
        return {
            v.trial: rescore(v.score, v.observation.evidence, self.nex.calibration, self.weights)
            for v in self.variants
            if v.score is not None and v.observation.evidence is not None
        }


def shared_weights(variants: Sequence[Variant], nex: NexConfig) -> NeuronWeights | None:
    """The neuron weights that all variants share under `parents` and `pool`; None under `self` and `crossfit`.

    Raises InputError where no variant has any credit to take them from.
    """
    if nex.calibration in ("self", "crossfit"):
        return None
    taught = teachers(variants, nex)
    if not taught:
        raise InputError(
            f"nex.calibration: {nex.calibration!r} takes its weights from base and parents, and none of them is "
            "scored; use self or crossfit"
        )
    return calibrate(*(v.observation.evidence.credits for v in taught if v.observation.evidence is not None))


def teachers(variants: Sequence[Variant], nex: NexConfig) -> list[Variant]:
    """The variants whose credit makes the weights of `parents` and `pool`."""
    return [v for v in variants if v.complete and (v.kind != "merge" or nex.calibration == "pool")]


@dataclass(frozen=True)
class Measure:
    """Anything variants are ranked by or looked at. Subclasses say how the values come about."""

    name: str  # its column, and what study.objective calls it
    direction: int  # +1: more is better, -1: less is better, as it is usually read
    unit: str  # "" for shares and ratios
    digits: int  # after the decimal point, in tables
    meaning: str  # half a sentence for the reference and the report
    is_objective: bool = True  # whether a study can be led by it
    heading: str = ""  # in terminal tables; "": not shown there
    with_interval: bool = False  # whether the leaderboard has its interval in columns of their own
    needs_pool: bool = False  # whether one variant alone has no value

    def values(self, pool: Pool) -> list[Value]:
        """One value per variant of the pool, in order."""
        raise TypeError(f"{type(self).__name__} does not say how its values come about")

    def is_pooled(self, nex: NexConfig) -> bool:
        """Whether a variant's value depends on the other variants, so that it changes as the pool grows."""
        return False

    def resample(self, pool: Pool, values: Sequence[Value], counts: np.ndarray) -> np.ndarray:
        """The values on resamples of the prompts, float64 [K, B]; NaN where undefined."""
        drawn = np.full((len(values), len(counts)), np.nan)
        for row, item in zip(drawn, values, strict=True):
            if item.value is not None and item.parts is not None and item.weights is not None:
                sizes = counts @ item.weights
                with np.errstate(invalid="ignore", divide="ignore"):
                    row[:] = self.finish(np.where(sizes > 0, counts @ item.parts / sizes, np.nan))
        return drawn

    def finish(self, ratio: np.ndarray) -> np.ndarray:
        """What the measure makes of sum(parts) / sum(weights), element by element."""
        return ratio


def by_prompt(figures: np.ndarray, prompts: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(sums, numbers) of the defined figures of every prompt, both float64 [P], from figures float64 [R]."""
    known = np.isfinite(figures)
    sums = np.bincount(prompts[known], figures[known], minlength=count)
    return sums, np.bincount(prompts[known], minlength=count).astype(np.float64)


def prompts_of(variant: Variant) -> np.ndarray:
    """The prompt that each response of a variant answers, int64 [R]."""
    return np.array([response.prompt for response in variant.observation.responses], np.int64)
