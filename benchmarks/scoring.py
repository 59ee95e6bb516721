"""Scoring a cache: the product's functions against the plain loop, which has to give the same score."""

import numpy as np

from benchmarks import plain
from benchmarks.measured import Comparison, alternating
from nex_merge.activations.capture import build_rows
from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.nex.good_mass import mean_score, weigh
from nex_merge.records import SparseGroups, SparseRows


def made_cache(responses: int = 64, rows: int = 400, neurons: int = 400) -> SparseRows:
    """Responses that recruit neurons in bursts, out of 12,000 each."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(responses):
        units = rng.permutation(28 * 3072)[:12_000]
        known, reached, keys = units // 3072 << 16 | units % 3072, 0, []
        for row in range(rows):
            reached = min(reached + (60 if row // 12 % 3 == 0 else 8), len(known) - neurons)
            keys.append(np.sort(known[rng.choice(reached + neurons, neurons, replace=False)]).astype(np.uint32))
        masses = rng.gamma(2, 0.05, rows * neurons).astype(np.float16)
        parts.append(SparseGroups(np.arange(rows + 1, dtype=np.int64) * neurons, np.concatenate(keys), masses))
    return build_rows(parts, [rows * 32] * responses, 32)[0]


def ours(cache: SparseRows) -> float | None:
    """The same stages in the product; what it does besides (intervals, counts) is no part of either side."""
    weights = calibrate(stack_credits(analyse(cache, 0.95, 2)))
    return mean_score([weigh(cache.base, i, weights).fraction for i in range(cache.responses)])


def scoring(runs: int) -> Comparison:
    cache = made_cache()
    found = alternating(
        "score 64 responses x 400 rows x 400 neurons", "a plain per-row NumPy loop",
        lambda: plain.score(cache), lambda: ours(cache), "4x, equal to 1e-6", runs,
    )  # fmt: skip
    difference = abs(plain.score(cache) - (ours(cache) or 0.0))
    assert difference < 1e-6, difference
    found.notes = {"difference": difference}
    return found
