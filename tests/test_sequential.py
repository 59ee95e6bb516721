"""The sign test of comparisons: its error over all sequences, its bound by hand, what is left to look at."""

from itertools import product

import numpy as np
import pytest

from nex_merge.sequential import ERROR, EXACT, FEWEST, majorities, stand


@pytest.mark.parametrize("prompts", [6, 8, 13, 14])
def test_the_error_over_all_sequences_is_5_percent_at_most(prompts):
    settled = [stand(signs, prompts).winner for signs in product((1, -1), repeat=prompts)]
    wrong = np.mean(np.array(settled) != 0)
    assert 0 < wrong <= ERROR
    assert settled.count(1) == settled.count(-1), "neither side is favoured"


@pytest.mark.parametrize(("prompts", "ties"), [(30, 0.0), (64, 0.3)])
def test_ties_and_looking_after_every_look_do_not_raise_the_error(prompts, ties):
    rng = np.random.default_rng(0)
    signs = rng.choice([1, -1], (4000, prompts)) * (rng.random((4000, prompts)) >= ties)
    wrong = np.mean([stand(row, prompts).winner != 0 for row in signs.tolist()])
    assert wrong <= ERROR + 3 * (ERROR * (1 - ERROR) / 4000) ** 0.5
    p = rng.choice([1, -1], (1000, prompts), p=[0.85, 0.15])
    assert np.mean([stand(row, prompts).winner == 1 for row in p.tolist()]) > 0.95, "what is there is found"


def test_majorities_are_those_of_the_mixture():
    """e(a, b) = 2^d B(a + 2, b + 2) / B(2, 2) = 6 * 2^d (a + 1)! (b + 1)! / (d + 3)!; its bound is 20."""
    from math import factorial

    needed = majorities(EXACT + 1)
    for decided in (8, 9, 20, 40):
        evidence = [
            6 * 2**decided * factorial(a + 1) * factorial(decided - a + 1) / factorial(decided + 3)
            for a in range(decided + 1)
        ]
        enough = [a for a in range((decided + 1) // 2, decided + 1) if evidence[a] >= 1 / ERROR]
        assert needed[decided] == (enough[0] if enough else decided + 1)
    assert all(known <= other for known, other in zip(majorities(30), needed, strict=False)), "it pays to know how many"


def test_fewer_than_six_can_never_settle_it():
    assert stand([], FEWEST).at_least == FEWEST and stand([1] * FEWEST, FEWEST).winner == 1
    few = stand([], FEWEST - 1)
    assert few.at_least is None and few.is_over and stand([1] * 5, 5).winner == 0


def test_what_is_left_to_look_at():
    assert stand([], 20).at_least == 7 and stand([], 20).at_most == 20
    assert stand([1, 0], 20).at_least == 6 and stand([1, 0], 20).at_most == 18
    assert stand([1, -1], 20).at_least == 8, "a look for either side takes longer"
    over = stand([1, -1] * 9, 20)
    assert over.at_least is None and over.is_over and over.winner == 0, "two left can't settle it"
    assert not stand([], 20).is_over


def test_what_is_settled_stays_so():
    first = stand([-1] * 7, 20)
    assert (first.winner, first.settled_at, first.at_most) == (-1, 7, 0) and first.is_over
    assert stand([-1] * 7 + [1] * 13, 20) == first


def test_more_looks_than_prompts_are_refused():
    with pytest.raises(ValueError, match="at most 2 looks, got 3"):
        stand([1, 1, 1], 2)
