"""Good-Mass Fractions of candidates under the credit of any subset of them, as products of sparse matrices.

Symbols: R candidates, K neurons that are active in any of them. Results equal those of nex/; this implementation is
faster when the same candidates are scored under thousands of calibrations.
"""

import numpy as np
from scipy.sparse import csr_array

from nex_merge.nex.good_mass import neuron_weights
from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Credit, Credits, NeuronWeights, SparseGroups


class CandidatePool:
    """Activation mass and credit of all candidates."""

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

    def fractions(self, scored: np.ndarray, weights: NeuronWeights) -> np.ndarray:
        """The Good-Mass Fractions of some candidates, float64 [n]: NaN without mass, 0 without weighted mass."""
        w = np.zeros(len(self._keys))
        known = np.isin(weights.keys, self._keys)
        w[np.searchsorted(self._keys, weights.keys[known])] = weights.weights[known]
        masses = self._masses[scored]
        good, weighted = masses @ np.maximum(w, 0), masses @ np.abs(w)
        found = np.divide(good, weighted, out=np.zeros_like(good), where=weighted > 0)
        return np.where(self._totals[scored] > 0, found, np.nan)
