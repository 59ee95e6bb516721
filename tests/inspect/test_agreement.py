"""Statistics of agreement against scikit-learn, scipy, hand-made figures and brute force."""

from itertools import product

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from sklearn.metrics import cohen_kappa_score

from nex_merge.inspect import agreement


def labels(seed, n, share=0.5):
    return np.random.default_rng(seed).random(n) < share


def sticky(seed, n, stay=0.8):
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.random(n) > stay) % 2 == 0


def test_kappa_of_a_hand_made_example():
    # 20 yes by both, 15 no by both of 50; shares 1/2 and 3/5: p = 0.7, e = 0.5.
    assert agreement.kappa(np.array([20, 5, 10, 15])) == pytest.approx(0.4)
    assert agreement.share_agreed(np.array([20, 5, 10, 15])) == pytest.approx(0.7)


@pytest.mark.parametrize("seed", range(20))
def test_kappa_is_that_of_scikit_learn(seed):
    found, wanted = labels(seed, 37, 0.3), labels(seed + 100, 37, 0.6)
    mine = agreement.kappa(agreement.label_counts(found, wanted)[0])
    assert mine == pytest.approx(cohen_kappa_score(found, wanted))


def test_kappa_is_undefined_only_if_all_labels_are_equal():
    same, mixed = np.ones(5, bool), np.array([1, 0, 1, 0, 1], bool)
    assert np.isnan(agreement.kappa(agreement.label_counts(same, same)[0]))
    assert agreement.kappa(agreement.label_counts(same, mixed)[0]) == 0
    assert agreement.kappa(agreement.label_counts(~mixed, mixed)[0]) < 0


@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 500])
def test_shifts_of_labels_by_brute_force(n):
    found, wanted = sticky(n, n), sticky(n + 1, n)
    table = agreement.label_counts(found, wanted)
    assert table.shape == (n, 4)
    for shift in range(n):
        shifted = np.roll(wanted, shift)
        parts = (found & shifted, found & ~shifted, ~found & shifted, ~found & ~shifted)
        assert table[shift].tolist() == [part.sum() for part in parts]


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_matching_is_maximal(tolerance):
    rng = np.random.default_rng(tolerance)
    for _ in range(200):
        first, second = (sorted(rng.choice(30, rng.integers(1, 12), replace=False).tolist()) for _ in range(2))
        near = np.abs(np.subtract.outer(first, second)) <= tolerance
        most = int((maximum_bipartite_matching(csr_matrix(near), perm_type="column") >= 0).sum())
        assert agreement.count_matches(first, second, tolerance) == most


def test_boundaries_of_a_hand_made_example():
    found = np.array([1, 1, 0, 0, 1, 1, 1, 0], bool)  # boundaries at 2, 4, 7
    wanted = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)  # at 3
    assert agreement.boundaries(found) == [2, 4, 7]
    assert agreement.boundary_counts(found, wanted, 0)[0].tolist() == [0, 3, 1]
    table = agreement.boundary_counts(found, wanted, 1)
    assert table[0].tolist() == [1, 3, 1]
    assert agreement.precision(table[0]) == pytest.approx(1 / 3)
    assert agreement.recall(table[0]) == 1
    assert agreement.f1(table[0]) == pytest.approx(1 / 2)
    # Shifted by two, the beginning shows a second boundary: 0 0 1 1 1 0 0 0.
    assert table[2].tolist() == [2, 3, 2]
    none = agreement.boundary_counts(np.ones(4, bool), np.ones(4, bool), 1)[0]
    assert np.isnan(agreement.f1(none)) and np.isnan(agreement.precision(none))


def test_chance_is_the_distribution_over_all_shifts():
    pairs = [(sticky(1, 9), sticky(2, 9)), (sticky(3, 7), sticky(4, 7)), (sticky(5, 8), sticky(6, 8))]
    for statistic, tables in (
        (agreement.kappa, [agreement.label_counts(*pair) for pair in pairs]),
        (agreement.f1, [agreement.boundary_counts(*pair, 1) for pair in pairs]),
    ):
        every = np.array([float(statistic(sum(rows))) for rows in product(*tables)])
        found = agreement.estimate(tables, statistic, draws=40_000)
        assert found.value == pytest.approx(float(statistic(sum(table[0] for table in tables))))
        assert found.chance == pytest.approx(every.mean(), abs=5 * every.std() / 200)
        assert found.as_good == pytest.approx((every >= found.value - 1e-12).mean(), abs=0.0125)


def test_the_interval_is_a_bootstrap_over_responses():
    tables = [agreement.label_counts(sticky(i, 40), sticky(i, 40) if i % 2 else labels(i, 40)) for i in range(12)]
    found = agreement.estimate(tables, agreement.kappa)
    rng = np.random.default_rng(9)
    true = np.stack([table[0] for table in tables])
    drawn = [agreement.kappa(true[rng.integers(12, size=12)].sum(0)) for _ in range(4000)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.03)
    assert found.low < found.value < found.high
    assert agreement.estimate(tables, agreement.kappa) == found


def test_unrelated_labels_rarely_beat_their_shifts():
    beyond = 0
    for seed in range(200):
        tables = [agreement.label_counts(sticky(seed, 60), sticky(1000 + seed, 60)) for _ in range(2)]
        beyond += agreement.estimate(tables[:1], agreement.kappa, draws=200).as_good <= 0.05
    assert beyond <= 20  # 10 expected
    same = [agreement.label_counts(sticky(i, 60), sticky(i, 60)) for i in range(4)]
    found = agreement.estimate(same, agreement.kappa)
    assert (found.value, found.low, found.high) == (1, 1, 1) and found.as_good < 0.01


def test_nothing_to_compare_gives_no_value():
    empty = agreement.label_counts(np.zeros(0, bool), np.zeros(0, bool))
    assert agreement.estimate([empty, empty], agreement.kappa).value is None
    assert agreement.estimate([], agreement.f1).value is None
    single = agreement.estimate([agreement.label_counts(sticky(1, 9), sticky(2, 9)), empty], agreement.kappa)
    assert single.value is not None and single.low is None and single.chance is not None
