"""Cut every response of an activation cache down to some of its rows."""

import numpy as np

from nex_merge.activations.capture import build_rows
from nex_merge.records import SparseGroups, SparseRows


def window(cache: SparseRows, rows: int, last: bool = False) -> SparseRows:
    """The cache as if each response had only its first (or last) `rows` rows, or all of them where it has fewer."""
    parts, tokens = [], []
    width = int(np.diff(cache.token_row_ptr).max())
    for low, high in zip(cache.sample_row_ptr[:-1], cache.sample_row_ptr[1:], strict=True):
        low, high = (max(low, high - rows), high) if last else (low, min(high, low + rows))
        start, end = cache.rows.ptr[low], cache.rows.ptr[high]
        parts.append(
            SparseGroups(
                cache.rows.ptr[low : high + 1] - start, cache.rows.keys[start:end], cache.rows.masses[start:end]
            )
        )
        tokens.append(int(cache.token_row_ptr[high] - cache.token_row_ptr[low]))
    return build_rows(parts, tokens, width)
