"""Fronts and hypervolume, against definitions that are slow and plain."""

import itertools

import numpy as np
import pytest

from nex_merge.measures.pareto import fronts, fronts_among, hypervolume


def beats(one, other):
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("objectives", "seed"), [*itertools.product([2, 3], range(4))])
def test_a_front_is_what_only_earlier_fronts_beat(objectives, seed):
    points = np.random.default_rng(seed).integers(0, 6, (25, objectives)).astype(float)
    numbers = fronts(points)
    for point, number in zip(points, numbers, strict=True):
        above = [numbers[i] for i, other in enumerate(points) if beats(other, point)]
        assert number == 1 + max(above, default=0)
    assert numbers.min() == 1 and numbers.max() > 2, "or the comparison shows little"


def test_equal_points_share_a_front_and_no_points_have_none():
    assert fronts(np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 2.0]])).tolist() == [1, 1, 2]
    assert fronts(np.zeros((0, 2))).tolist() == []


def test_others_have_the_number_that_they_would_have_and_change_none():
    points = np.array([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0], [0.0, 0.5]])
    numbers = fronts(points)
    others = np.array([[9.0, 9.0], [1.0, 1.0], [0.0, 0.0], [0.0, 4.0]])
    assert numbers.tolist() == [1, 1, 2, 3]
    assert fronts_among(points, numbers, others).tolist() == [1, 2, 4, 1]
    assert fronts_among(points[:0], numbers[:0], others).tolist() == [1, 1, 1, 1]
    for other, number in zip(others, fronts_among(points, numbers, others), strict=True):
        assert fronts(np.vstack([points, other]))[-1] == number


@pytest.mark.parametrize(("objectives", "seed"), [*itertools.product([1, 2, 3], range(4))])
def test_the_hypervolume_is_the_number_of_unit_cells_below_a_point(objectives, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(-2, 7, (12, objectives)).astype(float)
    cells = itertools.product(range(7), repeat=objectives)
    counted = sum(any(all(x > at for x, at in zip(point, cell, strict=True)) for point in points) for cell in cells)
    assert hypervolume(points, np.zeros(objectives)) == counted > 0


def test_nothing_above_the_reference_has_no_volume():
    assert hypervolume(np.array([[1.0, 0.0], [-1.0, 5.0]]), np.zeros(2)) == 0
    assert hypervolume(np.zeros((0, 3)), np.zeros(3)) == 0
