"""Decoding against exhaustive enumeration; mending against hand-made cases and an independent version; fallbacks."""

import itertools

import numpy as np
import pytest

from benchmarks import plain
from nex_merge.nex import phases


def log_likelihood(path, z, means, variances, rho):
    total = np.log(0.5)
    for t, state in enumerate(path):
        total += -0.5 * (np.log(2 * np.pi * variances[state]) + (z[t] - means[state]) ** 2 / variances[state])
        if t:
            total += np.log(rho if state == path[t - 1] else 1 - rho)
    return total


@pytest.mark.parametrize("rho", [0.6, 0.95, 0.99])
@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_decoding_is_the_best_of_all_paths(rho, length):
    rng = np.random.default_rng(length)
    for _ in range(5):
        z = rng.normal(size=length) * 2
        means, variances = np.sort(rng.normal(size=2)), rng.uniform(0.1, 2, size=2)
        best = max(
            itertools.product((0, 1), repeat=length), key=lambda path: log_likelihood(path, z, means, variances, rho)
        )
        assert phases.most_likely_states(z, means, variances, rho).tolist() == list(best)


@pytest.mark.parametrize(
    ("labels", "min_run", "expected"),
    [
        ("EEXEE", 2, "EEEEE"),  # a short run takes the label before it
        ("EXXEE", 2, "XXXEE"),  # at the very start, the label after it
        ("EXEXX", 2, "XXXXX"),  # the grown start is looked at again
        ("XXEXEE", 2, "XXXXEE"),  # over labels as already mended
        ("XEXEXE", 2, "EEEEEE"),
        ("EEXXX", 3, "XXXXX"),
        ("E", 2, "E"),  # nothing to take a label from
        ("EXEX", 1, "EXEX"),
    ],
)
def test_mending(labels, min_run, expected):
    mended = phases.mend(np.array([c == "E" for c in labels]), min_run)
    assert "".join("E" if explore else "X" for explore in mended) == expected


@pytest.mark.parametrize("min_run", [1, 2, 3, 4])
def test_mending_is_that_of_an_independent_version(min_run):
    """On all label sequences of up to 10 rows."""
    for length in range(11):
        for labels in itertools.product((False, True), repeat=length):
            mended = phases.mend(np.array(labels, bool), min_run).tolist()
            assert mended == plain.mend(labels, min_run), labels


def test_runs():
    assert phases.runs(np.array([1, 1, 0, 1], bool)) == [(0, 1), (2, 2), (3, 3)]
    assert phases.runs(np.array([], bool)) == []


def test_fallbacks_are_named(monkeypatch):
    z = np.array([1.0, -1.0, 2.0, 2.0, -3.0, -3.0])
    assert phases.segment(z, True, 0.95, 1).fallback == "zero_spread"
    assert phases.segment(z, False, 0.95, 1).fallback is None
    monkeypatch.setattr(phases, "most_likely_states", lambda *args: None)
    fallen = phases.segment(z, False, 0.95, 1)
    assert fallen.fallback == "decoding_failed"
    assert fallen.explore.tolist() == (z > 0).tolist()
    monkeypatch.setattr(phases, "fit_emissions", lambda z: None)
    assert phases.segment(z, False, 0.95, 1).fallback == "mixture_failed"


def test_a_mixture_that_can_not_be_fitted():
    assert phases.fit_emissions(np.array([1.0, np.nan, 2.0])) is None
    assert phases.fit_emissions(np.array([1.0])) is None
