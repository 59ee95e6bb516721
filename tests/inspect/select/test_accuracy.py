"""Accuracies of selectors against exact expectations."""

from itertools import combinations

import numpy as np
import pytest

from nex_merge.inspect.select import accuracy
from nex_merge.inspect.select.selectors import score_sets
from tests.inspect.select.fakes import random_candidates


def outcomes(candidates, right, sets):
    return accuracy.selector_outcomes(score_sets(candidates, sets), candidates, right, sets)


def test_outcomes_over_all_subsets_are_the_exact_expectation():
    rng = np.random.default_rng(7)
    candidates = random_candidates(rng, [6])
    right = rng.random(6) < 0.5
    sets = np.array(list(combinations(range(6), 3)))
    found = outcomes(candidates, right, [sets])
    assert found["random"].right[0] == pytest.approx(np.mean([right[list(own)].mean() for own in sets]))
    assert found["oracle"].right[0] == pytest.approx(np.mean([right[list(own)].any() for own in sets]))
    tokens = candidates.tokens
    picks = []
    for own in sets:
        known = [j for j in own if not np.isnan(tokens[j])]
        top = [j for j in known if tokens[j] == min(tokens[known])] if known else list(own)
        picks.append(right[top].mean())
    assert found["shortest"].right[0] == pytest.approx(np.mean(picks))


def test_few_subsets_are_all_taken_once():
    for n, size in ((3, 2), (8, 4), (6, 3), (4, 4)):
        (sets,) = accuracy.draw_sets(np.array([0, n]), size)
        assert sorted(map(tuple, sets.tolist())) == list(combinations(range(n), size))


def test_random_subsets_approximate_all_subsets_and_are_reproducible():
    rng = np.random.default_rng(8)
    candidates = random_candidates(rng, [10])
    right = rng.random(10) < 0.5
    exact = outcomes(candidates, right, [np.array(list(combinations(range(10), 4)))])  # 210, more than are all taken
    drawn = accuracy.draw_sets(candidates.starts, 4, count=4000)
    assert len(drawn[0]) == 4000 and all(len(set(own)) == 4 for own in drawn[0].tolist())
    found = outcomes(candidates, right, drawn)
    for name, outcome in found.items():
        assert outcome.right == pytest.approx(exact[name].right, abs=0.03), name
    np.testing.assert_array_equal(drawn[0], accuracy.draw_sets(candidates.starts, 4, count=4000)[0])


def test_every_candidate_is_in_equally_many_subsets():
    for n, size in ((16, 4), (16, 8), (16, 2), (10, 4), (11, 4)):
        (sets,) = accuracy.draw_sets(np.array([0, n]), size)
        assert len(sets) >= accuracy.SETS and len(set(np.bincount(sets.ravel()).tolist())) == 1
        assert all(len(set(own)) == size for own in sets.tolist())


@pytest.mark.parametrize(("n", "size"), [(3, 2), (5, 4), (10, 4), (16, 8)])
def test_a_choice_among_ties_gains_nothing_whatever_the_draw(n, size):
    rng = np.random.default_rng(12)
    tied = random_candidates(rng, [n] * 9, tokens=np.ones(9 * n), conclusions=np.full(9 * n, 3))
    found = accuracy.compare_selectors(tied, rng.random(9 * n) < 0.4, size).selectors
    for name in ("shortest", "majority"):
        assert (found[name].gain, found[name].gain_low, found[name].gain_high) == (0, 0, 0)
        assert found[name].accuracy == pytest.approx(found["random"].accuracy)


def test_a_selector_with_all_candidates_tied_is_a_random_choice():
    rng = np.random.default_rng(9)
    candidates = random_candidates(rng, [4] * 5, tokens=np.ones(20), conclusions=np.arange(20))
    right = np.repeat([[True, False, False, False]], 5, axis=0).ravel()
    found = accuracy.compare_selectors(candidates, right, 4)
    assert found.sets == 1 and found.prompts == 5
    shortest, best = found.selectors["shortest"], found.selectors["oracle"]
    assert (shortest.accuracy, shortest.gain, shortest.gain_low, shortest.gain_high) == (0.25, 0, 0, 0)
    assert shortest.undecided == 1 and best.accuracy == 1 and best.gain == 0.75 == best.gain_low


def test_gains_are_paired_over_prompts():
    rng = np.random.default_rng(10)
    right = np.zeros((40, 2), bool)
    right[:20] = True  # half of the prompts are hopeless, so accuracy varies over resamples while the gain does not
    tokens = np.tile([1.0, 2.0], 40)
    found = accuracy.compare_selectors(random_candidates(rng, [2] * 40, tokens=tokens), right.ravel(), 2).selectors[
        "shortest"
    ]
    assert found.high - found.low > 0.2 and found.gain_low == found.gain_high == 0


def test_subset_sizes_and_prompts_with_too_few_candidates():
    assert accuracy.subset_sizes(np.array([16, 16])) == [2, 4, 8, 16]
    assert accuracy.subset_sizes(np.array([10, 10])) == [2, 4, 8, 10]
    assert accuracy.subset_sizes(np.array([1, 10])) == [2, 4, 8]
    assert accuracy.subset_sizes(np.array([1, 1])) == []
    candidates = random_candidates(np.random.default_rng(11), [1, 4, 2])
    found = accuracy.compare_selectors(candidates, np.ones(7, bool), 4)
    assert (found.prompts, found.sets) == (1, 1) and found.selectors["random"].low is None
    assert accuracy.compare_selectors(candidates, np.ones(7, bool), 2).sets == 6
    few = accuracy.compare_selectors(random_candidates(np.random.default_rng(11), [2] * 3), np.arange(6) % 2 == 0, 2)
    assert few.selectors["shortest"].gain_low is None  # of three prompts, resamples are no estimate
