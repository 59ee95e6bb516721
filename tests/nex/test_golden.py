"""Every stage of NEX against the golden caches."""

import json
from pathlib import Path

import numpy as np
import pytest

from nex_merge.activations.cache import read_cache
from nex_merge.nex.calibration import analyse, calibrate, stack_credits
from nex_merge.nex.good_mass import weigh
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, NeuronWeights

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(folder.name for folder in GOLDEN.iterdir())


def scores_equal(found, expected):
    assert [g is None for g in found] == [g is None for g in expected]
    np.testing.assert_allclose(
        [g for g in found if g is not None], [g for g in expected if g is not None], atol=1e-6, rtol=0
    )


@pytest.fixture(scope="module", params=CASES)
def case(request):
    folder = GOLDEN / request.param
    expected = json.loads((folder / "expected.json").read_text())
    cache = read_cache(folder)
    return folder, expected, cache, analyse(cache, expected["rho"], expected["min_run"])


def test_there_are_golden_caches():
    assert CASES == ["edge", "long", "published", "short", "sticky99"]


def test_stages(case):
    _, expected, cache, analyses = case
    assert cache.responses == len(expected["kept_rows"])
    for i, item in enumerate(analyses):
        if item.novelty is None:
            assert expected["slopes"][i] == [] and expected["cycles"][i] == []
            continue
        assert item.novelty.kept_rows.tolist() == expected["kept_rows"][i]
        np.testing.assert_allclose(item.novelty.slopes, expected["slopes"][i], atol=1e-6, rtol=0)
        np.testing.assert_allclose(item.novelty.observations, expected["observations"][i], atol=1e-6, rtol=0)
        assert item.phases.explore.astype(int).tolist() == expected["explore"][i]
        cycles = [[c.first_explore, c.last_explore, c.first_exploit, c.last_exploit] for c in item.cycles]
        assert cycles == expected["cycles"][i]


def test_weights_and_score(case):
    _, expected, cache, analyses = case
    credits = stack_credits(analyses)
    weights = calibrate(credits)
    assert weights.keys.tolist() == expected["weight_keys"]
    np.testing.assert_allclose(weights.weights, expected["weights"], atol=1e-5, rtol=0)
    found = score(Evidence(np.arange(cache.responses), cache.base, credits), analyses, "self")
    scores_equal(found.response_scores, expected["response_scores"])
    assert found.nex == pytest.approx(expected["nex"], abs=1e-6)


def test_archived_weights():
    folder = GOLDEN / "published"
    expected = json.loads((folder / "expected.json").read_text())
    with np.load(folder / "archived_weights.npz") as archive:
        weights = NeuronWeights(archive["keys"], archive["weights"])
    cache = read_cache(folder)
    found = [weigh(cache.base, i, weights).fraction for i in range(cache.responses)]
    scores_equal(found, expected["archived_weights_response_scores"])
