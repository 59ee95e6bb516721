"""Candidates -> their scores under each selector. Knows nothing of text, models or answers.

Symbols: P prompts, R candidates of all prompts in order of prompt, S subsets of n candidates per prompt, K neurons that
are active in any candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from nex_merge.inspect.select.rules import medoid, neighbours, votes
from nex_merge.nex.good_mass import neuron_weights
from nex_merge.nex.novelty import clean_masses
from nex_merge.one_thread import on_one_thread
from nex_merge.records import RESERVED_LAYER, Credit, Credits, NeuronWeights, SparseGroups

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


class CandidatePool:
    """Activation mass and credit of all candidates, as sparse matrices.

    Results equal those of nex/; this is faster when the same candidates are scored under thousands of calibrations.
    """

    def __init__(self, base: SparseGroups, credits: Credits) -> None:
        self._keys = np.unique(np.concatenate([base.keys, credits.keys]))
        masses = clean_masses(base.masses).astype(np.float64)
        masses[(base.keys >> 16) == RESERVED_LAYER] = 0
        self._masses = self._matrix(base.ptr, base.keys, masses)
        self._totals = np.asarray(self._masses.sum(axis=1))
        self._effective = self._matrix(credits.ptr, credits.keys, credits.effective)
        self._redundant = self._matrix(credits.ptr, credits.keys, credits.redundant)

    def _matrix(self, ptr: np.ndarray, keys: np.ndarray, values: np.ndarray) -> csr_array:
        columns = np.searchsorted(self._keys, keys)
        return csr_array((values.astype(np.float64), columns, ptr), shape=(len(ptr) - 1, len(self._keys)))

    def calibrate(self, teachers: np.ndarray) -> NeuronWeights:
        """The neuron weights from the credit of some candidates, int64 [n]."""
        sums = [credit[teachers].sum(axis=0) for credit in (self._effective, self._redundant)]
        return neuron_weights(Credit(self._keys, *(np.asarray(total, np.float32) for total in sums)))

    @on_one_thread
    def fractions(self, scored: np.ndarray, weights: NeuronWeights) -> np.ndarray:
        """The Good-Mass Fractions of some candidates, float64 [n]: NaN without mass, 0 without weighted mass."""
        w = np.zeros(len(self._keys))
        known = np.isin(weights.keys, self._keys)
        w[np.searchsorted(self._keys, weights.keys[known])] = weights.weights[known]
        masses = self._masses[scored]
        good, weighted = masses @ np.maximum(w, 0), masses @ np.abs(w)
        found = np.divide(good, weighted, out=np.zeros_like(good), where=weighted > 0)
        return np.where(self._totals[scored] > 0, found, np.nan)


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
    calibration: str = "pool"  # neuron weights from the credit of all candidates, or of the same prompt's (prompt)
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
    similarity = [_similarity(candidates, drawn) for drawn in sets]
    found = {
        **{name: [values[drawn] for drawn in sets] for name, values in fixed.items()},
        "nex": _good_mass(candidates, sets),
        "majority": [votes(candidates.conclusions[drawn]) for drawn in sets],
        "medoid": [medoid(item) for item in similarity],
        "neighbours": [neighbours(item) for item in similarity],
    }
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
