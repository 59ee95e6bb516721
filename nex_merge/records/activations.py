"""Sparse activations. Symbols: R responses, T rows of all responses, E entries, G groups.

A *neuron* is one unit of one gated MLP, its key `layer << 16 | unit` (uint32). A *row* is a run of consecutive
generated tokens. *Mass* is summed positive score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESERVED_LAYER = 255


@dataclass(frozen=True)
class SparseGroups:
    """Sparse maps neuron -> mass, one per group. Keys are ascending and unique within a group."""

    ptr: np.ndarray  # int64 [G+1]: entries of group g are [ptr[g], ptr[g+1])
    keys: np.ndarray  # uint32 [E]
    masses: np.ndarray  # float16 [E]

    def group(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys uint32 [n], masses float32 [n]) of one group."""
        low, high = self.ptr[index], self.ptr[index + 1]
        return np.asarray(self.keys[low:high]), np.asarray(self.masses[low:high]).astype(np.float32)


@dataclass(frozen=True)
class SparseRows:
    """The activation cache of one model over its responses."""

    sample_row_ptr: np.ndarray  # int64 [R+1]: rows of response i are [p[i], p[i+1])
    token_row_ptr: np.ndarray  # int64 [T+1]: tokens of row t are p[t+1] - p[t]
    rows: SparseGroups  # one group per row
    base: SparseGroups  # one group per response: its rows summed

    @property
    def responses(self) -> int:
        return len(self.sample_row_ptr) - 1


def concatenate_groups(parts: Sequence[SparseGroups]) -> SparseGroups:
    """The groups of all parts, in order."""
    offsets = np.cumsum([0, *(part.ptr[-1] for part in parts)])
    ptr = [np.zeros(1, np.int64), *(part.ptr[1:] + offset for part, offset in zip(parts, offsets, strict=False))]
    return SparseGroups(
        np.concatenate(ptr),
        np.concatenate([np.zeros(0, np.uint32), *(part.keys for part in parts)]),
        np.concatenate([np.zeros(0, np.float16), *(part.masses for part in parts)]),
    )
