"""The stages of NEX as one would write them down: row by row, with NumPy. What `nex_merge.nex` is compared with."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture

from nex_merge.records import SparseRows

KEYS = 28 << 16  # every key of a model of 28 layers


def score(cache: SparseRows, rho: float = 0.95, min_run: int = 2) -> float:
    """The mean Good-Mass Fraction under the weights of the model's own responses."""
    effective, redundant = np.zeros(KEYS, np.float32), np.zeros(KEYS, np.float32)
    for response in range(cache.responses):
        _credit(cache, response, rho, min_run, effective, redundant)
    weights = np.tanh(np.log((effective + np.float32(1e-6)) / (redundant + np.float32(1e-6))))
    weights[(effective == 0) & (redundant == 0)] = 0
    fractions = []
    for response in range(cache.responses):
        keys, masses = cache.base.group(response)
        w = weights[keys]
        all_of_it = (masses * np.abs(w)).sum(dtype=np.float64)
        fractions.append((masses * np.maximum(w, 0)).sum(dtype=np.float64) / all_of_it if all_of_it else 0.0)
    return float(np.mean(fractions))


def _credit(
    cache: SparseRows, response: int, rho: float, min_run: int, effective: np.ndarray, redundant: np.ndarray
) -> None:
    first, last = cache.sample_row_ptr[response], cache.sample_row_ptr[response + 1]
    seen = np.zeros(KEYS, bool)
    rows, new, slopes = [], [], []
    for row in range(first, last):
        keys, masses = cache.rows.group(row)
        fresh = ~seen[keys]
        seen[keys] = True
        tokens = cache.token_row_ptr[row + 1] - cache.token_row_ptr[row]
        rows.append((keys, masses))
        new.append(fresh)
        slopes.append(np.float32(fresh.sum()) / np.float32(tokens))
    slope = np.array(slopes, np.float32)
    y = np.log1p(slope.astype(np.float64))
    design = np.column_stack([np.ones(len(y)), np.log1p(np.arange(len(y)))])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    centred = residual - np.median(residual)
    z = centred / (np.median(np.abs(centred)) + 1e-6)
    explore = _phases(z, rho, min_run)
    cycles = _cycles(explore)
    found = []
    for first_e, last_e, first_x, last_x in cycles:
        slope_e, slope_x = np.median(slope[first_e : last_e + 1]), np.median(slope[first_x : last_x + 1])
        introduced = np.concatenate([rows[t][0][new[t]] for t in range(first_e, last_e + 1)])
        consolidation = min(max(1 - float(slope_x) / (float(slope_e) + 1e-6), 0), 1) if slope_e > 0 else 0.0
        carried = total = 0.0
        for t in range(first_x, last_x + 1):
            carried += rows[t][1][np.isin(rows[t][0], introduced)].sum(dtype=np.float64)
            total += rows[t][1].sum(dtype=np.float64)
        defined = float(slope_e) > float(np.median(slope)) and len(introduced) and total > 0
        found.append((first_e, last_e, consolidation, carried / (total + 1e-6) if defined else None))
    reuses = np.array([reuse for *_, reuse in found if reuse is not None], np.float32)
    middle = float(np.median(reuses)) if len(reuses) else 0.0
    for first_e, last_e, consolidation, reuse in found:
        if reuse is None or reuse == middle:
            continue
        progress = reuse - middle
        good = progress > 0 and consolidation > 0
        scale, to = (progress * consolidation, effective) if good else (abs(progress), redundant)
        for t in range(first_e, last_e + 1):
            to[rows[t][0][new[t]]] += rows[t][1][new[t]] * np.float32(scale)


def _phases(z: np.ndarray, rho: float, min_run: int) -> list[bool]:
    mixture: Any = GaussianMixture(2, covariance_type="diag", random_state=0, max_iter=50, reg_covar=1e-6).fit(
        z[:, None]
    )
    means, variances = mixture.means_[:, 0], np.maximum(mixture.covariances_[:, 0], 1e-6)
    stay, change = np.log(rho), np.log(1 - rho)
    log_p = [-0.5 * (np.log(2 * np.pi * variances) + (value - means) ** 2 / variances) for value in z]
    best, back = np.log([0.5, 0.5]) + log_p[0], []
    for emission in log_p[1:]:
        ways = best[:, None] + np.array([[stay, change], [change, stay]])
        back.append(ways.argmax(0))
        best = ways.max(0) + emission
    states = [int(best.argmax())]
    for pointer in reversed(back):
        states.append(int(pointer[states[-1]]))
    return mend([state == int(np.argmax(means)) for state in reversed(states)], min_run)


def mend(labels: Sequence[bool], min_run: int) -> list[bool]:
    """Labels without runs shorter than `min_run`, from the runs alone: each joins the one that its label comes from."""
    runs: list[tuple[bool, int]] = []  # (label, length) of what is mended so far
    for label, group in groupby(labels):
        length = len(list(group))
        if len(runs) == 1 and runs[0][1] < min_run:  # at the very start: the label after it
            runs[0] = (label, runs[0][1] + length)
        elif runs and (length < min_run or label == runs[-1][0]):  # the label before it
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((label, length))
    return [label for label, length in runs for _ in range(length)]


def _cycles(explore: list[bool]) -> list[tuple[int, int, int, int]]:
    bounds = [0, *(t for t in range(1, len(explore)) if explore[t] != explore[t - 1]), len(explore)]
    spans = [(a, b - 1) for a, b in pairwise(bounds)]
    return [(*one, *two) for one, two in pairwise(spans) if explore[one[0]]]
