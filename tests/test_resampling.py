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


def test_superiority():
    assert resampling.superiority(np.array([1.0, 2.0, 3.0, 1.0]), np.array([0.0, 2.0, 4.0, 0.0])) == 0.625
    assert resampling.superiority(np.array([np.nan]), np.array([1.0])) is None


def test_split_half_in_closed_form():
    order = np.arange(6.0)
    assert resampling.split_half(np.stack([order, order * 2], axis=1)) == pytest.approx(1.0)
    assert resampling.split_half(np.stack([order, -order], axis=1)) == pytest.approx(-1.0)
    mixed = np.stack([order, np.array([1.0, 0, 3, 2, 5, 4])], axis=1)  # Spearman 1 - 6 * 6 / (6 * 35)
    r = 1 - 36 / 210
    assert resampling.split_half(mixed) == pytest.approx(2 * r / (1 + r))
    assert resampling.split_half(mixed[:4]) is None
