"""The public `score`, and what `nex-merge score` prints."""

import doctest
import json

import numpy as np
import pytest

from nex_merge.activations.cache import read_cache
from nex_merge.errors import InputError
from nex_merge.inspect import score as module
from nex_merge.inspect.score import load_weights, print_score, save_weights, score
from nex_merge.nex import scoring
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.records import Evidence, NeuronWeights
from nex_merge.resampling import resamples
from nex_merge.runs.run import RunFolder
from tests.conftest import ROOT

LONG = "tests/golden/long"


def test_the_example_in_the_docstring():
    assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0


def test_the_interval_resamples_prompts_and_re_estimates_weights():
    result = score(cache=LONG)
    rows = read_cache(ROOT / LONG)
    analyses = analyse(rows, 0.95, 2)
    evidence = Evidence(np.arange(3), rows.base, stack_credits(analyses))
    drawn = scoring.resampled(evidence, result.score.response_scores, "self", resamples(np.arange(3)))
    assert (result.low, result.high) == tuple(np.quantile(drawn, (0.025, 0.975)))
    assert result.low < result.score.nex < result.high


def test_a_model_has_the_score_of_its_trial(toy_run, toy):
    run = RunFolder(toy_run)
    trial = run.find("a")
    settings = {
        "prompts": {"limit": 4},
        "generation": run.config.generation.model_dump(),
        "activations": run.config.activations.model_dump(exclude={"capture", "keep"}),
    }
    result = score(str(toy["a"]), "configs/prompts/qwen3_tiny.jsonl", settings=settings)
    assert result.score == trial.score
    assert (result.low, result.high) == (trial.estimates["nex"].low, trial.estimates["nex"].high)


def test_given_weights_are_used_and_returned(tmp_path):
    used = score(cache=LONG)
    save_weights(tmp_path / "w.npz", used.weights)
    given = load_weights(tmp_path / "w.npz")
    again = score(cache=LONG, weights=given)
    assert again.score.response_scores == used.score.response_scores and again.score.calibration == "given"
    assert again.weights is given
    # Fixed weights vary less over resamples than weights that are re-estimated.
    assert again.high - again.low != used.high - used.low


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "score: expected either a cache, or a model and prompts"),
        ({"model": "m"}, "score: expected either"),
        ({"model": "m", "prompts": "p", "cache": LONG}, "score: expected either"),
        ({"cache": LONG, "settings": {"generation": {}}}, "score: settings apply to a model"),
        ({"cache": LONG, "rho": 1.0}, "score: rho: expected a number > 0 and < 1, got 1.0"),
        ({"cache": LONG, "min_run": 0}, "score: min_run: expected a positive integer, got 0"),
        ({"cache": "nowhere"}, "nowhere: "),
        ({"model": "m", "prompts": "p", "settings": {"prompt": {}}}, "unknown key 'prompt'"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(InputError) as error:
        score(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keys": np.arange(2)}, "expected the arrays keys and weights"),
        (
            {"keys": np.arange(2), "weights": np.zeros(3)},
            "expected integer keys and floating-point weights of one length",
        ),
        ({"keys": np.arange(2), "weights": np.arange(2)}, "floating-point weights"),
        ({"keys": np.array([1, 1]), "weights": np.zeros(2)}, "expected every neuron once"),
        ({"keys": np.arange(2), "weights": np.array([0.0, 1.5])}, "expected weights between -1 and 1"),
        ({"keys": np.arange(2), "weights": np.array([0.0, np.nan])}, "expected weights between -1 and 1"),
    ],
)
def test_invalid_weights_are_rejected(tmp_path, arrays, message):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(InputError, match="--weights: ") as error:
        load_weights(tmp_path / "w.npz")
    assert message in str(error.value)


def test_files_that_hold_no_weights_are_rejected(tmp_path):
    (tmp_path / "w.npz").write_text("text")
    with pytest.raises(InputError, match=r"expected an \.npz archive"):
        load_weights(tmp_path / "w.npz")
    with pytest.raises(InputError, match="no such file"):
        load_weights(tmp_path / "none.npz")


def test_table_and_json(capsys):
    result = score(cache=LONG)
    print_score(result, "table")
    table = capsys.readouterr().out
    assert f"{result.score.nex:.6f} (95 % over prompts: {result.low:.6f} to {result.high:.6f})" in table
    assert "responses  3, 3 scored, 3 with credit" in table
    print_score(result, "json")
    names = ["nex", "log_gap", "responses", "scored", "cycles", "fallbacks", "response_scores"]
    assert list(json.loads(capsys.readouterr().out)) == names
    nothing = score(cache=LONG, weights=NeuronWeights(np.zeros(0, np.uint32), np.zeros(0, np.float32)))
    assert nothing.score.nex == 0 and (nothing.low, nothing.high) == (0, 0)
