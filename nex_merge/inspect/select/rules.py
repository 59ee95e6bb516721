"""Selection rules as functions of arrays.

Symbols: n candidates of one prompt, always the last axis; leading axes are batches. Scores are float64 and the highest
is picked; NaN is undefined and ranks last. Ties go to the first candidate. `medoid` and `neighbours` are two of the
selectors of Neuron Agreement Decoding (arXiv 2510.26277).
"""

from math import comb

import numpy as np

# Scores that agree to this many decimals are ties, because sums in different order differ in later ones.
DECIMALS = 12
NEIGHBOURS = 3  # as published by the authors


def ranking(scores: np.ndarray) -> np.ndarray:
    """The candidates, int64 [..., n], best first; ties in order, undefined scores last."""
    return np.argsort(-_comparable(scores), axis=-1, kind="stable")


def leaders(scores: np.ndarray) -> np.ndarray:
    """Whether each candidate has the highest score, bool [..., n]; all do if no score is defined."""
    comparable = _comparable(scores)
    return comparable == comparable.max(axis=-1, keepdims=True)


def _comparable(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), -np.inf, np.round(scores, DECIMALS))


def expected_right(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Probability that a random leader is correct, float64 [...], from bool [..., n].

    This makes the accuracy of a rule independent of how ties are ordered.
    """
    leading = leaders(scores)
    return (leading & right).sum(axis=-1) / leading.sum(axis=-1)


def undecided(scores: np.ndarray, conclusions: np.ndarray) -> np.ndarray:
    """Whether leaders have different conclusions, so that the order of the candidates decides; bool [...]."""
    leading = leaders(scores)
    highest = np.where(leading, conclusions, np.iinfo(np.int64).min).max(axis=-1)
    lowest = np.where(leading, conclusions, np.iinfo(np.int64).max).min(axis=-1)
    return highest != lowest


def votes(conclusions: np.ndarray) -> np.ndarray:
    """Number of candidates with the same conclusion, float64 [..., n], from int64 [..., n]; -1: none, undefined.

    Picking the highest is plurality voting (self-consistency, arXiv 2203.11171).
    """
    same = (conclusions[..., :, None] == conclusions[..., None, :]).sum(axis=-1)
    return np.where(conclusions < 0, np.nan, same)


def similarities(sets: list[np.ndarray]) -> np.ndarray:
    """Pairwise Jaccard similarity |A & B| / |A | B| of sets of keys, float64 [n, n]; NaN if either is empty.

    Each set is an integer array of unique values.
    """
    keys = np.unique(np.concatenate([np.zeros(0, np.int64), *sets]))
    members = np.zeros((len(sets), len(keys)), np.float32)
    for i, members_of in enumerate(sets):
        members[i, np.searchsorted(keys, members_of)] = 1
    # Counts below 2**24 are exact in float32, on however many threads.
    common = (members @ members.T).astype(np.float64)
    sizes = np.diag(common)
    either = sizes[:, None] + sizes[None, :] - common
    empty = (sizes[:, None] == 0) | (sizes[None, :] == 0)
    return np.divide(common, either, out=np.full_like(common, np.nan), where=~empty)


def medoid(similarity: np.ndarray) -> np.ndarray:
    """Mean similarity to all other candidates, float64 [..., n], from [..., n, n]; the medoid has the highest."""
    return _mean_of_highest(similarity, similarity.shape[-1] - 1)


def neighbours(similarity: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Mean similarity to the k most similar other candidates (or all, if fewer), float64 [..., n]."""
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
    """Probability that any of `chosen` candidates drawn without replacement is correct (arXiv 2107.03374)."""
    return 1 - comb(candidates - right, chosen) / comb(candidates, chosen)
