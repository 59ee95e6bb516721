"""Correlation of a measure with accuracy, with bootstrap intervals, and curves. Pure functions of arrays.

Symbols: n variants, B bootstrap resamples of them; x a measure; y accuracy.
"""

import math
import warnings
from typing import Any

import numpy as np
from scipy import special, stats

from nex_merge.one_thread import on_one_thread

FEWEST_FOR_CURVE = 5  # a parabola goes through any three points
RESAMPLES = 2000
LEVEL = (0.025, 0.975)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share in [0, 1] of n independent problems, n > 0; neither need be whole.

    Newcombe, Statistics in Medicine 17 (1998), method 3, as `scipy.stats` has it for whole numbers. For a mean of
    scores between 0 and 1 it is at least as wide as it would be for their own variance.
    """
    z = special.ndtri(0.975)
    scale = 2 * (n + z**2)
    centre, half = (2 * n * share + z**2) / scale, z / scale * math.sqrt(4 * n * share * (1 - share) + z**2)
    return 0.0 if share == 0 else float(centre - half), 1.0 if share == 1 else float(centre + half)


def correlations(x: np.ndarray, y: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Spearman's, Kendall's (tau b) and Pearson's correlation of x and y, float64 [n], each with its 95 % percentile
    bootstrap interval over the variants; None if either is constant.
    """
    names = ("spearman", "kendall", "pearson")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {name: {"value": None, "low": None, "high": None} for name in names}
    points = (stats.spearmanr(x, y)[0], stats.kendalltau(x, y)[0], stats.pearsonr(x, y)[0])
    picks = np.random.default_rng(0).integers(len(x), size=(RESAMPLES, len(x)))
    ranked = [stats.rankdata(values[picks], axis=1) for values in (x, y)]
    drawn = (pearson(*ranked), kendall(x, y, picks), pearson(x[picks], y[picks]))
    result = {}
    for name, point, values in zip(names, points, drawn, strict=True):
        # Resamples of equal values have no correlation and are left out.
        low, high = np.nanquantile(values, LEVEL)
        result[name] = {"value": float(point), "low": float(low), "high": float(high)}  # pyright: ignore[reportArgumentType]
    return result


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every pair of rows of x and y, float64 [B, n]; NaN where one is constant."""
    varied = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    # Not from the sums: the mean of equal floats need not be exact.
    return np.where(varied, correlation, np.nan)


@on_one_thread
def kendall(x: np.ndarray, y: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """Kendall's tau b of x[pick] and y[pick] for every row of picks, int64 [B, n]; NaN where one is constant."""
    counts = np.stack([np.bincount(pick, minlength=len(x)) for pick in picks]).astype(float)
    signs = [np.sign(values[:, None] - values[None]) for values in (x, y)]

    def total(pairs: np.ndarray) -> np.ndarray:
        return ((counts @ pairs) * counts).sum(axis=1)

    with np.errstate(invalid="ignore", divide="ignore"):
        return total(signs[0] * signs[1]) / np.sqrt(total(np.abs(signs[0])) * total(np.abs(signs[1])))


def curve(x: np.ndarray, y: np.ndarray) -> dict[str, Any] | None:
    """Does y follow an inverted U over x? A line and a parabola by least squares, compared by AIC.

    AIC = n log(RSS / n) + 2 (coefficients + 1), Gaussian errors. `vertex`: of the parabola, with its 95 %
    percentile bootstrap interval. None with fewer than five different values of x, or equal values of y.
    """
    if np.isnan(x).any() or len(np.unique(x)) < FEWEST_FOR_CURVE or np.ptp(y) == 0:
        return None
    aic = {}
    for name, degree in (("linear", 1), ("quadratic", 2)):
        rss = float(np.square(y - np.polyval(np.polyfit(x, y, degree), x)).sum())
        aic[name] = len(x) * float(np.log(max(rss, 1e-300) / len(x))) + 2 * (degree + 2)
    bend, slope, _ = np.polyfit(x, y, 2)
    vertices = []
    picks = np.random.default_rng(0).integers(len(x), size=(RESAMPLES // 4, len(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.RankWarning)  # a resample of few different values
        for pick in picks:
            a, b, _ = np.polyfit(x[pick], y[pick], 2)
            if a != 0:
                vertices.append(-b / (2 * a))
    low, high = np.quantile(vertices, LEVEL) if vertices else (None, None)
    inside = bend != 0 and float(x.min()) < -slope / (2 * bend) < float(x.max())
    return {
        "aic_linear": aic["linear"],
        "aic_quadratic": aic["quadratic"],
        "vertex": {
            "value": float(-slope / (2 * bend)) if bend != 0 else None,
            "low": None if low is None else float(low),
            "high": None if high is None else float(high),
        },
        "inverted_u": bool(bend < 0 and inside and aic["quadratic"] < aic["linear"] - 2),
    }
