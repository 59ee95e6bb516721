"""The noise ceiling against published figures, closed forms, and variants that were simulated answer by answer."""

import numpy as np
import pytest
from scipy import stats

from nex_merge.labels.ceiling import noise_ceiling, shared_noise, true_accuracies


@pytest.mark.parametrize(("prompts", "samples", "expected"), [(64, 1, 0.49), (64, 4, 0.71), (256, 4, 0.89)])
@pytest.mark.parametrize("mean", [0.75, 0.8])
def test_variants_three_points_apart(prompts, samples, expected, mean):
    """Accuracies that are normal with a standard deviation of 0.03, at their quantiles."""
    true = mean + 0.03 * stats.norm.ppf((np.arange(60) + 0.5) / 60)
    assert noise_ceiling(true, prompts, samples)["value"] == pytest.approx(expected, abs=0.05)


def test_two_variants_in_closed_form():
    # One prompt: right (0.9) beats wrong, or they tie, which ranks nobody.
    ceiling = noise_ceiling(np.array([0.1, 0.9]), 1, draws=20_000)
    assert ceiling["value"] == pytest.approx(0.9**2 - 0.1**2, abs=0.02)
    assert ceiling["low"] == -1 or ceiling["low"] == 0
    assert ceiling["high"] == 1


def test_it_rises_to_one_with_labels_and_is_the_same_for_the_same_seed():
    true = np.array([0.2, 0.4, 0.5, 0.7])
    values = [noise_ceiling(true, prompts)["value"] for prompts in (4, 16, 64, 100_000)]
    assert values == sorted(values) and values[-1] == 1
    assert noise_ceiling(true, 16) == noise_ceiling(true, 16) != noise_ceiling(true, 16, seed=1)
    assert noise_ceiling(true, 16)["value"] < noise_ceiling(true, 16, shared=0.5)["value"]
    assert noise_ceiling(true, 4, shared=1.0)["value"] == 1, "noise in common ranks nobody wrongly"


def test_equal_variants_have_no_ceiling():
    assert noise_ceiling(np.full(5, 0.4), 64) == {"value": None, "low": None, "high": None}


def test_the_spread_is_what_noise_leaves():
    measured = np.array([0.4, 0.5, 0.6])
    true = true_accuracies(measured, np.array([100, 100, 100]))
    noise = (0.24 + 0.25 + 0.24) / 300
    assert true.var(ddof=1) == pytest.approx(0.01 - noise) and true.mean() == pytest.approx(0.5)
    assert np.ptp(true_accuracies(measured, np.array([20, 20, 20]))) == 0, "binomial noise explains all"
    assert np.ptp(true_accuracies(measured, np.array([20, 20, 20]), shared=0.9)) > 0.1
    assert np.ptp(true_accuracies(np.full(3, 0.5), np.array([20, 20, 20]))) == 0


def test_noise_in_common():
    rng = np.random.default_rng(0)
    alone = rng.random((20, 2000)) < 0.5
    assert shared_noise(alone) == pytest.approx(0, abs=0.02)
    assert shared_noise(np.repeat(alone[:1], 5, axis=0)) == pytest.approx(1)
    assert shared_noise(np.zeros((3, 4), bool)) == 0
    # Half of the problems are decided for all alike, by one coin each.
    half = np.where(np.arange(2000) % 2 == 0, alone[0], alone)
    assert shared_noise(half) == pytest.approx(0.5, abs=0.05)


def test_it_foresees_how_labels_on_a_few_of_the_problems_rank():
    """Variants with problems that are hard for all of them, as in reality; independent noise would foresee less."""
    rng = np.random.default_rng(1)
    skill, difficulty = rng.normal(scale=0.25, size=30), rng.normal(scale=2, size=4000)
    right = rng.random((30, 4000)) < 1 / (1 + np.exp(difficulty - skill[:, None]))
    true = right.mean(axis=1)
    drawn = [stats.spearmanr(right[:, rng.permutation(4000)[:64]].mean(axis=1), true)[0] for _ in range(300)]
    few = right[:, :400]
    shared = shared_noise(few)
    shrunk = true_accuracies(few.mean(axis=1), np.full(30, 400), shared)
    foreseen = noise_ceiling(shrunk, 64, shared=shared)["value"]
    assert foreseen == pytest.approx(np.mean(drawn), abs=0.06)
    independent = noise_ceiling(true_accuracies(few.mean(axis=1), np.full(30, 400)), 64)["value"]
    assert independent < np.mean(drawn) and abs(foreseen - np.mean(drawn)) < abs(independent - np.mean(drawn)) / 2
