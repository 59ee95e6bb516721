"""A search that was stopped, killed or renamed goes on to what it would have found without."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nex_merge import interrupts
from nex_merge.errors import TrialError
from nex_merge.runs.run import RunFolder
from nex_merge.study import optuna_study
from tests.engines.fakes import FakeEngine
from tests.searches import TRIALS, Faulty, search, study_of


def test_finished_trials_are_not_recomputed_and_a_run_can_be_prolonged(toy_config, tmp_path, monkeypatch):
    long, _ = search(toy_config, study={"trials": 6}, output=str(tmp_path / "long"))
    search(toy_config, study={"trials": 3})
    rows, watcher = search(toy_config, study={"trials": 6})
    assert watcher.ended == ["0003", "0004", "0005"]
    assert rows == long
    again, watcher = search(toy_config, study={"trials": 6})
    assert again == rows and watcher.ended == []


@pytest.mark.parametrize("trials", [pytest.param(["0001"], marks=pytest.mark.quick), ["a", "0002"]], ids="+".join)
def test_killed_in_the_middle_of_a_trial_and_resumed(toy_config, toy_rows, tmp_path, trials):
    command = [sys.executable, "-m", "nex_merge", "search", str(toy_config)]
    for trial in trials:
        killed_in(command, tmp_path / "run" / "trials" / trial)
    rows, watcher = search(toy_config)
    assert watcher.ended == TRIALS[TRIALS.index(trials[-1]) :]
    assert rows == toy_rows
    opened = study_of(tmp_path / "run")
    assert [trial.state.name for trial in opened.trials] == ["COMPLETE"] * 4


def killed_in(command, folder):
    """Start the command and kill it, with SIGKILL, while it is at work on the trial in `folder`."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "recipe.yaml").exists():
        assert process.poll() is None, "the search ended before the trial began"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists(), "killed too late to be in the middle of the trial"


def test_killed_between_result_and_tell(toy_config, toy_rows, monkeypatch):
    tell = optuna_study._tell

    def dies(opened, trial, *rest):
        if trial.number == 2:
            raise KeyboardInterrupt
        tell(opened, trial, *rest)

    monkeypatch.setattr(optuna_study, "_tell", dies)
    with pytest.raises(KeyboardInterrupt):
        search(toy_config)
    monkeypatch.setattr(optuna_study, "_tell", tell)
    rows, watcher = search(toy_config)
    assert rows == toy_rows and watcher.ended == ["0003"], "trial 2 was done, and only the study had not heard of it"


def test_an_interrupted_search_ranks_what_is_done(toy_config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(toy_config, engine=Faulty(KeyboardInterrupt()))
    assert [row["trial"] for row in json.loads((tmp_path / "run" / "leaderboard.json").read_text())]
    assert not (tmp_path / "run" / "scores.json").exists(), "nothing slow stands between Ctrl-C and the end"


@pytest.mark.parametrize("error", [None, TrialError("planted"), RuntimeError("planted")])
def test_nothing_is_kept_of_what_an_interrupt_got_lost_in(toy_config, tmp_path, monkeypatch, error):
    """A library swallowed it, or made another error of it, in the fifth answer."""

    class Swallowing(Faulty):
        def answer(self, *args, **kwargs):
            if self.answered == 4:
                interrupts._now.number = signal.SIGINT
            return super().answer(*args, **kwargs) if self.error else FakeEngine.answer(self, *args, **kwargs)

    monkeypatch.setattr(interrupts, "_now", interrupts._State())
    engine = Swallowing(error)
    with pytest.raises((interrupts.Interrupted, RuntimeError)):
        search(toy_config, engine=engine)
    run = tmp_path / "run"
    assert [result.trial for result in RunFolder(run).results()] == ["base", "a", "b", "0000"]
    assert not (run / "trials" / "0001" / "responses.jsonl").exists() and not (run / "error.log").exists()
    assert "0000" in (run / "leaderboard.csv").read_text()
    monkeypatch.setattr(interrupts, "_now", interrupts._State())
    _, recorder = search(toy_config, engine=engine)
    assert recorder.ended == ["0001", "0002", "0003"]


def test_pool_shows_the_sampler_like_with_like(toy_config, tmp_path, monkeypatch):
    """Under a pool, earlier trials are rescored when it grows; stopping in between changes nothing."""
    from nex_merge.nex import calibration

    monkeypatch.setattr(calibration, "FIRST_POOL", 2)
    pool = {"calibration": "pool"}
    whole, _ = search(toy_config, nex=pool, study={"trials": 13}, output=str(tmp_path / "whole"))
    for stop in (3, 9, 13):
        rows, _ = search(toy_config, nex=pool, study={"trials": stop})
    assert rows == whole
    told = study_of(tmp_path / "run").trials
    final = {row["trial"]: row["nex"] for row in whole}
    assert any(trial.value != final[f"{trial.number:04d}"] for trial in told), "early scores were rescored"


def test_a_renamed_run_goes_on_with_its_study(toy_config, tmp_path):
    from nex_merge.study.importances import importances

    whole, _ = search(toy_config, study={"trials": 5}, output=str(tmp_path / "whole"))
    search(toy_config, study={"trials": 3})
    (tmp_path / "run").rename(tmp_path / "renamed")
    rows, recorder = search(toy_config, study={"trials": 5}, output=str(tmp_path / "renamed"))
    assert rows == whole and recorder.ended == ["0003", "0004"]
    values = {row["trial"]: row["nex"] + i for i, row in enumerate(rows) if row["kind"] == "merge"}
    assert sum(importances(RunFolder(tmp_path / "renamed"), values).values()) == pytest.approx(1)
