"""Differences with intervals, against closed forms and an explicit bootstrap."""

import numpy as np
import pytest

from nex_merge.inspect.transfer.experiment import Transfer, Transplant
from nex_merge.inspect.transfer.neuron_sets import NeuronSet
from nex_merge.inspect.transfer.outcomes import RESAMPLES, Outcome, differences, problem_counts, quantities
from nex_merge.inspect.transfer.summary import compute_effects, stability


def outcome(right, nex=0.5, tokens=10):
    problems = len(right)
    drawn = np.full(len(problem_counts(problems)), np.nan if nex is None else nex)
    return Outcome(
        np.array(right, bool), np.full(problems, tokens), np.zeros(problems), np.zeros(problems, bool), nex, drawn
    )


def test_means_over_seeds_by_kind():
    found = quantities([outcome([1, 1, 0, 0]), outcome([1, 0, 0, 1], nex=0.7)], ["x", "x", "y", "y"])
    values = {name: quantity.value for name, quantity in found.items()}
    assert values == pytest.approx(
        {"accuracy": 0.5, "accuracy x": 0.75, "accuracy y": 0.25, "nex": 0.6, "tokens": 10, "entropy": 0,
         "truncated": 0}
    )  # fmt: skip
    assert "accuracy x" not in quantities([outcome([1, 0])], ["x", "x"])


def test_resamples_draw_problems_and_seeds():
    outcomes = [outcome(np.arange(6) % 2), outcome(np.arange(6) % 3 == 0), outcome([1, 1, 1, 1, 0, 0])]
    drawn = quantities(outcomes, [""] * 6)["accuracy"].drawn
    problems = problem_counts(6)
    rng = np.random.default_rng(1)
    seeds = rng.multinomial(3, [1 / 3] * 3, size=RESAMPLES)
    for b in (0, 1, 17, 999):
        values = [
            o.right[p]
            for o, times in zip(outcomes, seeds[b], strict=True)
            for p in range(6)
            for _ in range(problems[b, p] * times)
        ]
        assert drawn[b] == pytest.approx(np.mean(values))


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    before = rng.random(50) < 0.5
    same = differences(quantities([outcome(before)], [""] * 50), quantities([outcome(before)], [""] * 50))
    assert same["accuracy"].value == 0 and same["accuracy"].interval() == (0, 0)
    one_better = before.copy()
    one_better[np.flatnonzero(~before)[0]] = True
    gap = differences(quantities([outcome(one_better)], [""] * 50), quantities([outcome(before)], [""] * 50))
    low, high = gap["accuracy"].interval()
    # One problem of fifty: drawn a Poisson number of times, so never beyond a few fiftieths.
    assert gap["accuracy"].value == pytest.approx(0.02) and low == 0 and 0.02 <= high <= 0.08


def test_undefined_values_stay_undefined():
    found = quantities([outcome([1, 0], nex=None), outcome([1, 0])], ["", ""])
    assert found["nex"].value is None and found["nex"].interval() == (None, None)
    assert (found["nex"] - found["accuracy"]).value is None
    assert quantities([outcome([1])], [""])["accuracy"].interval() == (None, None)  # a single problem has no interval


def test_effects_compare_sets_with_the_recipient_and_with_each_other():
    def transplant(neurons, seed, right):
        keys = np.array([seed, 9], np.uint32)
        return Transplant(NeuronSet(neurons, 2, seed, keys, 1.0, 1.0), 0.1, outcome(right))

    items = [
        transplant("effective", 0, [1, 1, 1, 0]), transplant("effective", 1, [1, 1, 1, 1]),
        transplant("random", 0, [1, 0, 0, 0]), transplant("random", 1, [0, 0, 1, 0]),
    ]  # fmt: skip
    before = outcome([1, 0, 0, 0])
    rows = {
        row.neurons: row
        for row in compute_effects(Transfer(before, before, items), [""] * 4)
        if row.measure == "accuracy"
    }
    assert set(rows) == {"effective", "random", "effective - random"}
    assert (rows["effective"].after, rows["effective"].change) == (0.875, 0.625)
    assert (rows["random"].change, rows["effective - random"].change) == (0, 0.625)
    assert rows["effective - random"].after is None and rows["effective"].seeds == 2
    assert stability(items[:2]) == pytest.approx(1 / 3) and stability(items[:1]) is None
