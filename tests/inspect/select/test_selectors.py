"""Scores of subsets of candidates: neuron weights are estimated from a subset's own candidates."""

import numpy as np
import pytest

from nex_merge.inspect.select import accuracy
from nex_merge.inspect.select.selectors import SELECTORS, CandidatePool, score_sets
from nex_merge.nex.calibration import calibrate
from nex_merge.nex.good_mass import weigh
from nex_merge.records import Credits, NeuronWeights, SparseGroups
from tests.inspect.select.fakes import assemble, random_candidates, random_pool, random_sets


def test_the_pool_computes_the_same_numbers_as_nex():
    rng = np.random.default_rng(3)
    base, credits = random_pool(rng, random_sets(rng, 12))
    pool, everyone = CandidatePool(base, credits), np.arange(12)
    weights = calibrate(credits)
    own = pool.calibrate(everyone)
    np.testing.assert_array_equal(own.keys, weights.keys)
    np.testing.assert_allclose(own.weights, weights.weights, rtol=1e-6)
    given = NeuronWeights(np.array([3, 5, 999], np.uint32), np.array([1, -0.5, 1], np.float32))
    for w in (weights, given):
        wanted = [weigh(base, i, w).fraction for i in range(12)]
        found = [None if np.isnan(g) else g for g in pool.fractions(everyone, w)]
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize("calibration", ["pool", "prompt"])
def test_a_subset_is_scored_as_if_there_were_no_other_candidates(calibration):
    rng = np.random.default_rng(4)
    counts = [6, 5, 7]
    sets = random_sets(rng, sum(counts))
    base, credits = random_pool(rng, sets)
    whole = assemble(np.random.default_rng(5), sets, counts, base, credits, calibration=calibration)
    drawn = accuracy.draw_sets(whole.starts, 3, count=4)
    found = score_sets(whole, drawn)
    assert list(found) == list(SELECTORS)
    for i in range(4):
        chosen = np.concatenate([own[i] for own in drawn])
        parts = [base.group(int(r)) for r in chosen]
        ptr = np.concatenate([[0], np.cumsum([len(keys) for keys, _ in parts])])
        own_base = SparseGroups(ptr, *(np.concatenate(values) for values in zip(*parts, strict=True)))
        own_credit = [credits.of(int(r)) for r in chosen]
        own_credits = Credits(
            np.concatenate([[0], np.cumsum([len(c.keys) for c in own_credit])]),
            *(np.concatenate([getattr(c, n) for c in own_credit]) for n in ("keys", "effective", "redundant")),
        )
        names = ("tokens", "entropy", "self_certainty", "neurons", "conclusions")
        alone = assemble(
            rng, [sets[r] for r in chosen], [3, 3, 3], own_base, own_credits, calibration=calibration,
            **{name: getattr(whole, name)[chosen] for name in names},
        )  # fmt: skip
        for name, scores in score_sets(alone, alone.whole()).items():
            for own, other in zip(scores, found[name], strict=True):
                np.testing.assert_allclose(own[0], other[i], rtol=1e-6, err_msg=name)


def test_weights_of_a_subset_differ_from_those_of_all_candidates():
    rng = np.random.default_rng(6)
    candidates = random_candidates(rng, [8, 8])
    few = [own[:, :3] for own in candidates.whole()]
    fractions = candidates.pool.fractions(few[0][0], candidates.pool.calibrate(np.arange(16)))
    assert not np.allclose(score_sets(candidates, few)["nex"][0][0], fractions, equal_nan=True)
