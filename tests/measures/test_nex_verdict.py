"""Verdicts on a run's NEX in closed form."""

from dataclasses import replace

import pytest

from nex_merge.measures.nex_verdict import assess, follows_length
from nex_merge.records import NexScore


def a_score(cycles, credited):
    return NexScore(0.5, 0.3, "self", (0.5,) * 10, 10, 10, cycles, credited, 0.5, {}, 0.5, 0.1)


@pytest.mark.parametrize(
    ("cycles", "credited", "halves", "beats", "verdict", "words"),
    [
        (30, 9, 0.9, 0.99, "sound", []),
        (30, 9, 0.9, 0.6, "sound", ["beats base and every parent is only 60%"]),
        (15, 9, 0.9, 0.99, "weak", ["responses have few cycles to earn credit (1.5 on average"]),
        (4, 9, 0.9, 0.99, "insufficient", ["have too few cycles"]),
        (30, 3, 0.9, 0.99, "weak", ["few responses earn credit at all (30%)"]),
        (30, 9, 0.6, 0.99, "weak", ["agree only roughly (split-half reliability 0.60)"]),
        (30, 9, -0.2, 0.99, "insufficient", ["hardly agree (split-half reliability -0.20)"]),
        (30, 9, None, None, "weak", ["too few variants"]),
    ],
)
def test_verdicts(cycles, credited, halves, beats, verdict, words):
    scores = [a_score(cycles, credited)] * 4
    found = assess(scores, [9.0] * 4, scores, 10, halves, beats)
    assert found.verdict == verdict
    assert len(found.reasons) == len(words)
    for reason, word in zip(found.reasons, words, strict=True):
        assert word in reason
    assert bool(found.advice) == any("beats" not in word and "too few variants" not in word for word in words)


def with_nex(nex):
    return replace(a_score(30, 9), nex=nex)


def test_a_score_that_follows_length_says_so():
    scores = [with_nex(nex) for nex in (0.1, 0.2, 0.3, 0.4, 0.5)]
    found = assess(scores, [10.0, 20.0, 30.0, 40.0, 50.0], scores, 10, 0.9, 0.99)
    assert found.verdict == "weak" and found.follows_length == pytest.approx(1.0)
    assert "longer first (Spearman 1.00 with mean tokens)" in found.reasons[0]
    found = assess(scores, [50.0, 40.0, 30.0, 20.0, 10.0], scores, 10, 0.9, 0.99)
    assert "shorter first" in found.reasons[0]
    found = assess(scores, [30.0, 10.0, 50.0, 20.0, 40.0], scores, 10, 0.9, 0.99)
    assert found.verdict == "sound" and found.reasons == ()


def test_too_few_or_equal_variants_tell_nothing_of_length():
    scores = [with_nex(0.1)] * 6
    assert follows_length(scores, [1.0, 2, 3, 4, 5, 6]) is None
    assert follows_length(scores[:4], [1.0, 2, 3, 4]) is None
