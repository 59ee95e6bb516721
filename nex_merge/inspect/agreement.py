"""Agreement of two labellings of the same units, with bootstrap intervals and a chance baseline. Pure NumPy.

Symbols: n units (rows or tokens, in order) of one response; `found` and `wanted`, bool [n], are the labels of NEX and
of the annotations, true for explore. The *table* of a response, int64 [n, C], holds the counts of `found` against
`wanted` circularly shifted by 0, 1, ... n-1 units; its first row has the actual counts. A *statistic* maps counts
summed over responses, [..., C], to float64 [...], NaN where undefined, so that bootstrap samples and chance are sums of
rows of tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.one_thread import on_one_thread
from nex_merge.resampling import interval

Statistic = Callable[[np.ndarray], np.ndarray]
DRAWS = 4000
_ROUNDING = 1e-12  # shifts with equal counts must count as equally good


@dataclass(frozen=True)
class AgreementEstimate:
    """A statistic with its bootstrap interval over responses, and its distribution over circular shifts."""

    value: float | None = None  # None: undefined
    low: float | None = None  # 95 % interval; None: fewer than two responses
    high: float | None = None
    chance: float | None = None  # mean over circular shifts
    chance_low: float | None = None  # 95 % of the shifts
    chance_high: float | None = None
    as_good: float | None = None  # share of shifts with a value at least as high


def label_counts(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Table of units labelled explore by (both, only `found`, only `wanted`, neither), int64 [n, 4].

    Computed as a circular correlation, in O(n log n).
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
    """Table of boundaries (matched, in `found`, in `wanted`), int64 [n, 3]; `tolerance` in units.

    A shift joins the end of the labels to their beginning, which may add or remove a boundary.
    """
    first = boundaries(found)
    shifted = [boundaries(np.roll(wanted, shift)) for shift in range(len(found))]
    counts = [(count_matches(first, second, tolerance), len(first), len(second)) for second in shifted]
    return np.array(counts, np.int64).reshape(-1, 3)


def boundaries(labels: np.ndarray) -> list[int]:
    """The units whose label differs from that of the previous unit."""
    return (np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist()


def count_matches(first: Sequence[int], second: Sequence[int], tolerance: int) -> int:
    """Size of the largest one-to-one matching of positions at most `tolerance` apart; both sequences ascend."""
    i = j = pairs = 0
    while i < len(first) and j < len(second):
        if abs(first[i] - second[j]) <= tolerance:
            i, j, pairs = i + 1, j + 1, pairs + 1
        elif first[i] < second[j]:
            i += 1
        else:
            j += 1
    return pairs


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)


def share_agreed(counts: np.ndarray) -> np.ndarray:
    """Share of units with equal labels, from label counts [..., 4]."""
    return _ratio(counts[..., 0] + counts[..., 3], counts.sum(-1))


def kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa of label counts [..., 4]: (p - e) / (1 - e) for observed agreement p and expected agreement e.

    NaN where e is 1, that is where all labels of both sides are equal.
    """
    n = counts.sum(-1)
    one, other = _ratio(counts[..., 0] + counts[..., 1], n), _ratio(counts[..., 0] + counts[..., 2], n)
    expected = one * other + (1 - one) * (1 - other)
    return _ratio(share_agreed(counts) - expected, 1 - expected)


def precision(counts: np.ndarray) -> np.ndarray:
    """Share of the boundaries of NEX that are matched, from boundary counts [..., 3]."""
    return _ratio(counts[..., 0], counts[..., 1])


def recall(counts: np.ndarray) -> np.ndarray:
    """Share of the annotated boundaries that are matched, from boundary counts [..., 3]."""
    return _ratio(counts[..., 0], counts[..., 2])


def f1(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, from boundary counts [..., 3]; NaN where neither side has a boundary."""
    return _ratio(2 * counts[..., 0], counts[..., 1] + counts[..., 2])


@on_one_thread
def estimate(tables: Sequence[np.ndarray], statistic: Statistic, draws: int = DRAWS) -> AgreementEstimate:
    """A statistic over all responses, with its bootstrap interval and its distribution under chance.

    The interval resamples responses with replacement. Chance shifts the annotations of every response circularly by an
    independent uniform number of units, 0 to n-1, which preserves the number and length of runs; the actual labels are
    one of these shifts and therefore counted in `as_good`.
    """
    tables = [table for table in tables if len(table)]
    if not tables:
        return AgreementEstimate()
    rng = np.random.default_rng(0)
    actual = np.stack([table[0] for table in tables])
    value = float(statistic(actual.sum(0)))
    drawn = statistic(rng.multinomial(len(actual), np.full(len(actual), 1 / len(actual)), draws) @ actual)
    shifted = statistic(np.sum([table[rng.integers(len(table), size=draws)] for table in tables], axis=0))
    if not np.isfinite(value):
        return AgreementEstimate()
    known = shifted[np.isfinite(shifted)]
    chance = float(known.mean()) if len(known) else None
    as_good = (1 + int((known >= value - _ROUNDING).sum())) / (1 + len(known))
    bounds = interval(drawn, len(tables)), interval(known, len(known))
    return AgreementEstimate(value, *bounds[0], chance, *bounds[1], as_good)
