"""Scores on resamples of the prompts, against the long way."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nex_merge import resampling
from nex_merge.activations.cache import read_cache
from nex_merge.nex import scoring
from nex_merge.nex.calibration import analyse, calibrate, folds, stack_credits
from nex_merge.nex.credit import sum_credit
from nex_merge.nex.good_mass import mean_score, neuron_weights, weigh
from nex_merge.nex.scoring import resampled, score
from nex_merge.records import Credits, Evidence, SparseGroups

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
    counts = resampling.resamples(evidence.prompts, count=5)
    fractions = [weigh(evidence.base, i, calibrate(evidence.credits)).fraction for i in range(counts.shape[1])]
    drawn = resampled(evidence, fractions, calibration, counts)
    expected = [slowly(evidence, row, calibration == "crossfit") for row in counts]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


@pytest.mark.parametrize("calibration", ["self", "crossfit"])
def test_everything_drawn_once_is_the_score_itself(found, calibration):
    analyses, evidence = found
    scored = score(evidence, analyses, calibration)
    ones = np.ones((1, len(evidence.prompts)), int)
    drawn = resampled(evidence, scored.response_scores, calibration, ones)
    assert drawn[0] == pytest.approx(scored.nex, abs=1e-6)
    low, high = resampling.interval(
        resampled(evidence, scored.response_scores, calibration, resampling.resamples(evidence.prompts)), 9
    )
    assert low < high


def test_shared_weights_are_not_drawn_again(found):
    analyses, evidence = found
    shared = calibrate(evidence.credits)
    scored = score(evidence, analyses, "parents", shared)
    counts = resampling.resamples(evidence.prompts, count=7)
    known = np.array([g is not None for g in scored.response_scores])
    g = np.array([g or 0.0 for g in scored.response_scores])
    expected = (counts * known) @ g / (counts * known).sum(1)
    np.testing.assert_allclose(resampled(evidence, scored.response_scores, "parents", counts), expected, rtol=1e-12)


@pytest.mark.parametrize("calibration", ["self", "crossfit"])
def test_neurons_in_blocks_give_the_same_scores(found, calibration, monkeypatch):
    """Memory is bounded by taking neurons in blocks; only the order of summation differs."""
    _, evidence = found
    counts = resampling.resamples(evidence.prompts, count=5)
    fractions = [weigh(evidence.base, i, calibrate(evidence.credits)).fraction for i in range(counts.shape[1])]
    whole = resampled(evidence, fractions, calibration, counts)
    monkeypatch.setattr(scoring, "BLOCK_ENTRIES", 7 * scoring.CHUNK)
    np.testing.assert_allclose(resampled(evidence, fractions, calibration, counts), whole, rtol=1e-5)


def test_a_large_run_stays_within_its_memory():
    """1,000 responses and 50,000 neurons with credit: dense credit and masses alone would take 600 MB."""
    rng = np.random.default_rng(0)
    keys = np.sort(rng.choice(50_000, (1000, 100)), axis=1).astype(np.uint32)
    ptr = np.arange(0, 100_001, 100)
    masses = np.ones(100_000, np.float32)
    evidence = Evidence(
        np.arange(1000),
        SparseGroups(ptr, keys.ravel(), masses.astype(np.float16)),
        Credits(ptr, keys.ravel(), masses, masses * 0.5),
    )
    monkey = pytest.MonkeyPatch()
    monkey.setattr(scoring, "BLOCK_ENTRIES", 1 << 22)
    tracemalloc.start()
    try:
        resampled(evidence, [0.5] * 1000, "self", resampling.resamples(evidence.prompts, count=4))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        monkey.undo()
    assert peak < 150e6
