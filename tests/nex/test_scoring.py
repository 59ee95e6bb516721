"""Intervals, superiority, split halves and verdicts, against slow or closed forms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nex_merge.activations.cache import read_cache
from nex_merge.nex import reliability
from nex_merge.nex.calibration import analyse, calibrate, folds, stack_credits
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.good_mass import mean_score, neuron_weights, weigh
from nex_merge.records import Evidence, NexScore

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=["long", "edge"])
def found(request):
    cache = read_cache(GOLDEN / request.param)
    analyses = analyse(cache, 0.95, 2)
    return analyses, Evidence(np.arange(cache.responses), cache.base, stack_credits(analyses))


def slowly(evidence, counts, crossfit):
    """One resample the long way: every drawn response's credit and score, as often as it was drawn."""
    fold = folds(evidence.prompts)
    drawn = [i for i, n in enumerate(counts) for _ in range(n)]
    scores = []
    for i in drawn:
        teachers = [j for j in drawn if not crossfit or fold[j] != fold[i]]
        weights = neuron_weights(sum_credit([evidence.credits.of(j) for j in teachers]))
        scores.append(weigh(evidence.base, i, weights).fraction)
    return mean_score(scores)


@pytest.mark.parametrize("calibration", ["self", "crossfit"])
def test_resamples_are_what_the_long_way_gives(found, calibration):
    _, evidence = found
    counts = reliability.resamples(evidence.prompts, count=5)
    fractions = [weigh(evidence.base, i, calibrate(evidence.credits)).fraction for i in range(counts.shape[1])]
    drawn = reliability.resampled(evidence, fractions, calibration, counts)
    expected = [slowly(evidence, row, calibration == "crossfit") for row in counts]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.parametrize("calibration", ["self", "crossfit"])
def test_everything_drawn_once_is_the_score_itself(found, calibration):
    analyses, evidence = found
    scored = reliability.score(evidence, analyses, calibration)
    ones = np.ones((1, len(evidence.prompts)), int)
    drawn = reliability.resampled(evidence, scored.response_scores, calibration, ones)
    assert drawn[0] == pytest.approx(scored.nex, abs=1e-6)
    assert scored.low <= scored.high


def test_shared_weights_are_not_drawn_again(found):
    analyses, evidence = found
    shared = calibrate(evidence.credits)
    scored = reliability.score(evidence, analyses, "parents", shared)
    counts = reliability.resamples(evidence.prompts, count=7)
    known = np.array([g is not None for g in scored.response_scores])
    g = np.array([g or 0.0 for g in scored.response_scores])
    expected = (counts * known) @ g / (counts * known).sum(1)
    np.testing.assert_allclose(
        reliability.resampled(evidence, scored.response_scores, "parents", counts), expected, rtol=1e-12
    )


def test_resamples_draw_prompts_with_all_their_samples():
    counts = reliability.resamples(np.array([0, 0, 4, 4, 9, 9]), count=50)
    assert (counts[:, ::2] == counts[:, 1::2]).all() and (counts.sum(1) == 6).all()


def test_halves_are_complements():
    counts = reliability.halves(np.array([0, 1, 2, 3, 3]), count=4)
    assert (counts[::2] + counts[1::2] == 1).all()
    assert (counts[:, 3] == counts[:, 4]).all()


def test_superiority():
    assert reliability.superiority(np.array([1.0, 2.0, 3.0, 1.0]), np.array([0.0, 2.0, 4.0, 0.0])) == 0.625
    assert reliability.superiority(np.array([np.nan]), np.array([1.0])) is None


def test_split_half_in_closed_form():
    order = np.arange(6.0)
    assert reliability.split_half(np.stack([order, order * 2], axis=1)) == pytest.approx(1.0)
    assert reliability.split_half(np.stack([order, -order], axis=1)) == pytest.approx(-1.0)
    mixed = np.stack([order, np.array([1.0, 0, 3, 2, 5, 4])], axis=1)  # Spearman 1 - 6 * 6 / (6 * 35)
    r = 1 - 36 / 210
    assert reliability.split_half(mixed) == pytest.approx(2 * r / (1 + r))
    assert reliability.split_half(mixed[:4]) is None


def a_score(cycles, credited):
    return NexScore(0.5, 0.3, 0.4, 0.6, "self", (0.5,) * 10, 10, 10, cycles, credited, 0.5, {}, 0.5, 0.1)


@pytest.mark.parametrize(
    ("cycles", "credited", "halves", "beats", "verdict", "words"),
    [
        (30, 9, 0.9, 0.99, "sound", []),
        (30, 9, 0.9, 0.6, "sound", ["beats the best parent in 60%"]),
        (15, 9, 0.9, 0.99, "weak", ["has few cycles to earn credit from (1.5 on average"]),
        (4, 9, 0.9, 0.99, "insufficient", ["has too few cycles"]),
        (30, 3, 0.9, 0.99, "weak", ["few responses earn credit at all (30%)"]),
        (30, 9, 0.6, 0.99, "weak", ["says little of that on the other (split-half reliability 0.60)"]),
        (30, 9, -0.2, 0.99, "insufficient", ["says nothing of that on the other"]),
        (30, 9, None, None, "weak", ["too few variants"]),
    ],
)
def test_verdicts(cycles, credited, halves, beats, verdict, words):
    scores = [a_score(cycles, credited)] * 4
    found = reliability.assess(scores, [9.0] * 4, scores, 10, halves, beats)
    assert found.verdict == verdict
    assert len(found.reasons) == len(words)
    for reason, word in zip(found.reasons, words, strict=True):
        assert word in reason
    assert bool(found.advice) == any("beats" not in word and "too few variants" not in word for word in words)


def with_nex(nex):
    return replace(a_score(30, 9), nex=nex)


def test_a_score_that_follows_length_says_so():
    scores = [with_nex(nex) for nex in (0.1, 0.2, 0.3, 0.4, 0.5)]
    found = reliability.assess(scores, [10.0, 20.0, 30.0, 40.0, 50.0], scores, 10, 0.9, 0.99)
    assert found.verdict == "weak" and found.follows_length == pytest.approx(1.0)
    assert "longer first (Spearman 1.00 with mean tokens)" in found.reasons[0]
    found = reliability.assess(scores, [50.0, 40.0, 30.0, 20.0, 10.0], scores, 10, 0.9, 0.99)
    assert "shorter first" in found.reasons[0]
    found = reliability.assess(scores, [30.0, 10.0, 50.0, 20.0, 40.0], scores, 10, 0.9, 0.99)
    assert found.verdict == "sound" and found.reasons == ()


def test_too_few_or_equal_variants_tell_nothing_of_length():
    scores = [with_nex(0.1)] * 6
    assert reliability.follows_length(scores, [1.0, 2, 3, 4, 5, 6]) is None
    assert reliability.follows_length(scores[:4], [1.0, 2, 3, 4]) is None
