"""The neurons of trials in a run folder made by hand."""

import json
from itertools import combinations

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.activations.cache import write_cache, write_credits
from nex_merge.cli.app import app
from nex_merge.errors import InputError
from nex_merge.inspect.neurons import (
    chance_jaccard,
    overlaps,
    read_neurons,
    weighted_neurons,
)
from nex_merge.inspect.score import load_weights
from nex_merge.records import Credit, Credits, NexScore, Response, SparseGroups, SparseRows, TrialResult
from nex_merge.runs import files
from nex_merge.runs.results import write_result
from nex_merge.runs.run import RunFolder

A, B, C, D = 0 << 16 | 3, 0 << 16 | 7, 2 << 16 | 1, 2 << 16 | 5
NEX = {"rho": 0.95, "min_run": 2}
# trial -> neuron -> (effective credit, redundant credit, mass); every trial has one response.
TRIALS = {
    "base": {A: (2.0, 1.0, 4.0), B: (0.0, 3.0, 2.0), C: (1.0, 0.0, 1.0)},
    "a": {A: (1.0, 0.0, 8.0), C: (0.0, 2.0, 1.0), D: (0.0, 0.0, 5.0)},
    "0000": {B: (5.0, 0.0, 1.0), D: (1.0, 0.5, 2.0)},
    "0001": {A: (0.0, 0.0, 1.0)},
}


def make_trial(run, name, neurons):
    keys = np.array(sorted(neurons), np.uint32)
    effective, redundant, masses = (np.array([neurons[k][i] for k in sorted(neurons)]) for i in range(3))
    groups = SparseGroups(np.array([0, len(keys)]), keys, masses.astype(np.float16))
    cache = SparseRows(np.array([0, 1]), np.array([0, 5]), groups, groups)
    write_cache(run / "trials" / name / "cache", cache, {})
    credited = (effective > 0) | (redundant > 0)
    ptr = np.array([0, credited.sum()])
    credits = Credits(ptr, keys[credited], effective[credited], redundant[credited])
    write_credits(run / "trials" / name / "credit", credits, NEX)
    kind = "merge" if name.isdigit() else "base" if name == "base" else "parent"
    score = NexScore(0.5, 0.3, "self", (0.5,), 1, 1, 2, 1, 0.5, {})
    files.write_responses(run / "trials" / name, [Response(0, 0, (1,), (2, 3, 4, 5, 6), "text", False)])
    write_result(run, TrialResult(name, kind, name, "ties", 0, "complete", score=score))


def make_run(run, calibration="self"):
    run.mkdir()
    config = {
        "schema": 2,
        "family": "qwen3-tiny",
        "search_space": "ties",
        "prompts": {"file": "p.jsonl"},
        "nex": {**NEX, "calibration": calibration},
        "output": str(run),
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for name, neurons in TRIALS.items():
        make_trial(run, name, neurons)
    twin = TrialResult("0002", "merge", "ties", "ties", 0, "duplicate", same_as="0000")
    write_result(run, twin)
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def weight(effective, redundant):
    return np.tanh(np.log((effective + 1e-6) / (redundant + 1e-6)))


def test_weights_masses_and_overlaps(run):
    found = read_neurons(RunFolder(run), "base")
    own = found.neurons
    assert own.keys.tolist() == [A, B, C] and own.layer.tolist() == [0, 0, 2] and own.unit.tolist() == [3, 7, 1]
    assert own.weights == pytest.approx([weight(2, 1), weight(0, 3), weight(1, 0)], abs=1e-6)
    assert own.masses.tolist() == [4, 2, 1] and own.effective.tolist() == [2, 0, 1]
    assert found.variants == ("base", "a", "0000", "0001") and found.teachers == ("base",)
    assert found.effective_in.tolist() == [2, 1, 1] and found.redundant_in.tolist() == [0, 1, 1]
    low, high = found.layers
    assert (low.layer, low.effective, low.redundant, low.mass) == (0, 1, 1, 6)
    assert (high.effective_credit, high.effective_mass, high.redundant_mass) == (1, 1, 0)
    assert [(item.trial, item.shared, item.jaccard) for item in found.overlaps] == [
        ("a", 1, 1 / 2),  # {A, C} and {A}
        ("0000", 0, 0),  # {A, C} and {B, D}
        ("0001", 0, 0),  # nothing
    ]


def test_variants_that_were_not_captured_are_left_out(run):
    plain = RunFolder(run).result("0001")
    write_result(run, TrialResult("0001", "merge", "ties", "ties", 0, "complete", estimates=plain.estimates))
    found = read_neurons(RunFolder(run), "base")
    assert found.variants == ("base", "a", "0000") and [item.trial for item in found.overlaps] == ["a", "0000"]


def test_shared_weights_use_summed_credit_and_memberships_each_trials_own(tmp_path):
    found = read_neurons(RunFolder(make_run(tmp_path / "run", "pool")), "a")
    assert found.teachers == ("base", "a", "0000", "0001")
    assert found.neurons.keys.tolist() == [A, B, C, D]
    expected = [weight(3, 1), weight(5, 3), weight(1, 2), weight(1, 0.5)]
    assert found.neurons.weights == pytest.approx(expected, abs=1e-6)
    assert found.neurons.masses.tolist() == [8, 0, 1, 5]  # B: inactive in this trial
    assert found.effective_in.tolist() == [2, 1, 1, 1]
    parents = read_neurons(RunFolder(make_run(tmp_path / "other", "parents")), "0000")
    assert parents.teachers == ("base", "a") and parents.neurons.keys.tolist() == [A, B, C]


def test_ranking_is_by_weight_times_mass():
    keys = np.arange(4, dtype=np.uint32)
    credit = Credit(keys, np.array([1, 2, 0, 3], np.float32), np.array([0, 1, 1, 0], np.float32))
    found = weighted_neurons(credit, np.array([0, 1, 3], np.uint32), np.array([1.0, 9.0, 4.0]))
    assert found.ranked(True).tolist() == [1, 3, 0]  # 0.6 x 9, 1 x 4, 1 x 1
    assert found.ranked(False).tolist() == [2] and found.masses[2] == 0


def test_chance_equals_the_distribution_over_all_pairs_of_sets():
    total, first, second = np.array([4, 3]), np.array([2, 1]), np.array([1, 2])

    def sets(sizes):
        low, high = (combinations(range(n), k) for n, k in zip(total.tolist(), sizes.tolist(), strict=True))
        high = list(high)
        return [{(0, u) for u in a} | {(1, u) for u in b} for a in low for b in high]

    jaccards = [len(a & b) / len(a | b) for a in sets(first) for b in sets(second)]
    mean, low, high = chance_jaccard(first, second, total)
    assert mean == pytest.approx(np.mean(jaccards))
    assert [low, high] == pytest.approx(np.quantile(jaccards, (0.025, 0.975), method="inverted_cdf"))
    assert chance_jaccard(np.array([0, 0]), np.array([0, 0]), total) == (0, 0, 0)
    whole = chance_jaccard(total, total, total)
    assert whole == pytest.approx((1, 1, 1))


def test_random_sets_overlap_as_predicted_by_chance():
    rng = np.random.default_rng(0)
    active = np.concatenate([np.arange(200), 1 << 16 | np.arange(100)]).astype(np.uint32)
    sets = {str(i): np.sort(rng.choice(active[:200], 60, replace=False)) for i in range(41)}
    found = overlaps("0", sets, active)
    within = np.mean([item.chance_low <= item.jaccard <= item.chance_high for item in found])
    assert within > 0.8 and found[0].chance == pytest.approx(np.mean([i.jaccard for i in found]), abs=0.02)


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("7", "trial '7': not in this run. Trials: base, a, 0, 1, 2"),
        ("2", "trial 2 has no responses"),
        ("1", "trial 1: no neuron has a weight, because no response of 1 earned credit (calibration self)"),
    ],
)
def test_trials_without_neurons_are_rejected(run, trial, message):
    with pytest.raises(InputError) as error:
        read_neurons(RunFolder(run), trial)
    assert message in str(error.value)


def test_the_command_prints_json_and_writes_files(run, tmp_path):
    done = CliRunner().invoke(
        app,
        ["neurons", str(run), "--trial", "base", "--json", "--plot", str(tmp_path / "p" / "n.png"), "--npz",
         str(tmp_path / "n.npz"), "--top", "1"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["calibration"] == "self" and (found["effective"], found["redundant"]) == (2, 1)
    assert [item["unit"] for item in found["top"]["effective"]] == [3] and len(found["overlaps"]) == 3
    assert (tmp_path / "p" / "n.png").read_bytes().startswith(b"\x89PNG")
    weights = load_weights(tmp_path / "n.npz")
    assert weights.keys.tolist() == [A, B, C]
    done = CliRunner().invoke(
        app,
        ["score", "--cache", str(run / "trials" / "base" / "cache"), "--weights", str(tmp_path / "n.npz"),
         "--format", "json"],
    )  # fmt: skip
    good, bad = 4 * weight(2, 1) + 1, 2
    assert json.loads(done.stdout)["response_scores"] == pytest.approx([good / (good + bad)], abs=1e-6)
    with np.load(tmp_path / "n.npz") as saved:
        assert set(saved.files) == {"keys", "weights", "effective", "redundant", "masses", "layer", "unit"}


def test_the_table_names_the_calibration(run):
    done = CliRunner().invoke(app, ["neurons", str(run), "--trial", "base"])
    assert done.exit_code == 0
    for text in (
        "base: 2 effective and 1 redundant neuron",
        "Weights: calibration self, from the trial's own responses (rho 0.95, min_run 2)",
        "the other 3 variants, each under its own credit: Jaccard 0.000 to 0.500",
    ):
        assert text in done.stdout


def test_file_names_are_checked_before_anything_is_read():
    for option, name in (("--plot", "n.pdf"), ("--npz", "n.npy")):
        error = CliRunner().invoke(app, ["neurons", "nowhere", "--trial", "base", option, name]).exception
        assert isinstance(error, InputError) and f"{option}: expected a file name that ends in" in str(error)
        assert str(error).endswith(f"got {name}")
    error = CliRunner().invoke(app, ["neurons", "nowhere", "--trial", "base"]).exception
    assert "nowhere: not a run folder" in str(error)
