"""Bootstrap over prompts, split halves, and intervals and confidences of variants. NumPy and SciPy only.

Symbols: P prompts, R responses to them, B resamples, K variants. A *count* is how often an item occurs in a resample.
All variants share the same resamples, so that differences between variants are paired over prompts.
"""

import numpy as np

RESAMPLES = 400
HALVINGS = 20
# A rank correlation needs at least this many variants.
FEWEST_VARIANTS = 5
LEVEL = (0.025, 0.975)
FEWEST_PROMPTS = 4  # a confidence needs at least this many: `_errors` divides by P - 3


def resamples(prompts: np.ndarray, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Counts of each response in `count` bootstrap resamples of the prompts, int64 [B, R].

    `prompts`, int64 [R]: the prompt index of each response. All responses to a prompt are drawn together.
    """
    distinct, index = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=count)[:, index]


def halves(prompts: np.ndarray, count: int = HALVINGS, seed: int = 0) -> np.ndarray:
    """Random halves of the prompts as counts, int64 [2 count, R]: rows 2 i and 2 i + 1 are complementary."""
    distinct, index = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    first = np.stack([rng.permutation(len(distinct)) < len(distinct) // 2 for _ in range(count)])
    return np.stack([first, ~first], axis=1).reshape(2 * count, len(distinct)).astype(np.int64)[:, index]


def interval(drawn: np.ndarray, prompts: int) -> tuple[float | None, float | None]:
    """95 % percentile interval of values on resamples, float64 [B], NaN where undefined.

    (None, None) with fewer than two prompts or two defined values.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < 2 or prompts < 2:
        return None, None
    low, high = np.quantile(defined, LEVEL)
    return float(low), float(high)


def odds_against(
    values: np.ndarray, drawn: np.ndarray, other_values: np.ndarray, other_drawn: np.ndarray, prompts: int
) -> np.ndarray:
    """Confidence that each of K candidates beats all of M references, corrected for selection; float64 [K].

    The best of several candidates was selected on the prompts it is compared on. Its lead over a reference is therefore
    compared with the largest lead that *any* candidate would have by chance if all were equal: the maximum of the
    candidates' bootstrap errors relative to the reference's (single-step max-statistic bootstrap, Westfall and Young
    1993). The confidence against one reference is the share of resamples with a smaller lead; against several, the
    minimum of these, since a candidate has to beat each (intersection-union test, Berger 1982). For equal variants it
    exceeds 0.95 in at most about 5 % of runs, however many candidates there are: results/studies/odds.md.

    `values` float64 [K] and `drawn` float64 [K, B]: the candidates' values, and those on resamples. `other_values` [M]
    and `other_drawn` [M, B]: the same of the references. All are oriented so that more is better, NaN where undefined.
    The result is NaN if either side has no value, or with fewer than four prompts.
    """
    confidence = np.full(len(values), np.nan)
    defined = np.isfinite(values) & np.isfinite(drawn).any(axis=1)
    references = np.flatnonzero(np.isfinite(other_values) & np.isfinite(other_drawn).any(axis=1))
    if prompts < FEWEST_PROMPTS or not defined.any() or not len(references):
        return confidence
    errors = _errors(drawn[defined], prompts)
    against = []
    for m in references:
        chance = (errors - _errors(other_drawn[m][None], prompts)).max(axis=0)
        chance = chance[np.isfinite(chance)]
        smaller = (chance < (values[defined] - other_values[m])[:, None]).sum(axis=1)
        # With B resamples, the confidence is at most B / (B + 1).
        against.append(smaller / (len(chance) + 1))
    confidence[defined] = np.min(against, axis=0)
    return confidence


def _errors(drawn: np.ndarray, prompts: int) -> np.ndarray:
    """Deviations of resampled values, float64 [K, B], from their mean, scaled to the spread over new prompts.

    A bootstrap over P prompts has (P - 1) / P times the variance of new prompts. The variance is itself estimated, as
    in Student's t with P - 1 degrees of freedom, whose variance is (P - 1) / (P - 3). Together: P / (P - 3).
    """
    return (drawn - np.nanmean(drawn, axis=1, keepdims=True)) * np.sqrt(prompts / (prompts - 3))


def split_half(scores: np.ndarray) -> float | None:
    """Reliability of a ranking, from values on halves of the prompts as `halves` orders them, float64 [K, 2 halvings].

    Spearman's correlation between the two halves over the variants, extrapolated to all prompts by the
    Spearman-Brown formula; mean over the halvings. None with fewer than five variants or no differences.
    """
    from scipy.stats import spearmanr  # slow to import, and only scoring a whole run needs it

    usable = scores[np.isfinite(scores).all(axis=1)]
    if len(usable) < FEWEST_VARIANTS:
        return None
    reliabilities = []
    for first, second in zip(usable.T[::2], usable.T[1::2], strict=True):
        if np.ptp(first) > 0 and np.ptp(second) > 0:
            r = float(spearmanr(first, second)[0])  # pyright: ignore[reportArgumentType]
            reliabilities.append(2 * r / (1 + r) if r > 0 else r)
    return float(np.mean(reliabilities)) if reliabilities else None
