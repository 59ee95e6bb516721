"""Steps 5 and 6 of NEX: neuron weights from credit, and the Good-Mass Fraction of responses and models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Credit, NeuronWeights, SparseGroups

EPSILON = 1e-6
SMALLEST_GAP = 1e-12
SATURATED = 0.99


def neuron_weights(credit: Credit) -> NeuronWeights:
    """w = tanh(log((E + 1e-6) / (R + 1e-6))), float32, of every neuron with credit; keys ascending.

    E: effective credit, R: redundant credit (arXiv 2602.05805). Neurons with w = 0 are omitted.
    """
    credited = (credit.effective > 0) | (credit.redundant > 0)
    # float32 throughout, as in the definition: with credits near zero, the precision shows in the result.
    epsilon = np.float32(EPSILON)
    ratio = (credit.effective[credited] + epsilon) / (credit.redundant[credited] + epsilon)
    weights = np.tanh(np.log(ratio)).astype(np.float32)
    return NeuronWeights(credit.keys[credited][weights != 0], weights[weights != 0])


class Masses(NamedTuple):
    """Distribution of one response's activation mass m over neurons with weights w."""

    good: float  # sum m max(w, 0)
    weighted: float  # sum m |w|
    carried: float  # sum m over neurons with w != 0
    saturated: float  # sum m over neurons with |w| > 0.99
    total: float  # sum m

    @property
    def fraction(self) -> float | None:
        """Good-Mass Fraction g = good / weighted; 0 if no mass is on weighted neurons, None if there is no mass."""
        if self.total <= 0:
            return None
        return self.good / self.weighted if self.weighted > 0 else 0.0


def weigh(base: SparseGroups, response: int, weights: NeuronWeights) -> Masses:
    """The masses of one response, from its summed mass per neuron. The reserved layer is ignored."""
    keys, masses = base.group(response)
    masses = clean_masses(masses).astype(np.float64)
    masses[(keys >> 16) == RESERVED_LAYER] = 0
    total = float(masses.sum())
    if len(weights.keys) == 0:
        return Masses(0.0, 0.0, 0.0, 0.0, total)
    at = np.minimum(np.searchsorted(weights.keys, keys), len(weights.keys) - 1)
    w = np.where(weights.keys[at] == keys, weights.weights[at], 0).astype(np.float64)
    size = np.abs(w)
    return Masses(
        good=float((masses * np.maximum(w, 0)).sum()),
        weighted=float((masses * size).sum()),
        carried=float(masses[size > 0].sum()),
        saturated=float(masses[size > SATURATED].sum()),
        total=total,
    )


def mean_score(response_scores: Sequence[float | None]) -> float | None:
    """NEX of a model: the mean of the defined scores of its responses; None if none is defined."""
    defined = [score for score in response_scores if score is not None]
    return float(np.mean(defined)) if defined else None


def log_gap(nex: float) -> float:
    """-log10(1 - NEX), which separates scores near 1; at most 12."""
    return float(-np.log10(max(1 - nex, SMALLEST_GAP)))
