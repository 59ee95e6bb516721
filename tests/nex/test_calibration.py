"""Pool and self calibration, and what a score says it rests on."""

from pathlib import Path

import numpy as np

from nex_merge.cache import read_cache
from nex_merge.nex import phases
from nex_merge.nex.calibration import analyse, calibrate, score
from nex_merge.nex.credit import sum_credit
from nex_merge.records import Credit, NeuronWeights, SparseGroups, SparseRows

GOLDEN = Path(__file__).parents[1] / "golden"


def test_credit_is_additive_whatever_the_order():
    a = Credit(np.array([1, 5], np.uint32), np.array([1, 2], np.float32), np.array([0, 4], np.float32))
    b = Credit(np.array([5, 9], np.uint32), np.array([8, 0], np.float32), np.array([1, 1], np.float32))
    for total in (sum_credit([a, b]), sum_credit([b, a])):
        assert total.keys.tolist() == [1, 5, 9]
        assert total.effective.tolist() == [1, 10, 0]
        assert total.redundant.tolist() == [0, 5, 1]


def test_a_pool_of_one_is_self_and_a_pool_of_two_is_their_sum():
    first = analyse(read_cache(GOLDEN / "long"), 0.95, 2)
    second = analyse(read_cache(GOLDEN / "sticky99"), 0.95, 2)
    pooled = calibrate(first, second)
    joined = calibrate([*first, *second])
    assert pooled.keys.tolist() == joined.keys.tolist()
    assert pooled.weights.tolist() == joined.weights.tolist()
    assert pooled.keys.tolist() != calibrate(first).keys.tolist()


def test_a_score_tells_what_it_rests_on():
    cache = read_cache(GOLDEN / "edge")
    analyses = analyse(cache, 0.95, 2)
    found = score(cache, analyses, calibrate(analyses))
    assert found.responses == len(found.response_scores) == 10
    assert found.scored == sum(g is not None for g in found.response_scores) < 10
    assert found.low <= found.nex <= found.high
    assert found.fallbacks == {}


def test_fallbacks_are_counted(monkeypatch):
    monkeypatch.setattr(phases, "fit_emissions", lambda z: None)
    cache = read_cache(GOLDEN / "long")
    analyses = analyse(cache, 0.95, 2)
    assert score(cache, analyses, calibrate(analyses)).fallbacks == {"mixture_failed": cache.responses}


def test_no_mass_is_no_score():
    empty = SparseGroups(np.zeros(2, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float16))
    cache = SparseRows(np.array([0, 1]), np.array([0, 4]), empty, empty)
    found = score(cache, analyse(cache, 0.95, 2), NeuronWeights(np.zeros(0, np.uint32), np.zeros(0, np.float32)))
    assert found.nex is None and found.log_gap is None and found.response_scores == (None,)
