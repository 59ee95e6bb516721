"""Steps 5 and 6 of NEX: neuron weights from credit, and the Good-Mass Fraction of responses and models."""

from collections.abc import Sequence

import numpy as np

from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Credit, NeuronWeights, SparseRows

EPSILON = 1e-6
SMALLEST_GAP = 1e-12


def neuron_weights(credit: Credit) -> NeuronWeights:
    """w = tanh(log((E + 1e-6) / (R + 1e-6))) of every neuron with credit, float32, keys ascending."""
    credited = (credit.effective > 0) | (credit.redundant > 0)
    # In float32 throughout, as the definition has it: near-zero credits make the last digits visible.
    epsilon = np.float32(EPSILON)
    ratio = (credit.effective[credited] + epsilon) / (credit.redundant[credited] + epsilon)
    weights = np.tanh(np.log(ratio)).astype(np.float32)
    return NeuronWeights(credit.keys[credited][weights != 0], weights[weights != 0])


def good_mass_fractions(cache: SparseRows, weights: NeuronWeights) -> tuple[float | None, ...]:
    """g = sum m max(w, 0) / sum m |w| of every response, over its summed masses m.

    0 where no mass falls on a weighted neuron; None where the response has no mass at all.
    """
    return tuple(_fraction(*cache.base.group(i), weights) for i in range(cache.responses))


def _fraction(keys: np.ndarray, masses: np.ndarray, weights: NeuronWeights) -> float | None:
    masses = clean_masses(masses).astype(np.float64)
    masses[(keys >> 16) == RESERVED_LAYER] = 0
    if masses.sum() <= 0:
        return None
    if len(weights.keys) == 0:
        return 0.0
    at = np.minimum(np.searchsorted(weights.keys, keys), len(weights.keys) - 1)
    w = np.where(weights.keys[at] == keys, weights.weights[at], 0).astype(np.float64)
    total = float((masses * np.abs(w)).sum())
    return float((masses * np.maximum(w, 0)).sum()) / total if total > 0 else 0.0


def mean_score(response_scores: Sequence[float | None]) -> float | None:
    """A model's NEX: the mean of the defined response scores, or None where none is."""
    defined = [score for score in response_scores if score is not None]
    return float(np.mean(defined)) if defined else None


def log_gap(nex: float) -> float:
    """-log10(1 - NEX), which tells scores near 1 apart."""
    return float(-np.log10(max(1 - nex, SMALLEST_GAP)))
