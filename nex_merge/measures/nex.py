"""NEX (arXiv 2602.05805) and its intermediate figures, as measures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.measures.measure import Grounds, Measure, Pool, Value, by_prompt, prompts_of
from nex_merge.measures.nex_verdict import nex_reliability
from nex_merge.nex.scoring import resampled
from nex_merge.records import NexScore, Reliability, Verdict
from nex_merge.setup.config import NexConfig


@dataclass(frozen=True)
class Nex(Measure):
    """The mean Good-Mass Fraction. Weights from a variant's own responses are re-estimated in every resample."""

    def values(self, pool: Pool) -> list[Value]:
        return [self._value(pool, v.trial, prompts_of(v)) for v in pool.variants]

    def _value(self, pool: Pool, trial: str, prompts: np.ndarray) -> Value:
        score = pool.scores.get(trial)
        if score is None:
            return Value(None)
        fractions = np.array([np.nan if g is None else g for g in score.response_scores], np.float64)
        return Value(score.nex, *by_prompt(fractions, prompts, pool.prompts))

    def is_pooled(self, nex: NexConfig) -> bool:
        return nex.calibration == "pool"

    def is_by_prompt(self, nex: NexConfig) -> bool:
        # Otherwise the weights come from the responses to other prompts.
        return nex.calibration == "parents"

    def resample(self, pool: Pool, values: Sequence[Value], counts: np.ndarray) -> np.ndarray:
        drawn = np.full((len(values), len(counts)), np.nan)
        for row, variant, value in zip(drawn, pool.variants, values, strict=True):
            evidence = variant.observation.evidence
            if value.value is not None and evidence is not None:
                fractions = pool.scores[variant.trial].response_scores
                row[:] = resampled(evidence, fractions, pool.nex.calibration, counts[:, evidence.prompts])
        return drawn

    def judge(self, pool: Pool, grounds: Grounds) -> Verdict:
        found = self.reliability(pool, grounds)
        return Verdict(found.verdict, found.reasons, found.advice)

    def reliability(self, pool: Pool, grounds: Grounds) -> Reliability:
        """The verdict with the figures that it rests on, as reliability.json has them since version 0.1.0."""
        return nex_reliability(pool, grounds, self.name)


@dataclass(frozen=True)
class OfScore(Measure):
    """A figure of a variant's NEX score, not available by prompt."""

    figure: Callable[[NexScore], float | None] = lambda score: None

    def values(self, pool: Pool) -> list[Value]:
        scores = (pool.scores.get(v.trial) for v in pool.variants)
        return [Value(None if score is None else self.figure(score)) for score in scores]


@dataclass(frozen=True)
class ExploreShare(Measure):
    """Share of explore rows among all rows with a phase."""

    def values(self, pool: Pool) -> list[Value]:
        values = []
        for variant in pool.variants:
            score, phases = pool.scores.get(variant.trial), variant.observation.phases
            if score is None or phases is None:
                values.append(Value(score and score.explore_share))
                continue
            prompts = prompts_of(variant)
            parts, weights = (
                np.bincount(prompts, rows, minlength=pool.prompts) for rows in (phases.explore, phases.phased)
            )
            values.append(Value(score.explore_share, parts, weights))
        return values


@dataclass(frozen=True)
class Cycles(Measure):
    """Explore-exploit cycles per response."""

    def values(self, pool: Pool) -> list[Value]:
        values = []
        for variant in pool.variants:
            score, phases = pool.scores.get(variant.trial), variant.observation.phases
            value = None if score is None else score.cycles / max(score.responses, 1)
            if phases is None:
                values.append(Value(value))
            else:
                cycles = phases.cycles.astype(np.float64)
                values.append(Value(value, *by_prompt(cycles, prompts_of(variant), pool.prompts)))
        return values


NEX = Nex("nex", 1, "", 4, "mean Good-Mass Fraction (Neuron Explore-Exploit)", heading="nex", with_interval=True,
          claims_accuracy=True, reads_activations=True, title="NEX")  # fmt: skip
LOG_GAP = OfScore(
    "log_gap",
    1,
    "",
    4,
    "-log10(1 - nex)",
    is_objective=False,
    reads_activations=True,
    figure=lambda s: s.log_gap,
    highest=math.inf,
)
EXPLORE_SHARE = ExploreShare("explore_share", -1, "", 4, "share of explore rows", reads_activations=True)
CYCLES = Cycles(
    "cycles_per_response",
    1,
    "cycles",
    1,
    "explore-exploit cycles per response; credit requires two",
    reads_activations=True,
    highest=math.inf,
)
WEIGHTED_MASS = OfScore(
    "weighted_mass", 1, "", 4, "share of activation mass on neurons with a weight", is_objective=False,
    reads_activations=True, figure=lambda s: s.weighted_mass,
)  # fmt: skip
SATURATION = OfScore(
    "saturation", -1, "", 4, "share of weighted activation mass on neurons with |w| > 0.99", is_objective=False,
    reads_activations=True, figure=lambda s: s.saturation,
)  # fmt: skip
