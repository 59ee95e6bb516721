"""Candidates -> their scores under each selector. Knows nothing of text, models or answers.

Symbols: P prompts, R candidates of all prompts in order of prompt, S subsets of n candidates per prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nex_merge.inspect.select.candidates import CandidatePool
from nex_merge.inspect.select.rules import medoid, neighbours, votes
from nex_merge.records import NeuronWeights

# What each selector picks.
SELECTORS: Mapping[str, str] = {
    "nex": "highest Good-Mass Fraction",
    "majority": "most frequent conclusion",
    "shortest": "fewest tokens",
    "entropy": "lowest mean token entropy",
    "self_certainty": "highest mean KL divergence of the next-token distribution from uniform",
    "fewest_neurons": "fewest distinct active neurons",
    "medoid": "highest mean Jaccard similarity of active neurons to all other candidates",
    "neighbours": "highest mean Jaccard similarity of active neurons to the three most similar candidates",
}
LESS_IS_BETTER = ("shortest", "entropy", "fewest_neurons")
CALIBRATIONS = ("pool", "prompt")


@dataclass(frozen=True)
class Candidates:
    """The inputs of the selectors. An empty response has NaN for every number, and no neurons."""

    prompts: np.ndarray  # int64 [R], ascending: 0 .. P-1, each at least once
    tokens: np.ndarray  # float64 [R]
    entropy: np.ndarray  # float64 [R], nats
    self_certainty: np.ndarray  # float64 [R], nats
    neurons: np.ndarray  # float64 [R]: distinct active neurons
    conclusions: np.ndarray  # int64 [R]: equal for candidates of a prompt with equal conclusions; -1: no conclusion
    similarity: tuple[np.ndarray, ...]  # P times float64 [n, n]: Jaccard similarity of active neurons
    pool: CandidatePool
    calibration: str = (
        "pool"  # neuron weights from the credit of all candidates (pool), or of the same prompt's (prompt)
    )
    weights: NeuronWeights | None = None  # given weights, instead of a calibration

    @property
    def starts(self) -> np.ndarray:
        """int64 [P+1]: the candidates of prompt p are [starts[p], starts[p+1])."""
        return np.searchsorted(self.prompts, np.arange(self.prompts[-1] + 2))

    def whole(self) -> list[np.ndarray]:
        """For every prompt the single subset of all its candidates, int64 [1, n]."""
        starts = self.starts
        return [np.arange(low, high)[None] for low, high in pairwise(starts)]


def score_sets(candidates: Candidates, sets: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """By selector, the scores of subsets of candidates: one float64 [S, n] for each of `sets`, int64 [S, n].

    Each of `sets` holds S subsets of the candidates of one prompt; S may differ. The i-th subsets of all prompts are
    scored as if there were no other candidates: neuron weights are estimated from them alone.
    """
    fixed = {
        "shortest": -candidates.tokens,
        "entropy": -candidates.entropy,
        "self_certainty": candidates.self_certainty,
        "fewest_neurons": -candidates.neurons,
    }
    found = {name: [values[drawn] for drawn in sets] for name, values in fixed.items()}
    found["nex"] = _good_mass(candidates, sets)
    found["majority"] = [votes(candidates.conclusions[drawn]) for drawn in sets]
    similarity = [_similarity(candidates, drawn) for drawn in sets]
    found["medoid"] = [medoid(item) for item in similarity]
    found["neighbours"] = [neighbours(item) for item in similarity]
    return {name: found[name] for name in SELECTORS}


def _similarity(candidates: Candidates, drawn: np.ndarray) -> np.ndarray:
    prompt = int(candidates.prompts[drawn.flat[0]])
    at = drawn - candidates.starts[prompt]
    return candidates.similarity[prompt][at[:, :, None], at[:, None, :]]


def _good_mass(candidates: Candidates, sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    pool, weights = candidates.pool, candidates.weights
    found: list[list[np.ndarray]] = [[] for _ in sets]
    for i in range(max(map(len, sets))):
        # A prompt with fewer subsets begins anew, beside the further subsets of the others.
        drawn = [subsets[i % len(subsets)] for subsets in sets]
        if weights is None and candidates.calibration == "prompt":
            scores = [pool.fractions(part, pool.calibrate(part)) for part in drawn]
        else:
            together = np.concatenate(drawn)
            fractions = pool.fractions(together, weights or pool.calibrate(together))
            scores = np.split(fractions, np.cumsum([len(part) for part in drawn])[:-1])
        for own, subsets, part in zip(found, sets, scores, strict=True):
            if i < len(subsets):
                own.append(part)
    return [np.stack(own) for own in found]
