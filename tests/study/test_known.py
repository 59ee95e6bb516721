"""A trial knows what was told before it was proposed, in whatever order results come to lie on disk."""

import pytest

from nex_merge.records import TrialResult
from nex_merge.study.known import horizon, known, knows

RESULTS = [
    TrialResult(trial, kind, trial, "ties", 0, "complete")
    for trial, kind in (("base", "base"), ("a", "parent"), ("b", "parent"),
                        ("0000", "merge"), ("0001", "merge"), ("0009", "merge"), ("10000", "merge"))
]  # fmt: skip


def names(trial):
    return [result.trial for result in known(trial, RESULTS, 1)]


def test_a_merge_knows_base_the_parents_and_the_merges_below_it():
    assert names("0000") == ["base", "a", "b"]
    assert names("0002") == ["base", "a", "b", "0000", "0001"]
    assert names("10000") == ["base", "a", "b", "0000", "0001", "0009"], "numbers, not words, are compared"


def test_base_and_the_parents_know_one_another_and_no_merge():
    assert (names("base"), names("a")) == (["a", "b"], ["base", "b"])


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_one_rule_says_it_for_samplers_and_pools(parallel):
    merges = [result for result in RESULTS if result.kind == "merge"]
    for number in (0, 1, 2, 9, 10, 10_001):
        expected = [int(r.trial) < horizon(number, parallel) for r in merges]
        assert [knows(f"{number:04d}", r, parallel) for r in merges] == expected


def test_of_several_at_once_a_merge_knows_those_that_were_told_when_it_was_proposed():
    assert [horizon(number, 4) for number in range(7)] == [0, 0, 0, 0, 1, 2, 3]
