"""A run scored again from its folder alone."""

import json

import numpy as np
import pytest

from nex_merge.errors import InputError
from nex_merge.runs import results
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig
from tests.rows import by_column
from tests.searches import search


@pytest.fixture
def run(toy_run_copy):
    return RunFolder(toy_run_copy)


def scores(rows):
    return {row["trial"]: row["nex"] for row in rows}


@pytest.mark.parametrize("calibration", ["self", "crossfit", "parents"])
def test_rescoring_equals_a_search_under_that_calibration(run, toy_config, tmp_path, calibration):
    rows = by_column(rescore_run(run, NexConfig(calibration=calibration)))
    searched, _ = search(toy_config, nex={"calibration": calibration}, output=str(tmp_path / "other"))
    known = {trial: nex for trial, nex in scores(searched).items() if not trial.isdigit() or trial == "0000"}
    assert known == {trial: scores(rows)[trial] for trial in known}, "the first merge and the baselines are the same"


def test_other_phases_are_found_again_from_the_rows(run, toy_config, tmp_path):
    rows = by_column(rescore_run(run, NexConfig(rho=0.6, min_run=1)))
    rows_of_other, _ = search(toy_config, nex={"rho": 0.6, "min_run": 1}, output=str(tmp_path / "other"))
    searched = {row["trial"]: row for row in rows_of_other}
    for row in rows:
        if not row["trial"].isdigit():
            assert row["nex"] == searched[row["trial"]]["nex"]
            assert row["cycles_per_response"] == searched[row["trial"]]["cycles_per_response"]


def test_earlier_leaderboards_are_kept_and_the_last_asked_for_shows(run):
    before = by_column(read_rows(run))
    rescore_run(run, NexConfig(calibration="parents"))
    kept = sorted(path.name for path in (run.path / "leaderboards").iterdir())
    assert kept == ["parents-rho0.95-min_run2", "self-rho0.95-min_run2"]
    first = json.loads((run.path / "leaderboards" / kept[1] / "leaderboard.json").read_text())
    assert scores(first) == scores(before)
    other = json.loads((run.path / "leaderboards" / kept[0] / "leaderboard.json").read_text())
    assert scores(other) == scores(by_column(read_rows(run)))
    assert (
        scores(by_column(read_rows(run)))
        == scores(json.loads((run.path / "leaderboard.json").read_text()))
        != scores(before)
    )
    rescore_run(run, NexConfig())
    assert scores(by_column(read_rows(run))) == scores(before)


def test_every_merge_says_how_it_compares_with_parents_and_equal_weights(run):
    rows = by_column(read_rows(run))
    merges = [row for row in rows if row["kind"] == "merge"]
    assert all(0 <= row["beats_parent"] < 1 for row in merges)
    assert [row["trial"] for row in rows if row["reference"]] == ["0000"]
    assert [row["beats_equal"] is None for row in merges] == [row["reference"] is not None for row in merges]
    assert all(row["beats_parent"] is None and row["beats_equal"] is None for row in rows if row["kind"] != "merge")
    found = results.read_reliability(run.path)
    assert found.verdict in ("sound", "weak", "insufficient") and found.prompts == 4
    assert found.variants == sum(row["state"] == "complete" for row in rows)


def test_no_model_is_touched(run, monkeypatch):
    import torch

    monkeypatch.setattr(torch.nn.Module, "__call__", None)
    rescore_run(run, NexConfig(calibration="pool"))


def test_shared_weights_need_baselines(toy_config, tmp_path):
    search(toy_config, study={"trials": 1, "baselines": False})
    with pytest.raises(InputError, match="takes its weights from base and parents, and none of them is scored"):
        rescore_run(RunFolder(tmp_path / "run"), NexConfig(calibration="parents"))


def test_credits_are_found_again_where_they_are_missing(run):
    import shutil

    kept = run.credits("a", NexConfig())
    shutil.rmtree(run.path / "trials" / "a" / "credit")
    again = run.credits("a", NexConfig())
    for name in ("ptr", "keys", "effective", "redundant"):
        assert np.array_equal(getattr(kept, name), getattr(again, name))
