"""Points under several objectives: Pareto fronts, and the volume that points dominate. Pure functions of arrays.

Symbols: n points of m objectives, float64 [n, m], oriented so that more is better. One point dominates another if it is
nowhere worse and somewhere better.
"""

import numpy as np


def fronts(points: np.ndarray) -> np.ndarray:
    """The number of every point's front, int64 [n]: 1 for what no point dominates, 2 for what only those do, ...

    Non-dominated sorting (Srinivas and Deb, 1994). Equal points are on the same front.
    """
    above = _dominates(points, points)
    found = np.zeros(len(points), np.int64)
    while (left := found == 0).any():
        found[left & ~above[left].any(axis=0)] = found.max() + 1
    return found


def fronts_among(points: np.ndarray, numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The number that each of other points, float64 [k, m], would have among `points`, whose numbers are given."""
    return np.where(_dominates(points, others), numbers[:, None], 0).max(axis=0, initial=0) + 1


def _dominates(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each of the ones dominates each of the others: bool [n, k]."""
    differences = ones[:, None] - others[None]
    return np.logical_and((differences >= 0).all(axis=-1), (differences > 0).any(axis=-1))


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """The volume that points dominate above a reference, float64 [m]; in the product of the objectives' units.

    Exact, by slices along the last objective (While et al., 2006); the time grows with n to the power of m - 1.
    """
    points = points[(points > reference).all(axis=1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max() - reference[0])
    points = points[np.argsort(-points[:, -1])]
    depths = -np.diff(points[:, -1], append=reference[-1])
    slices = (hypervolume(points[: i + 1, :-1], reference[:-1]) for i in np.flatnonzero(depths))
    return float(sum(depth * area for depth, area in zip(depths[depths > 0], slices, strict=True)))
