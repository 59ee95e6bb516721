"""Candidates -> what each selector scores them. Knows sets of candidates; knows nothing of text, models or answers.

Symbols: P prompts, R candidates of all prompts in order of prompt, S sets of n candidates drawn for every prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nex_merge.inspect.select.pool import Pool
from nex_merge.inspect.select.rules import medoid, neighbours, votes
from nex_merge.records import NeuronWeights

# What picks the candidate: its highest score.
SELECTORS: Mapping[str, str] = {
    "nex": "highest Good-Mass Fraction",
    "majority": "conclusion that most candidates share",
    "shortest": "fewest tokens",
    "entropy": "lowest mean token entropy",
    "self_certainty": "highest mean divergence of the next-token distribution from uniform",
    "fewest_neurons": "fewest distinct neurons",
    "medoid": "highest mean Jaccard similarity of neurons to all other candidates",
    "neighbours": "highest mean Jaccard similarity of neurons to the three most similar candidates",
}
LESS_IS_BETTER = ("shortest", "entropy", "fewest_neurons")
CALIBRATIONS = ("pool", "prompt")


@dataclass(frozen=True)
class Candidates:
    """Everything that selectors choose by. An empty response has NaN for every number and no neurons."""

    prompts: np.ndarray  # int64 [R], ascending: 0 .. P-1, each at least once
    tokens: np.ndarray  # float64 [R]
    entropy: np.ndarray  # float64 [R], nats
    self_certainty: np.ndarray  # float64 [R], nats
    neurons: np.ndarray  # float64 [R]: distinct neurons
    conclusions: np.ndarray  # int64 [R]: equal for candidates of a prompt that conclude the same; -1: nothing
    similarity: tuple[np.ndarray, ...]  # P of float64 [n, n]: Jaccard similarity of the neurons of its candidates
    pool: Pool
    calibration: str = "pool"  # whose credit weights come from: all candidates, or those of the same prompt
    weights: NeuronWeights | None = None  # fixed ones instead

    @property
    def starts(self) -> np.ndarray:
        """int64 [P+1]: candidates of prompt p are [starts[p], starts[p+1])."""
        return np.searchsorted(self.prompts, np.arange(self.prompts[-1] + 2))

    def whole(self) -> list[np.ndarray]:
        """The one set of every prompt that has all its candidates, int64 [1, n]."""
        starts = self.starts
        return [np.arange(low, high)[None] for low, high in pairwise(starts)]


def score_sets(candidates: Candidates, sets: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """What every selector scores the candidates of these sets: one float64 [S, n] for each of `sets`, int64 [S, n].

    Each of `sets` holds candidates of one prompt, S sets of each; the i-th sets of all are a file of their own: weights
    come from its candidates alone, as nobody draws 16 candidates to choose among 4.
    """
    fixed = {
        "shortest": -candidates.tokens,
        "entropy": -candidates.entropy,
        "self_certainty": candidates.self_certainty,
        "fewest_neurons": -candidates.neurons,
    }
    found = {name: [values[own] for own in sets] for name, values in fixed.items()}
    found["nex"] = _good_mass(candidates, sets)
    found["majority"] = [votes(candidates.conclusions[own]) for own in sets]
    alike = [_among(candidates, own) for own in sets]
    found["medoid"] = [medoid(similarity) for similarity in alike]
    found["neighbours"] = [neighbours(similarity) for similarity in alike]
    return {name: found[name] for name in SELECTORS}


def _among(candidates: Candidates, own: np.ndarray) -> np.ndarray:
    prompt = int(candidates.prompts[own.flat[0]])
    at = own - candidates.starts[prompt]
    return candidates.similarity[prompt][at[:, :, None], at[:, None, :]]


def _good_mass(candidates: Candidates, sets: Sequence[np.ndarray]) -> list[np.ndarray]:
    pool, weights = candidates.pool, candidates.weights
    found = []
    for drawn in zip(*sets, strict=True):
        together = np.concatenate(drawn)
        if weights is None and candidates.calibration == "prompt":
            found.append(np.concatenate([pool.fractions(own, pool.calibrate(own)) for own in drawn]))
        else:
            found.append(pool.fractions(together, weights or pool.calibrate(together)))
    ends = np.cumsum([own.shape[1] for own in sets])[:-1]
    return np.split(np.stack(found), ends, axis=1)
