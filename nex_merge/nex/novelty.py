"""Steps 0 to 2 of NEX: retained rows, novelty slopes, detrended observations. Knows nothing of phases.

Symbols: t indexes the K retained rows of a response; N_t, the keys of row t that are in no earlier retained row;
s_t = |N_t| / tokens_t, float32, neurons per token; z_t the detrended observation, float64 (arXiv 2602.05805).
"""

import numpy as np

from nex_merge.one_thread import on_one_thread
from nex_merge.records import RESERVED_LAYER, Novelty, SparseRows

MIN_ROWS = 3
EPSILON = 1e-6


def clean_masses(masses: np.ndarray) -> np.ndarray:
    """Masses as float32, with 0 in place of negative, infinite and NaN values."""
    masses = np.asarray(masses, np.float32)
    return np.where(np.isfinite(masses) & (masses > 0), masses, np.float32(0))


def response_novelty(cache: SparseRows, response: int) -> Novelty | None:
    """Novelty of one response; None if it has fewer than 3 retained rows (rows with tokens and mass)."""
    first, last = int(cache.sample_row_ptr[response]), int(cache.sample_row_ptr[response + 1])
    if last - first < MIN_ROWS:
        return None
    ptr = np.asarray(cache.rows.ptr[first : last + 1], np.int64)
    keys = np.asarray(cache.rows.keys[ptr[0] : ptr[-1]])
    masses = clean_masses(cache.rows.masses[ptr[0] : ptr[-1]])
    row_of = np.repeat(np.arange(last - first), np.diff(ptr))
    tokens = np.diff(np.asarray(cache.token_row_ptr[first : last + 1], np.int64))

    usable = (keys >> 16) != RESERVED_LAYER
    mass = np.bincount(row_of[usable], masses[usable].astype(np.float64), minlength=last - first)
    # A row with mass > 0 has keys outside the reserved layer.
    retained = (tokens > 0) & (mass > 0)
    kept_rows = np.flatnonzero(retained)
    if len(kept_rows) < MIN_ROWS:
        return None

    t = (np.cumsum(retained) - 1)[row_of]
    if not (entries := usable & retained[row_of]).all():
        keys, masses, t = keys[entries], masses[entries], t[entries]
    # Entries are in row order, so a key's first entry is in its first row. The last of several assignments to an index
    # wins, hence the reversal. Indices without a key are never read, so the table may stay uninitialized.
    place = np.arange(len(keys))
    first_place = np.empty(int(keys.max()) + 1, np.int64)
    first_place[keys[::-1]] = place[::-1]
    is_new = first_place[keys] == place
    introduced = np.bincount(t[is_new], minlength=len(kept_rows))
    slopes = introduced.astype(np.float32) / tokens[kept_rows].astype(np.float32)
    observations, zero_spread = detrend(slopes)
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(t, minlength=len(kept_rows)))])
    return Novelty(kept_rows, slopes, observations, zero_spread, row_ptr, keys, masses, is_new)


@on_one_thread
def detrend(slopes: np.ndarray) -> tuple[np.ndarray, bool]:
    """(z float64 [K], whether the spread is zero) from slopes, float32 [K].

    z is the residual of the least-squares fit of log1p(s) on [1, log1p(t)], minus its median, divided by its median
    absolute deviation (MAD). If the MAD is 0 or not finite, the spread is zero, and z is not divided.
    """
    y = np.log1p(np.maximum(slopes.astype(np.float64), 0.0))
    design = np.column_stack([np.ones(len(y)), np.log1p(np.arange(len(y), dtype=np.float64))])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    centred = residual - np.median(residual)
    spread = float(np.median(np.abs(centred)))
    if spread == 0 or not np.isfinite(spread):
        return centred, True
    return centred / (spread + EPSILON), False
