"""The noise ceiling: how well labels on as few prompts would rank the same variants. Pure functions of arrays.

Labels are simulated by drawing whether each response is right. Symbols: n variants, N labelled problems, P prompts with
S responses each; a measured and t true accuracies, float64 [n]; rho in [0, 1], the share of the noise of accuracy that
all variants have in common because they answer the same problems. Noise in common changes no ranking.
"""

import numpy as np
from scipy import stats

from nex_merge.labels.statistics import LEVEL, pearson

DRAWS = 400


def shared_noise(right: np.ndarray) -> float:
    """rho, from who was right on what: bool [n, N], n and N at least 2.

    One minus the residual mean square of a two-way table (variants by problems, without interaction), divided by the
    mean binomial variance a (1 - a) N / (N - 1). 0 if no variant has any noise.
    """
    table = right.astype(float)
    variants, problems = table.shape
    accuracy = table.mean(axis=1)
    residual = table - accuracy[:, None] - table.mean(axis=0) + table.mean()
    square = np.square(residual).sum() / ((variants - 1) * (problems - 1))
    binomial = (accuracy * (1 - accuracy)).mean() * problems / (problems - 1)
    return float(np.clip(1 - square / binomial, 0, 1)) if binomial > 0 else 0.0


def true_accuracies(measured: np.ndarray, problems: np.ndarray, shared: float = 0.0) -> np.ndarray:
    """t: the measured accuracies drawn together until their variance is what noise leaves, by the method of moments.

    problems: N of each variant, [n]. The variance of t is that of a minus (1 - rho) times the mean of a (1 - a) / N;
    all of t are equal if nothing is left.
    """
    variance = measured.var(ddof=1)
    noise = (1 - shared) * (measured * (1 - measured) / problems).mean()
    left = max(0.0, 1 - noise / variance) if variance > 0 else 0.0
    return measured.mean() + np.sqrt(left) * (measured - measured.mean())


def noise_ceiling(
    true: np.ndarray, prompts: int, samples: int = 1, shared: float = 0.0, draws: int = DRAWS, seed: int = 0
) -> dict[str, float | None]:
    """Mean Spearman of labelled with true accuracy, and the range of 95 % of the draws: value, low, high.

    Each of the P * S answers of a variant is right with probability t, independently of its other answers: samples of
    one prompt are taken for as good as other prompts, so that the ceiling is an upper bound if S > 1. Of the noise,
    sqrt(1 - rho) remains. A draw in which all are labelled alike ranks nobody and counts as 0. All None if the true
    accuracies are equal.
    """
    if np.ptp(true) < 1e-12:
        return {"value": None, "low": None, "high": None}
    answers = prompts * samples
    labelled = np.random.default_rng(seed).binomial(answers, true, size=(draws, len(true))) / answers
    own = np.sqrt(1 - shared)
    # Not true + own * (labelled - true), which would break ties by rounding.
    ranked = stats.rankdata((1 - own) * true + own * labelled, axis=1)
    drawn = np.nan_to_num(pearson(ranked, np.broadcast_to(stats.rankdata(true), ranked.shape)))
    low, high = np.quantile(drawn, LEVEL)
    return {"value": float(drawn.mean()), "low": float(low), "high": float(high)}
