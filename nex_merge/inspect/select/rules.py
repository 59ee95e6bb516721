"""What the candidates of one prompt score under the rules that choose among them. Knows arrays alone.

Symbols: n candidates of one prompt, always the last axis; leading axes hold many sets of candidates at once. A score is
float64, and the highest is picked; NaN is undefined and ranks below every number. Ties go to the candidate that comes
first. `medoid` and `neighbours` are two of the selectors of Neuron Agreement Decoding (arXiv 2510.26277).
"""

from math import comb

import numpy as np

# Scores that agree to so many decimals are equal: sums of the same numbers in another order differ beyond.
DECIMALS = 12
NEIGHBOURS = 3  # as in the authors' published selectors


def ranking(scores: np.ndarray) -> np.ndarray:
    """The candidates, int64 [..., n], best first; those that score the same in their own order, undefined ones last."""
    return np.argsort(-_comparable(scores), axis=-1, kind="stable")


def leaders(scores: np.ndarray) -> np.ndarray:
    """Who shares the highest score, bool [..., n]; everybody where no score is defined."""
    comparable = _comparable(scores)
    return comparable == comparable.max(axis=-1, keepdims=True)


def _comparable(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), -np.inf, np.round(scores, DECIMALS))


def expected_right(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Probability, float64 [...], that a leader drawn at random is right: `right` is bool [..., n].

    So a rule gains nothing by ties, whatever the order of the candidates.
    """
    leading = leaders(scores)
    return (leading & right).sum(axis=-1) / leading.sum(axis=-1)


def undecided(scores: np.ndarray, conclusions: np.ndarray) -> np.ndarray:
    """Whether leaders differ in what they conclude, bool [...]: then the order of the candidates decides."""
    leading = leaders(scores)
    highest = np.where(leading, conclusions, np.iinfo(np.int64).min).max(axis=-1)
    lowest = np.where(leading, conclusions, np.iinfo(np.int64).max).min(axis=-1)
    return highest != lowest


def votes(conclusions: np.ndarray) -> np.ndarray:
    """How many candidates conclude the same, float64 [..., n], from int64 [..., n]; -1 concludes nothing: undefined.

    The highest is the majority's, or the plurality's (self-consistency, arXiv 2203.11171).
    """
    same = (conclusions[..., :, None] == conclusions[..., None, :]).sum(axis=-1)
    return np.where(conclusions < 0, np.nan, same)


def similarities(sets: list[np.ndarray]) -> np.ndarray:
    """Jaccard similarity |A & B| / |A | B| of every two sets of keys, float64 [n, n]; NaN with an empty one.

    Each set is an integer array without repetitions.
    """
    keys = np.unique(np.concatenate([np.zeros(0, np.int64), *sets]))
    members = np.zeros((len(sets), len(keys)), np.float32)
    for i, own in enumerate(sets):
        members[i, np.searchsorted(keys, own)] = 1
    # Counts below 2**24 are exact in float32.
    common = (members @ members.T).astype(np.float64)
    sizes = np.diag(common)
    either = sizes[:, None] + sizes[None, :] - common
    empty = (sizes[:, None] == 0) | (sizes[None, :] == 0)
    return np.divide(common, either, out=np.full_like(common, np.nan), where=~empty)


def medoid(similarity: np.ndarray) -> np.ndarray:
    """Mean similarity to all others, float64 [..., n], from similarities [..., n, n]; its highest is the medoid."""
    return _mean_of_highest(similarity, similarity.shape[-1] - 1)


def neighbours(similarity: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Mean similarity to the k most similar others (all, where there are fewer), float64 [..., n]."""
    return _mean_of_highest(similarity, min(k, similarity.shape[-1] - 1))


def _mean_of_highest(similarity: np.ndarray, k: int) -> np.ndarray:
    itself = np.eye(similarity.shape[-1], dtype=bool)
    others = np.where(itself | np.isnan(similarity), -np.inf, similarity)
    highest = np.sort(others, axis=-1)[..., others.shape[-1] - k :]
    known = np.isfinite(highest)
    counts = known.sum(axis=-1)
    totals = np.where(known, highest, 0.0).sum(axis=-1)
    return np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)


def any_right(candidates: int, right: int, chosen: int) -> float:
    """Probability that any of `chosen` candidates, drawn without replacement, is right (arXiv 2107.03374)."""
    return 1 - comb(candidates - right, chosen) / comb(candidates, chosen)
