"""Step 3 of NEX: explore and exploit phases by a sticky two-state Gaussian HMM. Knows nothing but observations.

The emissions are those of a two-component Gaussian mixture fitted to z, and both states stay with probability rho. The
labels are the most likely path (Viterbi), with runs shorter than `min_run` rows merged into their neighbours.
"""

import warnings

import numpy as np

from nex_merge.records import Phases

VARIANCE_FLOOR = 1e-6


def segment(observations: np.ndarray, zero_spread: bool, rho: float, min_run: int) -> Phases:
    """Phases of one response from its observations z, float64 [K].

    If z has no spread, or the mixture or the decoding fails, rows with z > 0 count as explore and `fallback` has the
    reason: zero_spread, mixture_failed or decoding_failed.
    """
    if zero_spread:
        return Phases(mend(observations > 0, min_run), "zero_spread")
    emissions = fit_emissions(observations)
    if emissions is None:
        return Phases(mend(observations > 0, min_run), "mixture_failed")
    means, variances = emissions
    states = most_likely_states(observations, means, variances, rho)
    if states is None:
        return Phases(mend(observations > 0, min_run), "decoding_failed")
    return Phases(mend(states == int(np.argmax(means)), min_run), None)


def fit_emissions(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(means [2], variances [2]) of the two states, float64; None if the mixture cannot be fitted or is not finite."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(2, covariance_type="diag", random_state=0, max_iter=50, reg_covar=1e-6)
    try:
        with warnings.catch_warnings():
            # The definition has 50 iterations, converged or not; identical observations give two equal components.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(np.asarray(observations, np.float64)[:, None])
    except ValueError:
        return None
    means = np.asarray(mixture.means_)[:, 0]
    variances = np.maximum(np.asarray(mixture.covariances_)[:, 0], VARIANCE_FLOOR)
    if not (np.isfinite(means).all() and np.isfinite(variances).all()):
        return None
    return means, variances


def most_likely_states(
    observations: np.ndarray, means: np.ndarray, variances: np.ndarray, rho: float
) -> np.ndarray | None:
    """Viterbi path, int [K], of a chain whose two states start with equal probability and stay with probability rho.

    None if decoding fails: no path has a finite log-probability.
    """
    from hmmlearn.hmm import GaussianHMM

    chain = GaussianHMM(2, covariance_type="diag", implementation="log")
    chain.n_features = 1
    chain.startprob_ = np.array([0.5, 0.5])
    chain.transmat_ = np.array([[rho, 1 - rho], [1 - rho, rho]])
    chain.means_ = np.asarray(means, np.float64)[:, None]
    chain.covars_ = np.asarray(variances, np.float64)[:, None]
    try:
        log_probability, states = chain.decode(np.asarray(observations, np.float64)[:, None], algorithm="viterbi")
    except ValueError:
        return None
    return np.asarray(states) if np.isfinite(log_probability) else None


def runs(labels: np.ndarray) -> list[tuple[int, int]]:
    """Maximal runs of equal labels as (first, last), both inclusive."""
    if len(labels) == 0:
        return []
    starts = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1])
    ends = np.concatenate([starts[1:] - 1, [len(labels) - 1]])
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def mend(labels: np.ndarray, min_run: int) -> np.ndarray:
    """Labels, bool [K], with runs shorter than `min_run` merged into a neighbour.

    Works from left to right on the labels as modified so far: a short run takes the label before it or, at the start,
    the label after it.
    """
    labels = np.array(labels, bool)
    start = 0
    while start < len(labels):
        end = start
        while end < len(labels) and labels[end] == labels[start]:
            end += 1
        if end - start < min_run:
            if start > 0:
                labels[start:end] = labels[start - 1]
            elif end < len(labels):
                labels[start:end] = labels[end]
                continue  # the run is longer now: check it again
        start = end
    return labels
