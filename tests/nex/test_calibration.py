"""Calibrations, and what a score says it rests on."""

from pathlib import Path

import numpy as np

from nex_merge.activations.cache import read_cache
from nex_merge.nex import phases
from nex_merge.nex.calibration import analyse, calibrate, folds, pool_size, stack_credits, weights_by_response
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.scoring import score
from nex_merge.records import Credit, Credits, Evidence, SparseGroups, SparseRows

GOLDEN = Path(__file__).parents[1] / "golden"


def test_credit_is_additive_whatever_the_order():
    a = Credit(np.array([1, 5], np.uint32), np.array([1, 2], np.float32), np.array([0, 4], np.float32))
    b = Credit(np.array([5, 9], np.uint32), np.array([8, 0], np.float32), np.array([1, 1], np.float32))
    for total in (sum_credit([a, b]), sum_credit([b, a])):
        assert total.keys.tolist() == [1, 5, 9]
        assert total.effective.tolist() == [1, 10, 0]
        assert total.redundant.tolist() == [0, 5, 1]


def found_in(case):
    cache = read_cache(GOLDEN / case)
    analyses = analyse(cache, 0.95, 2)
    return cache, analyses, Evidence(np.arange(cache.responses), cache.base, stack_credits(analyses))


def test_stacked_credits_are_those_of_the_responses():
    _, analyses, evidence = found_in("long")
    for i, item in enumerate(analyses):
        own = evidence.credits.of(i)
        assert own.keys.tolist() == item.credit.keys.tolist()
        assert own.effective.tolist() == item.credit.effective.tolist()
        assert own.redundant.tolist() == item.credit.redundant.tolist()


def test_a_pool_of_two_is_their_sum():
    first, second = (found_in(case)[2].credits for case in ("long", "sticky99"))
    pooled = calibrate(first, second)
    total = sum_credit([c.of(i) for c in (first, second) for i in range(c.responses)])
    a, b = total.effective + np.float32(1e-6), total.redundant + np.float32(1e-6)
    expected = dict(zip(total.keys.tolist(), np.tanh(np.log(a / b)).tolist(), strict=True))
    assert {key: w for key, w in expected.items() if w != 0}.keys() == set(pooled.keys.tolist())
    assert [expected[key] for key in pooled.keys.tolist()] == pooled.weights.tolist()
    assert pooled.keys.tolist() != calibrate(first).keys.tolist()


def test_crossfit_scores_no_response_by_weights_that_it_made():
    _, _, evidence = found_in("long")
    fold = folds(evidence.prompts)
    weights = weights_by_response(evidence, None, crossfit=True)
    c = evidence.credits
    changed = Credits(c.ptr, c.keys, c.effective.copy(), c.redundant.copy())
    inside = slice(int(c.ptr[0]), int(c.ptr[1]))
    changed.effective[inside] += 5
    again = weights_by_response(Evidence(evidence.prompts, evidence.base, changed), None, crossfit=True)
    for i, (before, after) in enumerate(zip(weights, again, strict=True)):
        same = before.weights.tolist() == after.weights.tolist()
        assert same == (fold[i] == fold[0]), "a response's credit reaches all folds but its own"


def test_samples_of_a_prompt_share_a_fold():
    fold = folds(np.array([0, 0, 1, 1, 7, 7]))
    assert fold[0] == fold[1] and fold[2] == fold[3] and fold[4] == fold[5]


def test_pools_change_at_stated_counts():
    assert [pool_size(n) for n in (0, 7, 8, 15, 16, 31, 32, 63, 64, 200)] == [0, 0, 8, 8, 16, 16, 32, 32, 64, 128]


def test_a_score_tells_what_it_rests_on():
    _, analyses, evidence = found_in("edge")
    found = score(evidence, analyses, "self")
    assert found.responses == len(found.response_scores) == 10
    assert found.scored == sum(g is not None for g in found.response_scores) < 10
    assert found.fallbacks == {} and found.calibration == "self"
    assert 0 < found.weighted_mass <= 1 and 0 <= found.saturation <= 1


def test_fallbacks_are_counted(monkeypatch):
    monkeypatch.setattr(phases, "fit_emissions", lambda z: None)
    cache, analyses, evidence = found_in("long")
    assert score(evidence, analyses, "self").fallbacks == {"mixture_failed": cache.responses}


def test_no_mass_is_no_score():
    empty = SparseGroups(np.zeros(2, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float16))
    cache = SparseRows(np.array([0, 1]), np.array([0, 4]), empty, empty)
    analyses = analyse(cache, 0.95, 2)
    found = score(Evidence(np.zeros(1, int), empty, stack_credits(analyses)), analyses, "self")
    assert found.nex is None and found.log_gap is None and found.response_scores == (None,)
    assert found.weighted_mass is None
