"""Bootstrap over prompts, random halves of them, and what follows for variants. NumPy and SciPy only.

Symbols: P prompts, R responses to them, B resamples, K variants. A *count* says how often something is in a resample.
The same resamples serve all variants, so that differences between variants are paired over prompts.
"""

import numpy as np

RESAMPLES = 400
HALVINGS = 20
# Below this many variants a rank correlation says nothing.
FEWEST_VARIANTS = 5
LEVEL = (0.025, 0.975)
FEWEST_PROMPTS = 4  # below, nothing is known of how sure a difference is


def resamples(prompts: np.ndarray, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each response is in each of `count` bootstrap resamples of the prompts, int64 [B, R].

    `prompts`, int64 [R], is the prompt that each response answers; all responses to a prompt are drawn together.
    """
    names, at = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)[:, at]


def halves(prompts: np.ndarray, count: int = HALVINGS, seed: int = 0) -> np.ndarray:
    """Random halves of the prompts as counts, int64 [2 count, R]: rows 2 i and 2 i + 1 are complementary."""
    names, at = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    first = np.stack([rng.permutation(len(names)) < len(names) // 2 for _ in range(count)])
    return np.stack([first, ~first], axis=1).reshape(2 * count, len(names)).astype(np.int64)[:, at]


def interval(drawn: np.ndarray, prompts: int) -> tuple[float | None, float | None]:
    """95 % percentile interval of values on resamples, float64 [B], NaN where undefined.

    (None, None) with fewer than two prompts or two defined values.
    """
    known = drawn[np.isfinite(drawn)]
    if len(known) < 2 or prompts < 2:
        return None, None
    low, high = np.quantile(known, LEVEL)
    return float(low), float(high)


def odds_against(
    values: np.ndarray, drawn: np.ndarray, other_values: np.ndarray, other_drawn: np.ndarray, prompts: int
) -> np.ndarray:
    """Confidence that each of K candidates beats all of M others, corrected for having been chosen; float64 [K].

    The best of several candidates is judged on the prompts it was chosen on. So its lead over another variant is
    compared with the leads that the luckiest of *all* candidates would have by chance if everybody were equal: the
    maximum of their bootstrap errors relative to the other's (single-step max-statistic bootstrap, Westfall and Young
    1993). The confidence against one variant is the share of resamples with a smaller lead; against several, the
    smallest of these, since a candidate has to beat each (intersection-union test, Berger 1982). For equal variants it
    exceeds 0.95 in at most about 5 % of runs, however many candidates there are: results/studies/odds.md.

    `values` float64 [K] and `drawn` float64 [K, B] are the candidates', `other_values` [M] and `other_drawn` [M, B] the
    others', all oriented so that more is better; NaN where undefined. NaN results where either side has no value, and
    with fewer than four prompts.
    """
    found = np.full(len(values), np.nan)
    known = np.isfinite(values) & np.isfinite(drawn).any(axis=1)
    others = np.flatnonzero(np.isfinite(other_values) & np.isfinite(other_drawn).any(axis=1))
    if prompts < FEWEST_PROMPTS or not known.any() or not len(others):
        return found
    errors = _errors(drawn[known], prompts)
    against = []
    for m in others:
        chance = (errors - _errors(other_drawn[m][None], prompts)).max(axis=0)
        chance = chance[np.isfinite(chance)]
        smaller = (chance < (values[known] - other_values[m])[:, None]).sum(axis=1)
        # One more on both sides: with B resamples, nothing is surer than B / (B + 1).
        against.append(smaller / (len(chance) + 1))
    found[known] = np.min(against, axis=0)
    return found


def _errors(drawn: np.ndarray, prompts: int) -> np.ndarray:
    """How far values on resamples, float64 [K, B], are from what they vary about.

    A bootstrap over P prompts varies (P - 1) / P as much as new prompts would, and knows as little of the true variance
    as Student's t with P - 1 degrees of freedom, whose variance is (P - 1) / (P - 3).
    """
    return (drawn - np.nanmean(drawn, axis=1, keepdims=True)) * np.sqrt(prompts / (prompts - 3))


def superiority(drawn: np.ndarray, other: np.ndarray) -> float | None:
    """Share of the resamples in which one variant beats another, ties counting half; both float64 [B]."""
    both = np.isfinite(drawn) & np.isfinite(other)
    if not both.any():
        return None
    return float(np.mean((drawn[both] > other[both]) + 0.5 * (drawn[both] == other[both])))


def split_half(scores: np.ndarray) -> float | None:
    """Reliability of a ranking, from values on halves of the prompts as `halves` orders them, float64 [K, 2 halvings].

    Spearman's correlation between the two halves over the variants, brought to the full number of prompts by the
    Spearman-Brown formula; mean over the halvings. None with fewer than five variants or no differences.
    """
    from scipy.stats import spearmanr  # slow to import, and only scoring a whole run needs it

    usable = scores[np.isfinite(scores).all(axis=1)]
    if len(usable) < FEWEST_VARIANTS:
        return None
    found = []
    for first, second in zip(usable.T[::2], usable.T[1::2], strict=True):
        if np.ptp(first) > 0 and np.ptp(second) > 0:
            r = float(spearmanr(first, second)[0])  # pyright: ignore[reportArgumentType]
            found.append(2 * r / (1 + r) if r > 0 else r)
    return float(np.mean(found)) if found else None
