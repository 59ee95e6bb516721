"""Searches that begin with the trials of another run: what is tried, what is kept, and what is refused."""

import json
import shutil

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.runs.run import RunFolder
from tests.conftest import without_hashes
from tests.engines.fakes import FakeEngine
from tests.searches import search


@pytest.fixture
def warm(toy_config, tmp_path):
    """A function that searches with the trials of a run of six merges."""
    go(toy_config, output=str(tmp_path / "other"), study={"trials": 6})

    def searched(trials=3, **changes):
        study = {"trials": trials, "warm_start": str(tmp_path / "other"), **changes.pop("study", {})}
        return go(toy_config, study=study, **changes)

    return searched


def go(config, **changes):
    return search(config, engine=FakeEngine(), **changes)


def tried(rows):
    return {row["trial"]: {key: row[key] for key in row if key.startswith("p.")} for row in rows}


def test_merges_that_people_bring_follow_equal_weights_before_tpe_does(warm, toy_config, tmp_path):
    mine = {"weight.a": 0.9, "weight.b": 0.1, "density.a": 0.4, "density.b": 1}
    shown = {f"p.{name}": value for name, value in mine.items()}
    rows, _ = warm(study={"guesses": [mine]})
    cold, _ = go(toy_config, output=str(tmp_path / "cold"), study={"trials": 2, "guesses": [mine]})
    assert tried(rows)["0001"] == tried(cold)["0001"] == shown
    assert [row["trial"] for row in rows if row["reference"]] == ["0000"], "equal weights are the reference"


def test_tpe_follows_equal_weights_and_resuming_needs_the_other_run_no_more(warm, toy_config, tmp_path):
    rows, recorder = warm()
    cold, _ = go(toy_config, output=str(tmp_path / "cold"), study={"trials": 3})
    assert len(rows) == 6 and tried(rows)["0000"] == tried(cold)["0000"]
    assert tried(rows)["0001"] != tried(cold)["0001"], "no other first guess"
    assert [row["trial"] for row in rows if row["reference"]] == ["0000"]
    (note,) = [note for note in recorder.notes if "warm_start" in note]
    assert note.endswith("begins with 6 merges of " + str(tmp_path / "other") + ". They are not in the leaderboard")
    kept = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    other = RunFolder(tmp_path / "other")
    assert [trial["parameters"] for trial in kept["trials"]] == [dict(other.find(str(i)).parameters) for i in range(6)]
    ranked = {row["trial"]: row["nex"] for row in json.loads((tmp_path / "other" / "leaderboard.json").read_text())}
    assert [trial["values"] for trial in kept["trials"]] == [[ranked[f"000{i}"]] for i in range(6)]

    whole, _ = warm(5, output=str(tmp_path / "whole"))
    shutil.rmtree(tmp_path / "other")
    resumed, recorder = warm(5)
    assert recorder.ended == ["0003", "0004"] and tried(resumed) == tried(whole)


def test_it_is_refused_once_the_kept_trials_are_lost(warm, tmp_path):
    warm()
    (tmp_path / "run" / "warm_start.json").unlink()
    with pytest.raises(InputError, match=r"warm_start\.json: no such file; .* Restore it"):
        warm(5)
    warm(1, fresh=True)
    assert (tmp_path / "run" / "warm_start.json").is_file()


def test_what_is_feasible_is_said_by_the_constraints_of_this_run(warm, tmp_path):
    """The fake answers everything with 6 tokens."""
    warm(study={"constraints": {"mean_tokens": "<= 4"}})
    kept = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    assert [trial["violations"] for trial in kept["trials"]] == [{"collapse": -1.0, "mean_tokens": 0.5}] * 6


def test_a_run_that_lacks_a_bounded_measure_has_to_be_valued_first(warm, tmp_path):
    """As version 0.1.0 left them."""
    other = tmp_path / "other"
    for path in (*other.glob("trials/*/result.json"), other / "scores.json"):
        item = json.loads(path.read_text())
        for estimates in [item["estimates"]] if "trial" in item else item["estimates"].values():
            estimates.pop("finished")
        item.pop("sha256", None)
        path.write_text(json.dumps(item))
    without_hashes(other)
    with pytest.raises(InputError, match=r"an older version did not value finished.*Value it: nex-merge rescore "):
        warm(study={"constraints": {"finished": ">= 0.5"}})
    warm()


def test_several_objectives(warm, toy_config, tmp_path):
    objectives = {"entropy": "auto", "mean_tokens": "minimize"}
    with pytest.raises(InputError, match="is to maximize nex there, minimize entropy and minimize mean_tokens here"):
        warm(study={"objectives": objectives})
    go(toy_config, output=str(tmp_path / "first"), study={"trials": 4, "objectives": objectives})
    _, recorder = warm(3, study={"objectives": objectives, "warm_start": str(tmp_path / "first")})
    kept = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    assert [trial["values"] for trial in kept["trials"]] == [[0.5, 6.0]] * 4 and len(recorder.ended) == 6


def test_other_prompts_are_allowed_and_said(warm):
    _, recorder = warm(prompts={"limit": 3})
    assert any("their values come from other prompts. They are not" in note for note in recorder.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": {"objective": "entropy"}}, r"study\.objective: is to maximize nex there, minimize entropy here"),
        ({"study": {"direction": "minimize"}}, "is to maximize nex there, minimize nex here"),
        ({"search_space": {"layer_groups": 2}}, "search_space.layer_groups: is None there, 2 here"),
        ({"models": ["a"]}, "models: are base, a, b there, base, a here"),
        ({"study": {"sampler": "random"}}, r"expected study\.sampler: tpe, got random"),
        ({"study": {"sampler": "qmc"}}, r"expected study\.sampler: tpe, got qmc"),
        ({"study": {"warm_start": "configs"}}, "configs: not a run folder"),
    ],
    ids=str,
)
def test_what_is_refused(warm, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        warm(**changes)
    assert not (tmp_path / "run").exists()


def test_other_weights_under_the_same_name_are_refused(warm, toy, toy_config):
    settings = yaml.safe_load(toy_config.read_text())
    settings["family"]["models"]["b"] = str(toy["base"])
    toy_config.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match="models: the weights of b are others"):
        warm()


def test_a_run_without_a_value_has_nothing_to_begin_with(warm, toy_config, tmp_path):
    go(toy_config, output=str(tmp_path / "empty"), study={"trials": 0})
    with pytest.raises(InputError, match="expected finished merges with a value of nex, got none"):
        warm(study={"warm_start": str(tmp_path / "empty")})
