"""The plain loops that the product is timed against give its results."""

import pytest

from benchmarks import plain
from benchmarks.scoring import made_cache, ours


def test_the_plain_loop_scores_alike():
    cache = made_cache(responses=3, rows=60, neurons=40)
    assert ours(cache) == pytest.approx(plain.score(cache), abs=1e-6)
    assert 0 < ours(cache) < 1, "or the comparison shows nothing"
