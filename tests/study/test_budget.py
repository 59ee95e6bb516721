"""Budgets: what ends a search early, that it ends as a finished one does, and that it goes on where it was."""

import json

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.runs.run import RunFolder
from tests.engines.fakes import FakeEngine
from tests.searches import search


def go(config, **study):
    """Every trial of the fake generates 4 x 6 tokens."""
    return search(config, engine=FakeEngine(), study={"trials": 4, **study})


def test_no_trial_is_started_once_the_tokens_are_spent(toy_config, tmp_path):
    whole, _ = search(toy_config, engine=FakeEngine(), study={"trials": 4}, output=str(tmp_path / "whole"))
    rows, recorder = go(toy_config, max_tokens=97)
    assert recorder.ended == ["base", "a", "b", "0000", "0001"], "96 tokens are less than 97"
    assert len(rows) == 5 and len(json.loads((tmp_path / "run" / "leaderboard.json").read_text())) == 5
    (note,) = [note for note in recorder.notes if "study.max_tokens" in note]
    assert note.startswith(
        "study.max_tokens: trials generated 120 of 97 tokens, so no further trial is started; 2 of 4"
    )
    assert "--set study.max_tokens=N" in note
    again, recorder = go(toy_config, max_tokens=97)
    assert again == rows and recorder.ended == [] and note in recorder.notes
    rows, recorder = go(toy_config, max_tokens=1000)
    assert recorder.ended == ["0002", "0003"]
    assert tried(rows) == tried(whole)
    assert not any("study.max_tokens" in note for note in go(toy_config, max_tokens=1)[1].notes), "nothing was left"


def tried(rows):
    """The parameters of every trial; what the fake answers depends on how often it was asked."""
    return {row["trial"]: {key: row[key] for key in row if key.startswith("p.")} for row in rows}


def test_base_and_parents_count(toy_config):
    rows, recorder = go(toy_config, max_tokens=25)
    assert recorder.ended == ["base", "a"] and len(rows) == 2
    assert go(toy_config)[1].ended == ["b", "0000", "0001", "0002", "0003"]


def rewrite(path, **changes):
    """Another result.json, as a version that wrote that would have kept it."""
    result = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in result.items() if key != "tokens" or value is not None}))
    RunFolder(path.parents[2]).written.seal(path.parent.name)


def test_hours_are_those_of_the_trials_of_all_searches(toy_config, tmp_path):
    go(toy_config, trials=1)
    for path in (tmp_path / "run" / "trials").glob("*/result.json"):
        rewrite(path, seconds={"generate": 900.0})
    _, recorder = go(toy_config, timeout=1.0)
    assert recorder.ended == []
    assert any(note.startswith("study.timeout: trials took 1 of 1 hours") for note in recorder.notes)
    assert go(toy_config, timeout=1.1)[1].ended[0] == "0001"


def test_tokens_are_counted_where_a_result_has_none(toy_config, tmp_path):
    go(toy_config, trials=1)
    run = RunFolder(tmp_path / "run")
    assert [result.tokens for result in run.results()] == [24] * 4
    path = tmp_path / "run" / "trials" / "0000" / "result.json"
    rewrite(path, tokens=None)
    run = RunFolder(tmp_path / "run")
    assert run.find("0").tokens is None and run.tokens(run.find("0")) == 24


def test_validate_shows_them(toy_config):
    settings = ["--set", "study.timeout=2.5", "--set", "study.max_tokens=100000"]
    done = CliRunner().invoke(app, ["validate", str(toy_config), *settings])
    assert "budget         2.5 hours that trials took, or 100,000 generated tokens; once reached" in done.output


@pytest.mark.parametrize("setting", ["study.timeout=0", "study.max_tokens=0"])
def test_what_is_no_budget_is_refused(toy_config, setting):
    from nex_merge.errors import InputError

    done = CliRunner().invoke(app, ["validate", str(toy_config), "--set", setting])
    assert isinstance(done.exception, InputError) and "expected a positive" in str(done.exception)
