"""Measures that are means over responses: length, token statistics, neurons used, text statistics."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from nex_merge.measures.finishing import LOOP
from nex_merge.measures.measure import Measure, Pool, Value, by_prompt, prompts_of
from nex_merge.measures.text import text_figures
from nex_merge.records import Observation, TextFigures, Variant

LARGEST_EXPONENT = 700.0  # exp of more overflows float64


@dataclass(frozen=True)
class PerResponse(Measure):
    """The mean of a per-response figure over the responses for which it is defined."""

    # float64 [R], NaN where undefined; None if the observation lacks it.
    figures: Callable[[Observation], np.ndarray | None] = lambda observation: None

    def values(self, pool: Pool) -> list[Value]:
        return [self._value(variant, pool.prompts) for variant in pool.variants]

    def _value(self, variant: Variant, prompts: int) -> Value:
        figures = self.figures(variant.observation)
        if figures is None:
            # A run of version 0.1.0 kept some means without the per-response figures.
            return Value(variant.recorded.get(self.name))
        defined = figures[np.isfinite(figures)]
        divisor = self.divisor(variant.observation)
        mean = float(self.finish(defined.mean() / divisor)) if len(defined) else None
        sums, counts = by_prompt(figures, prompts_of(variant), prompts)
        return Value(mean, sums, counts * divisor)

    def divisor(self, observation: Observation) -> float:
        """What the mean is divided by."""
        return 1.0


@dataclass(frozen=True)
class Utilization(PerResponse):
    """Distinct neurons of a response as a share of all neurons of the model."""

    def divisor(self, observation: Observation) -> float:
        return float(observation.neurons or 1)


@dataclass(frozen=True)
class Perplexity(PerResponse):
    """exp of the mean negative log-probability."""

    def finish(self, ratio: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(ratio, LARGEST_EXPONENT))


def _stat(name: str, sign: int = 1) -> Callable[[Observation], np.ndarray | None]:
    def figures(observation: Observation) -> np.ndarray | None:
        if observation.stats is None:
            return None
        return sign * np.array([getattr(item, name) for item in observation.stats], np.float64)

    return figures


def _distinct_neurons(observation: Observation) -> np.ndarray | None:
    if observation.evidence is None or observation.neurons is None:
        return None
    return np.diff(observation.evidence.base.ptr).astype(np.float64)


def _novelty(observation: Observation) -> np.ndarray | None:
    return None if observation.phases is None else observation.phases.novelty


def _tokens(observation: Observation) -> np.ndarray:
    return np.array([len(response.token_ids) for response in observation.responses], np.float64)


def _looping(observation: Observation) -> np.ndarray:
    text = observation.text or text_figures(observation.responses)
    return text.truncated * (text.repeated > LOOP)


def _text(name: str, direction: int, meaning: str) -> PerResponse:
    assert name in {item.name for item in fields(TextFigures)}, name

    def figures(observation: Observation) -> np.ndarray:
        return getattr(observation.text or text_figures(observation.responses), name)

    return PerResponse(name, direction, "", 4, meaning, is_objective=False, figures=figures)


MEAN_TOKENS = PerResponse(
    "mean_tokens", -1, "tokens", 0, "mean tokens per response", heading="tokens", figures=_tokens, highest=math.inf
)
ENTROPY = PerResponse(
    "entropy", -1, "nats", 4, "mean entropy of the next-token distribution", figures=_stat("entropy"),
    reads_activations=True, highest=math.inf,
)  # fmt: skip
ENTROPY_SPREAD = PerResponse(
    "entropy_spread", -1, "nats", 4, "standard deviation of the next-token entropy over a response",
    figures=_stat("entropy_spread"), reads_activations=True, highest=math.inf,
)  # fmt: skip
SELF_CERTAINTY = PerResponse(
    "self_certainty", 1, "nats", 4, "mean KL divergence of the next-token distribution from uniform (arXiv 2502.18581)",
    figures=_stat("self_certainty"), reads_activations=True, highest=math.inf,
)  # fmt: skip
PERPLEXITY = Perplexity(
    "perplexity", -1, "", 4, "exp of the mean negative log-probability of a response's tokens",
    figures=_stat("logprob", -1), reads_activations=True, highest=math.inf,
)  # fmt: skip
UTILIZATION = Utilization(
    "utilization", -1, "", 4, "share of the model's neurons that a response uses", figures=_distinct_neurons,
    reads_activations=True,
)  # fmt: skip
NOVELTY = PerResponse(
    "novelty", -1, "neurons per token", 4, "new neurons per token", figures=_novelty,
    reads_activations=True, highest=math.inf,
)  # fmt: skip
TRUNCATED = _text("truncated", -1, "share of responses cut at generation.max_new_tokens")
LOOPING = PerResponse(
    "looping", -1, "", 4, "share of responses cut at generation.max_new_tokens in a loop", is_objective=False,
    figures=_looping,
)  # fmt: skip
DISTINCT_RATIO = _text("distinct_ratio", 1, "share of distinct token 4-grams")
REPEATED = _text("repeated", -1, "share of a response's tokens in a loop")
EMPTY = _text("empty", -1, "share of empty responses")
NON_TEXT = _text("non_text", -1, "share of replacement, control and unassigned characters")
