"""Agreement of measures with accuracy: all measures that can be objectives, and the leaderboard's rank.

Pure statistics over leaderboard rows. Symbols: n variants, B bootstrap resamples of them; x a measure, oriented so that
more is better; y accuracy.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from nex_merge.errors import InputError
from nex_merge.measures.registry import OBJECTIVES
from nex_merge.runs.run import trial_order

# The leaderboard's rank is compared as well: unlike any measure, it puts collapsed variants last.
COMPARED: Mapping[str, int] = {"rank": -1, **{name: measure.direction for name, measure in OBJECTIVES.items()}}
CURVED = ("entropy", "novelty", "explore_share")
TOPS = (1, 3, 5)
FEWEST = 3
FEWEST_FOR_CURVE = 5  # a parabola goes through any three points
RESAMPLES = 2000
WIDE = 140  # columns
LEVEL = (0.025, 0.975)


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Agreement of every measure with accuracy, over the ranked leaderboard rows that have an accuracy.

    Raises InputError if fewer than three rows have one.
    """
    measured = [row for row in rows if row["accuracy"] is not None and row["rank"] is not None]
    # Ties are in order of trial, however the leaderboard is sorted.
    measured.sort(key=lambda row: trial_order(row["kind"], row["trial"]))
    if len(measured) < FEWEST:
        raise InputError(
            f"only {len(measured)} of {len(rows)} trials have accuracy; give it for at least {FEWEST}, "
            "or measure it: --accuracy builtin (qwen3-tiny only), or nex-merge benchmark"
        )
    sources = sorted({str(row["accuracy_source"]) for row in measured})
    if len(sources) > 1:
        raise InputError(
            f"accuracy comes from different data ({'; '.join(sources)}), which can't be compared; measure all variants "
            "on the same data"
        )
    accuracy = np.array([row["accuracy"] for row in measured], float)
    parents = [row["accuracy"] for row in measured if row["kind"] == "parent"]
    best = int(np.argmax(accuracy))
    return {
        "trials": len(measured),
        "collapsed": sum(row["state"] == "collapsed" for row in measured),
        "best_accuracy": float(accuracy[best]),
        "best_trial": measured[best]["trial"],
        "best_parent_accuracy": max(parents) if parents else None,
        "scores": {
            name: figures for name in COMPARED if (figures := _agreement_of(name, measured, accuracy)) is not None
        },
        "left_out": [name for name in COMPARED if np.isnan(_column(measured, name)).any()],
        "curves": {
            name: figures for name in CURVED if (figures := curve(_column(measured, name), accuracy)) is not None
        },
    }


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], float)


def _agreement_of(name: str, rows: Sequence[Mapping[str, Any]], accuracy: np.ndarray) -> dict[str, Any] | None:
    """The figures of one measure; None if a variant has no value."""
    x = COMPARED[name] * _column(rows, name)
    if np.isnan(x).any():
        return None
    order = np.argsort(-x, kind="stable")
    top = rows[int(order[0])]
    return {
        "direction": "higher is better" if COMPARED[name] > 0 else "lower is better",
        **correlations(x, accuracy),
        "top_trial": top["trial"],
        "top_accuracy": top["accuracy"],
        "regret": {str(k): float(accuracy.max() - accuracy[order[:k]].max()) for k in TOPS},
        "overlap": {str(k): _overlap(x, accuracy, k) for k in TOPS},
    }


def _overlap(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Share of the top k by x that are in the top k by y; the expectation if the k-th place is tied."""
    k = min(k, len(x))
    inside = []
    for values in (x, y):
        edge = np.sort(values)[-k]
        above, tied = values > edge, values == edge
        inside.append(above + tied * (k - above.sum()) / tied.sum())
    return float((inside[0] * inside[1]).sum() / k)


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
    drawn = (_pearson(*ranked), _kendall(x, y, picks), _pearson(x[picks], y[picks]))
    result = {}
    for name, point, values in zip(names, points, drawn, strict=True):
        # Resamples of equal values have no correlation and are left out.
        low, high = np.nanquantile(values, LEVEL)
        result[name] = {"value": float(point), "low": float(low), "high": float(high)}  # pyright: ignore[reportArgumentType]
    return result


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's correlation of every pair of rows of x and y, float64 [B, n]; NaN where one is constant."""
    varied = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    # Not from the sums: the mean of equal floats need not be exact.
    return np.where(varied, correlation, np.nan)


def _kendall(x: np.ndarray, y: np.ndarray, picks: np.ndarray) -> np.ndarray:
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


def split(rows: Sequence[Mapping[str, Any]], by: str) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of every value of a column (for example method), base and parents in every part."""
    shared = [row for row in rows if row["kind"] != "merge"]
    values = sorted({str(row[by]) for row in rows if row["kind"] == "merge"})
    return {
        value: [*shared, *(row for row in rows if row["kind"] == "merge" and str(row[by]) == value)] for value in values
    }


def print_agreement(result: Mapping[str, Any], title: str = "") -> None:
    """The agreement as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=WIDE)
    parent = result["best_parent_accuracy"]
    head = (
        f"{title}{result['trials']} variants with accuracy ({result['collapsed']} collapsed); best "
        f"{result['best_accuracy']:.3f} (trial {_short(result['best_trial'])})"
        + ("" if parent is None else f", best parent {parent:.3f}")
    )
    console.print(head, highlight=False, soft_wrap=True)
    # A narrow terminal has room for the main columns only; JSON has all.
    wide = console.width >= WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    last = ("acc", "regret 1, 3, 5", "overlap 5") if wide else ("regret 1",)
    for column in ("measure", "Spearman", "Kendall", "Pearson", "top", *last):
        table.add_column(column, justify="left" if column in ("measure", "top") else "right", no_wrap=True)
    for name, item in result["scores"].items():
        sign = "" if item["direction"] == "higher is better" else "-"
        regret = [f"{item['regret'][str(k)]:.3f}" for k in TOPS]
        details = (f"{item['top_accuracy']:.3f}", " ".join(regret), f"{item['overlap']['5']:.1f}")
        table.add_row(
            sign + name, _shown(item["spearman"], True), _shown(item["kendall"], wide), _shown(item["pearson"], wide),
            _short(item["top_trial"]), *(details if wide else regret[:1]),
        )  # fmt: skip
    console.print(table)
    if result["left_out"]:
        console.print(f"Left out, undefined for some variants: {', '.join(result['left_out'])}")
    for name, item in result["curves"].items():
        shape = "an inverted U" if item["inverted_u"] else "no inverted U"
        vertex = item["vertex"]
        console.print(
            f"Accuracy over {name}: {shape} (AIC {item['aic_quadratic']:.1f} quadratic, {item['aic_linear']:.1f} "
            f"linear; vertex {vertex['value']:.3g} [{vertex['low']:.3g}, {vertex['high']:.3g}])",
            highlight=False,
        )


def _short(trial: str) -> str:
    return str(int(trial)) if trial.isdigit() else trial


def _shown(item: Mapping[str, float | None], interval: bool) -> str:
    if item["value"] is None:
        return "-"
    if not interval:
        return f"{item['value']:.2f}"
    return f"{item['value']:.2f} [{item['low']:.2f}, {item['high']:.2f}]"
