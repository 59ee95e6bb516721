"""Bootstrap over prompts and split halves, against closed forms."""

import numpy as np
import pytest

from nex_merge import resampling


def test_resamples_draw_prompts_with_all_their_samples():
    counts = resampling.resamples(np.array([0, 0, 4, 4, 9, 9]), count=50)
    assert (counts[:, ::2] == counts[:, 1::2]).all() and (counts.sum(1) == 6).all()


def test_halves_are_complements():
    counts = resampling.halves(np.array([0, 1, 2, 3, 3]), count=4)
    assert (counts[::2] + counts[1::2] == 1).all()
    assert (counts[:, 3] == counts[:, 4]).all()


def test_split_half_in_closed_form():
    order = np.arange(6.0)
    assert resampling.split_half(np.stack([order, order * 2], axis=1)) == pytest.approx(1.0)
    assert resampling.split_half(np.stack([order, -order], axis=1)) == pytest.approx(-1.0)
    mixed = np.stack([order, np.array([1.0, 0, 3, 2, 5, 4])], axis=1)  # Spearman 1 - 6 * 6 / (6 * 35)
    r = 1 - 36 / 210
    assert resampling.split_half(mixed) == pytest.approx(2 * r / (1 + r))
    assert resampling.split_half(mixed[:4]) is None


def equal_runs(runs, merges, prompts=24, parents=2):
    """Runs in which all variants are equal: the highest confidence that a merge beats every parent, float64 [runs]."""
    rng = np.random.default_rng(merges)
    found = []
    for _ in range(runs):
        parts = rng.normal(size=prompts) + rng.normal(scale=0.5, size=(parents + merges, prompts))
        counts = resampling.resamples(np.arange(prompts), seed=int(rng.integers(2**31)))
        values, drawn = parts.mean(axis=1), parts @ counts.T / prompts
        odds = resampling.odds_against(values[parents:], drawn[parents:], values[:parents], drawn[:parents], prompts)
        found.append(odds.max())
    return np.array(found)


@pytest.mark.parametrize("merges", [1, 12, 40])
@pytest.mark.parametrize("parents", [1, 2])
def test_equal_variants_are_seldom_called_better_however_many_were_tried(merges, parents):
    runs = 400
    share = float(np.mean(equal_runs(runs, merges, parents=parents) > 0.95))
    # The level is 5 %; two standard errors of a share of 400 runs are another 2 %.
    assert share <= 0.07


def test_a_merge_that_is_better_is_called_so():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=64) + rng.normal(scale=0.5, size=(14, 64))
    parts[5] += 1.0
    counts = resampling.resamples(np.arange(64))
    values, drawn = parts.mean(axis=1), parts @ counts.T / 64
    odds = resampling.odds_against(values[2:], drawn[2:], values[:2], drawn[:2], 64)
    assert odds.argmax() == 3 and odds[3] > 0.99 and np.delete(odds, 3).max() < 0.9


def test_odds_in_closed_form_and_where_there_are_none():
    # Errors of the two candidates against the other: -1, 0, 1 times sqrt(4 / 1), and none; leads 3 and 1.
    drawn = np.array([[3.0, 4.0, 5.0], [2.0, 2.0, 2.0]])
    odds = resampling.odds_against(np.array([4.0, 2.0]), drawn, np.array([1.0]), np.array([[1.0, 1.0, 1.0]]), 4)
    # Largest errors 0, 0, 2: three and two of them are smaller, of three resamples and one.
    assert odds.tolist() == [3 / 4, 2 / 4]
    none = resampling.odds_against(np.array([4.0]), drawn[:1], np.array([np.nan]), drawn[:1], 4)
    assert np.isnan(none).all()
    assert np.isnan(resampling.odds_against(np.array([4.0]), drawn[:1], np.array([1.0]), drawn[1:], 3)).all()
