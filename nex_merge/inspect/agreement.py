"""Agreement of two labellings of the same units, and what chance gives. Pure functions of arrays.

Symbols: n units (rows or tokens, in order) of one response, each labelled by both sides; `found` and `wanted`,
bool [n], are NEX's labels and people's, true for explore. A response's *table*, int64 [n, C], has the counts of `found`
against `wanted` turned round by 0, 1, ... n-1 units, so that its first row is how they really lie. A *statistic* is a
function of counts summed over responses, [..., C] -> float64 [...], NaN where it is undefined: bootstrap and chance are
sums of rows of tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
DRAWS = 4000
LEVEL = (0.025, 0.975)
_ROUNDING = 1e-12  # a shift whose counts are the same must count as equally good


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap interval over responses, and the same for labels that are turned round."""

    value: float | None  # None: undefined
    low: float | None  # 95 % interval; None with fewer than two responses
    high: float | None
    chance: float | None  # mean over circular shifts
    chance_low: float | None  # 95 % of the shifts
    chance_high: float | None
    as_good: float | None  # share of shifts at least as good


def label_counts(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Table of units that are (explore by both, by `found` only, by `wanted` only, by neither), int64 [n, 4].

    By the circular correlation of the two, in O(n log n).
    """
    n = len(found)
    if n == 0:
        return np.zeros((0, 4), np.int64)
    # Row s holds found[i] and wanted[i - s].
    spectrum = np.fft.rfft(found.astype(float)) * np.conj(np.fft.rfft(wanted.astype(float)))
    both = np.rint(np.fft.irfft(spectrum, n)).astype(np.int64)
    one, other = int(found.sum()), int(wanted.sum())
    return np.stack([both, one - both, other - both, n - one - other + both], axis=1)


def boundary_counts(found: np.ndarray, wanted: np.ndarray, tolerance: int) -> np.ndarray:
    """Table of boundaries (matched, of `found`, of `wanted`), int64 [n, 3]; `tolerance` in units.

    Where the end of turned labels meets their beginning there may be a boundary more or less than in the true ones.
    """
    own = boundaries(found)
    turned = [boundaries(np.roll(wanted, shift)) for shift in range(len(found))]
    counts = [(matches(own, theirs, tolerance), len(own), len(theirs)) for theirs in turned]
    return np.array(counts, np.int64).reshape(-1, 3)


def boundaries(labels: np.ndarray) -> list[int]:
    """The units that have another label than the one before them."""
    return (np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist()


def matches(first: Sequence[int], second: Sequence[int], tolerance: int) -> int:
    """The most pairs of positions no more than `tolerance` apart, each position in one pair at most; both ascending."""
    i = j = pairs = 0
    while i < len(first) and j < len(second):
        if abs(first[i] - second[j]) <= tolerance:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif first[i] < second[j]:
            i += 1
        else:
            j += 1
    return pairs


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def share_agreed(counts: np.ndarray) -> np.ndarray:
    """Share of units with the same label, of label counts [..., 4]."""
    return _ratio(counts[..., 0] + counts[..., 3], counts.sum(-1))


def kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa of label counts [..., 4]: (p - e) / (1 - e), p the share agreed, e that expected of the two shares.

    NaN where e is 1, as both sides know one label only, the same.
    """
    n = counts.sum(-1)
    one, other = _ratio(counts[..., 0] + counts[..., 1], n), _ratio(counts[..., 0] + counts[..., 2], n)
    expected = one * other + (1 - one) * (1 - other)
    return _ratio(share_agreed(counts) - expected, 1 - expected)


def precision(counts: np.ndarray) -> np.ndarray:
    """Matched boundaries among NEX's, of boundary counts [..., 3]."""
    return _ratio(counts[..., 0], counts[..., 1])


def recall(counts: np.ndarray) -> np.ndarray:
    """Matched boundaries among people's, of boundary counts [..., 3]."""
    return _ratio(counts[..., 0], counts[..., 2])


def f1(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, of boundary counts [..., 3]; NaN where neither side has a boundary."""
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


def estimate(tables: Sequence[np.ndarray], statistic: Statistic, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """A statistic of all responses together, with its interval and what chance gives.

    The interval: responses drawn with replacement. Chance: every response's labels turned round by a number of units of
    their own, uniform over 0 ... n-1, so that runs stay as long and as many as they are; the true labels are one of
    these, hence they count among the shifts at least as good.
    """
    tables = [table for table in tables if len(table)]
    if not tables:
        return Estimate(None, None, None, None, None, None, None)
    rng = np.random.default_rng(seed)
    true = np.stack([table[0] for table in tables])
    value = float(statistic(true.sum(0)))
    drawn = statistic(rng.multinomial(len(true), np.full(len(true), 1 / len(true)), draws) @ true)
    turned = statistic(np.sum([table[rng.integers(len(table), size=draws)] for table in tables], axis=0))
    if not np.isfinite(value):
        return Estimate(None, None, None, None, None, None, None)
    low, high = _interval(drawn) if len(tables) > 1 else (None, None)
    known = turned[np.isfinite(turned)]
    as_good = (1 + int((known >= value - _ROUNDING).sum())) / (1 + len(known))
    return Estimate(value, low, high, float(known.mean()) if len(known) else None, *_interval(known), as_good)


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return None, None
    low, high = np.quantile(known, LEVEL)
    return float(low), float(high)
