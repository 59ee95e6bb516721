"""Searches that don't capture activations, and capturing them later from the responses that were kept."""

import numpy as np
import pytest
from typer.testing import CliRunner

from nex_merge.cli.app import app
from nex_merge.errors import InputError
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.preflight import check
from tests.rows import by_column
from tests.searches import search

CONSENSUS = {"trials": 3, "objective": "consensus"}


@pytest.fixture
def answered(toy_config, tmp_path):
    """A run of three merges that was not captured."""
    rows, _ = search(toy_config, study=CONSENSUS, activations={"capture": "none"})
    return rows, tmp_path / "run"


def test_a_run_without_activations_ranks_the_same_and_has_no_nex(toy_config, tmp_path, answered):
    rows, folder = answered
    whole, _ = search(toy_config, study=CONSENSUS, output=str(tmp_path / "whole"))
    assert [row["trial"] for row in rows] == [row["trial"] for row in whole]
    kept = ("consensus", "consensus_low", "agreement", "finished", "mean_tokens", "beats_parent", "state", "violation")
    assert [[row[name] for name in kept] for row in rows] == [[row[name] for name in kept] for row in whole]
    assert all(row["nex"] is None and row["entropy"] is None and row["novelty"] is None for row in rows)
    assert not list(folder.rglob("cache")) and not list(folder.rglob("credit"))
    assert all("capture" not in result.seconds for result in RunFolder(folder).results())
    verdict = read_reliability(folder).of("nex")
    assert verdict.level == "insufficient" and verdict.reasons == ("no activations were captured",)
    again, watcher = search(toy_config, study=CONSENSUS, activations={"capture": "none"})
    assert again == rows and watcher.ended == [], "an uncaptured trial is not taken for a damaged one"


def test_capturing_later_gives_what_capturing_at_once_gives(toy_config, tmp_path, answered):
    _, folder = answered
    search(toy_config, study=CONSENSUS, output=str(tmp_path / "whole"))
    some = CliRunner().invoke(app, ["rescore", str(folder), "--capture", "1"])
    assert some.exit_code == 0 and "trial 1: captured" in some.output
    nex = {row["trial"]: row["nex"] for row in by_column(read_rows(RunFolder(folder)))}
    assert [trial for trial, value in nex.items() if value is not None] == ["0001"]
    assert CliRunner().invoke(app, ["rescore", str(folder), "--capture", "all"]).exit_code == 0
    one, other = RunFolder(folder), RunFolder(tmp_path / "whole")
    for a, b in zip(one.variants(), other.variants(), strict=True):
        assert a.score == b.score and a.observation.stats == b.observation.stats
        for name in ("ptr", "keys", "effective", "redundant"):
            mine, its = (getattr(v.observation.evidence.credits, name) for v in (a, b))
            assert np.array_equal(mine, its)
    for mine, its in zip(by_column(read_rows(one)), by_column(read_rows(other)), strict=True):
        for name in ("nex", "entropy", "novelty", "utilization", "consensus"):
            assert mine[name] == pytest.approx(its[name], abs=1e-12)


def test_an_uncaptured_merge_is_exported_and_says_how_to_look_inside(answered, tmp_path):
    rows, folder = answered
    assert any("transformers loads it" in line for line in export_trial(RunFolder(folder), None, tmp_path / "out"))
    with pytest.raises(
        InputError, match=r"activations were not captured. Capture them: nex-merge rescore .* --capture"
    ):
        RunFolder(folder).find_scored(rows[0]["trial"])


def test_an_objective_that_reads_activations_needs_them(toy_config):
    with pytest.raises(InputError, match=r"activations\.capture: study\.objective nex is computed from activations"):
        check(resolve_config(str(toy_config), {"activations": {"capture": "none"}}))


def test_a_calibration_on_baselines_that_were_not_captured_says_so(answered):
    _, folder = answered
    result = CliRunner().invoke(app, ["rescore", str(folder), "--capture", "1", "--calibration", "parents"])
    assert isinstance(result.exception, InputError) and "base and parents" in str(result.exception)
