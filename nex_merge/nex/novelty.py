"""Steps 0 to 2 of NEX: retained rows, novelty slopes, detrended observations. Knows nothing of phases.

Symbols: t counts the K retained rows of one response; N_t the keys of row t that no earlier retained row holds;
s_t = |N_t| / tokens_t, float32, neurons per token; z_t the detrended observation, float64 (arXiv 2602.05805).
"""

import numpy as np

from nex_merge.records import RESERVED_LAYER, Novelty, SparseRows

MIN_ROWS = 3
EPSILON = 1e-6


def clean_masses(masses: np.ndarray) -> np.ndarray:
    """Masses as float32 with whatever is not finite or negative counted as 0."""
    masses = np.asarray(masses, np.float32)
    return np.where(np.isfinite(masses) & (masses > 0), masses, np.float32(0))


def response_novelty(cache: SparseRows, response: int) -> Novelty | None:
    """Novelty of one response, or None where it has fewer than 3 rows or fewer than 3 retained rows."""
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
    # A mass > 0 implies that the row has keys left.
    retained = (tokens > 0) & (mass > 0)
    kept_rows = np.flatnonzero(retained)
    if len(kept_rows) < MIN_ROWS:
        return None

    t = (np.cumsum(retained) - 1)[row_of]
    if not (entries := usable & retained[row_of]).all():
        keys, masses, t = keys[entries], masses[entries], t[entries]
    # Entries are in row order, so a key's first index is its first row. Of assignments to one place the last one stays,
    # hence backwards; places that no key names are never read, so the table needs no filling.
    place = np.arange(len(keys))
    first_place = np.empty(int(keys.max()) + 1, np.int64)
    first_place[keys[::-1]] = place[::-1]
    is_new = first_place[keys] == place
    introduced = np.bincount(t[is_new], minlength=len(kept_rows))
    slopes = introduced.astype(np.float32) / tokens[kept_rows].astype(np.float32)
    observations, zero_spread = detrend(slopes)
    row_ptr = np.concatenate([[0], np.cumsum(np.bincount(t, minlength=len(kept_rows)))])
    return Novelty(kept_rows, slopes, observations, zero_spread, row_ptr, keys, masses, is_new)


def detrend(slopes: np.ndarray) -> tuple[np.ndarray, bool]:
    """(z float64 [K], whether the spread is zero) of slopes float32 [K].

    z is the residual of log1p(s) on [1, log1p(t)] by least squares, centred on its median and divided by its median
    absolute deviation; only centred where that deviation is 0 or not finite.
    """
    y = np.log1p(np.maximum(slopes.astype(np.float64), 0.0))
    design = np.column_stack([np.ones(len(y)), np.log1p(np.arange(len(y), dtype=np.float64))])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    centred = residual - np.median(residual)
    spread = float(np.median(np.abs(centred)))
    if spread == 0 or not np.isfinite(spread):
        return centred, True
    return centred / (spread + EPSILON), False
