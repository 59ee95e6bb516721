"""The interface `Measure`: a function of the pool of variants, also defined on resampled prompts.

Symbols: K variants of a pool, P prompts, B resamples of the prompts; `counts`, int64 [B, P], says how often each prompt
is in each resample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.concluding import choose_match, conclusions_of
from nex_merge.measures.readings import Readings, readings
from nex_merge.measures.repeatability import assess_repeatability
from nex_merge.measures.votes import Conclusions, Fit, Votes
from nex_merge.nex.calibration import calibrate
from nex_merge.nex.scoring import rescore
from nex_merge.one_thread import on_one_thread
from nex_merge.records import Estimate, NeuronWeights, NexScore, Questions, Variant, Verdict
from nex_merge.setup.config import ConsensusConfig, NexConfig, RunConfig


@dataclass(frozen=True)
class Value:
    """A measure's value for one variant: sum(parts) / sum(weights), passed through `Measure.finish`."""

    value: float | None  # None: undefined
    parts: np.ndarray | None = None  # float64 [P]; None: not available by prompt
    weights: np.ndarray | None = None  # float64 [P]


@dataclass(frozen=True)
class Rules:
    """What measures go by, beside the variants: the settings of a run, and what it knows of its prompts."""

    nex: NexConfig = field(default_factory=NexConfig)
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    questions: Questions = field(default_factory=Questions)


class Pool:
    """The variants with responses: base, parents, then merges by number."""

    def __init__(
        self,
        variants: Sequence[Variant],
        rules: Rules,
        weights: NeuronWeights | None = None,
        prompts: int | None = None,
        same: "Pool | None" = None,
    ) -> None:
        """`weights`: the shared neuron weights, if they are already computed. `prompts`: how many there are, where
        these variants may not have answered the last ones. `same`: a pool of the same answers, not to be read twice.
        """
        self.variants, self.rules = tuple(variants), rules
        self.nex, self.consensus, self.questions = rules.nex, rules.consensus, rules.questions
        self._weights, self._prompts, self._same = weights, prompts, same

    @cached_property
    def prompts(self) -> int:
        """Number of prompts: P."""
        if self._prompts is not None:
            return self._prompts
        return max((response.prompt + 1 for v in self.variants for response in v.observation.responses), default=0)

    @cached_property
    def asked(self) -> np.ndarray:
        """The prompts that any variant has answered, int64, ascending: not all where some are kept for a final."""
        return np.unique([response.prompt for v in self.variants for response in v.observation.responses]).astype(int)

    @cached_property
    def match(self) -> str:
        """How conclusions are read: `consensus.match` or, for auto, as known truths were or as most responses end."""
        match = self.consensus.match
        if match == "auto" and self.questions.match is not None:
            return self.questions.match
        return choose_match([v.observation for v in self.variants]) if match == "auto" else match

    @cached_property
    def conclusions(self) -> list[Conclusions]:
        """What the responses of each variant conclude."""
        return [conclusions_of(v.observation, self.match, self.questions.options) for v in self.variants]

    @cached_property
    def votes(self) -> Votes:
        if self._same is not None:
            return self._same.votes
        return Votes(self.conclusions, self.prompts, self.questions.options, self.questions.truths)

    @cached_property
    def readings(self) -> Readings:
        """Who repeats whom among the variants."""
        return readings(self.votes) if self._same is None else self._same.readings

    @cached_property
    def fit(self) -> Fit:
        """What the pool concludes, and how reliable each variant is."""
        return self.readings.fit

    @cached_property
    def weights(self) -> NeuronWeights | None:
        """The neuron weights shared by all variants; None under `self` and `crossfit`."""
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
    """The neuron weights shared by all variants under `parents` and `pool`; None under `self` and `crossfit`.

    None, too, if no variant was captured. Raises InputError if there is no variant to take them from.
    """
    if nex.calibration in ("self", "crossfit"):
        return None
    captured = [variant for variant in variants if variant.observation.evidence is not None]
    if variants and not captured:
        return None  # there is nothing to score
    sources = teachers(captured, nex)
    if not sources:
        raise InputError(
            f"nex.calibration: {nex.calibration!r} takes its weights from base and parents, and none of them is scored "
            "and captured; use self or crossfit"
        )
    return calibrate(*(v.observation.evidence.credits for v in sources if v.observation.evidence is not None))


def teachers(variants: Sequence[Variant], nex: NexConfig) -> list[Variant]:
    """The variants whose credit the weights come from under `parents` and `pool`."""
    return [v for v in variants if v.complete and (v.kind != "merge" or nex.calibration == "pool")]


@dataclass(frozen=True)
class Grounds:
    """What a verdict on a measure rests on, beside the pool."""

    estimates: Mapping[str, Mapping[str, Estimate]]  # by trial, then measure
    split_half: float | None  # reliability of the ranking over halves of the prompts; None: too few variants
    silent: Sequence[str] = ()  # the complete variants that mostly give empty responses


@dataclass(frozen=True)
class Measure:
    """A quantity that variants are ranked by or compared on. Subclasses implement `values`."""

    name: str  # its column, and its name in study.objective
    direction: int  # +1: more is better, -1: less is better, by convention
    unit: str  # "" for shares and ratios
    digits: int  # after the decimal point, in tables
    meaning: str  # short description for the reference and the report
    is_objective: bool = True  # whether a study can optimize it
    heading: str = ""  # in terminal tables; "": not shown
    with_interval: bool = False  # whether the leaderboard has columns for its interval
    needs_pool: bool = False  # whether a variant's value takes the other variants' answers
    claims_accuracy: bool = False  # whether it is meant to rank variants by how often they are right
    reads_activations: bool = False  # whether it takes a second pass over the responses
    takes_labels: bool = False  # whether known truths change its values
    highest: float = 1.0  # the largest value it can have, 1 for shares; the smallest is 0
    title: str = ""  # in sentences and figures; "": its name, with blanks
    condition: str = ""  # what a ranking by it hangs on that answers can't show, as a sentence
    fewest_telling: int = 0  # prompts that tell variants apart without which no verdict on it is sound

    def values(self, pool: Pool) -> list[Value]:
        """One value per variant of the pool, in order."""
        raise TypeError(f"{type(self).__name__} does not implement values()")

    def is_defined(self, pool: Pool) -> bool:
        """Whether the pool supports the measure at all. Not asked during a search, whose pool still grows."""
        return True

    def check(self, config: RunConfig, key: str) -> None:
        """Raise InputError if a search can't measure what `key` asks it for, as an objective or a constraint."""
        if self.reads_activations and config.activations.capture != "all":
            raise InputError(
                f"activations.capture: {key} {self.name} is computed from activations; use all, or what is read from "
                "answers, such as consensus"
            )

    def judge(self, pool: Pool, grounds: Grounds) -> Verdict:
        """Whether the measure supports a ranking of the pool's variants."""
        return assess_repeatability(grounds.split_half, grounds.silent)

    def is_pooled(self, nex: NexConfig) -> bool:
        """Whether a variant's value depends on the other variants, so that it changes as the pool grows."""
        return False

    def is_by_prompt(self, nex: NexConfig) -> bool:
        """Whether variants can be compared on some of the prompts: what one is worth there doesn't take the others."""
        return True

    def can_race(self, nex: NexConfig) -> bool:
        """Whether a merge can be compared with others while it still answers."""
        return self.is_objective and self.is_by_prompt(nex) and not self.reads_activations

    @on_one_thread
    def resample(self, pool: Pool, values: Sequence[Value], counts: np.ndarray) -> np.ndarray:
        """The values on resamples of the prompts, float64 [K, B]; NaN where undefined."""
        drawn = np.full((len(values), len(counts)), np.nan)
        for row, item in zip(drawn, values, strict=True):
            if item.value is not None and item.parts is not None and item.weights is not None:
                sizes = counts @ item.weights
                with np.errstate(invalid="ignore", divide="ignore"):
                    row[:] = self.finish(np.where(sizes > 0, counts @ item.parts / sizes, np.nan))
        return drawn

    def beliefs(self, pool: Pool) -> Sequence[Sequence[Value]]:
        """The values under other beliefs that the answers don't contradict; odds are given as the range under them."""
        return ()

    def halves(self, pool: Pool, values: Sequence[Value], counts: np.ndarray) -> np.ndarray:
        """The values on halves of the prompts, float64 [K, B], for split-half reliability."""
        return self.resample(pool, values, counts)

    def finish(self, ratio: np.ndarray) -> np.ndarray:
        """The measure as a function of sum(parts) / sum(weights), element by element."""
        return ratio


def by_prompt(figures: np.ndarray, prompts: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(sums, counts) by prompt of the defined per-response figures: both float64 [P], from float64 [R]."""
    defined = np.isfinite(figures)
    sums = np.bincount(prompts[defined], figures[defined], minlength=count)
    return sums, np.bincount(prompts[defined], minlength=count).astype(np.float64)


def prompts_of(variant: Variant) -> np.ndarray:
    """The prompt index of each response of a variant, int64 [R]."""
    return np.array([response.prompt for response in variant.observation.responses], np.int64)
