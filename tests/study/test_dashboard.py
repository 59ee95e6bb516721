"""A run in Optuna's dashboard, which is the real one: what it reads of a study, and how it follows a run."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request

import optuna
import pytest
from typer.testing import CliRunner

import nex_merge
from nex_merge.cli import app
from nex_merge.runs import files
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import NexConfig
from nex_merge.study import dashboard
from nex_merge.study.dashboard import Dashboard, write_study
from tests.searches import study_of


@pytest.fixture
def rescored(toy_run_copy):
    """A run whose trials are worth something else now than when they were told."""
    run = RunFolder(toy_run_copy)
    rescore_run(run, NexConfig(calibration="pool"))
    return RunFolder(toy_run_copy)


def asked(application, path):
    """(status, body) of a request."""
    found = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
    }  # fmt: skip
    body = b"".join(application(environ, lambda status, headers, *more: found.append(status)))
    return found[0], body


def answer(application, path):
    status, body = asked(application, path)
    assert status == "200 OK", body
    return json.loads(body)


def test_a_study_has_present_values_which_the_search_was_not_told(rescored):
    study = nex_merge.open_run(rescored.path).study()
    now = {int(row.trial): row for row in read_rows(rescored) if row.kind == "merge"}
    told = study_of(rescored.path).trials
    assert [trial.value for trial in study.trials] == [now[trial.number].value("nex") for trial in study.trials]
    assert [trial.value for trial in study.trials] != [trial.value for trial in told]
    assert [(one.params, one.distributions, one.datetime_start) for one in study.trials] == [
        (one.params, one.distributions, one.datetime_start) for one in told
    ]
    assert study.metric_names == ["nex"] and study.user_attrs["recommendation"]
    first = study.trials[0]
    assert first.user_attrs["mean_tokens"] == now[0].value("mean_tokens") and first.user_attrs["rank"] == now[0].rank
    assert first.constraints == rescored.find("0").violations


def test_the_dashboard_reads_constraints_names_and_files(toy_run):
    run = RunFolder(toy_run)
    shown = Dashboard(run, pytest.fail)
    merges, members = (answer(shown, f"/api/studies/{number}") for number in (0, 1))
    assert merges["objective_names"] == ["nex"] == members["objective_names"]
    trial = merges["trials"][2]
    assert trial["constraints"] == [*run.find("2").violations.values()] != []
    assert trial["values"] == [run.find("2").value("nex")]
    recipe, responses = trial["artifacts"]
    assert (recipe["filename"], responses["filename"]) == (files.RECIPE, files.RESPONSES)
    status, body = asked(shown, f"/artifacts/0/{trial['trial_id']}/{recipe['artifact_id']}")
    assert status == "200 OK" and body == (run.folder("0002") / files.RECIPE).read_bytes()
    named = [item["params"][0]["param_external_value"] for item in members["trials"]]
    assert named == ["base", "a", "b", "equal weights"]
    importances = answer(shown, "/api/studies/0/param_importances")["param_importances"][0]
    assert {item["name"] for item in importances} == {*run.find("0").parameters}


def test_it_follows_a_run_and_keeps_what_it_has_where_it_cannot(toy_run_copy, monkeypatch):
    monkeypatch.setattr(dashboard, "EVERY", 0.0)
    run, notes = RunFolder(toy_run_copy), []
    shown = Dashboard(run, notes.append)
    before = answer(shown, "/api/studies/0")["trials"]
    rescore_run(run, NexConfig(calibration="pool"))
    after = answer(shown, "/api/studies/0")["trials"]
    assert [trial["values"] for trial in after] != [trial["values"] for trial in before]
    (toy_run_copy / files.STUDY).rename(toy_run_copy / "elsewhere")
    os.utime(toy_run_copy / files.SCORES)
    for _ in range(2):
        assert answer(shown, "/api/studies/0")["trials"] == after
    assert len(notes) == 1 and notes[0].startswith("not brought up to date: ") and "study.db: no such file" in notes[0]


def test_a_file_for_a_dashboard_elsewhere(toy_run, tmp_path):
    file = tmp_path / "a study?100%.db"
    write_study(RunFolder(toy_run), file)
    file.rename(tmp_path / "study.db")
    studies = optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db")
    assert studies == ["run", "run: base, parents and equal weights"]
    assert len(study_of_name(tmp_path, studies[1]).trials) == 4


def test_only_an_earlier_export_is_overwritten(toy_run, tmp_path):
    file = tmp_path / "export.db"
    for _ in range(2):
        write_study(RunFolder(toy_run), file)
    search = shutil.copy(toy_run / "study.db", tmp_path / "search.db")
    (tmp_path / "notes.db").write_text("mine")
    for kept in (search, tmp_path / "notes.db", toy_run / "study.db"):
        before = kept.read_bytes()
        done = CliRunner().invoke(app, ["dashboard", str(toy_run), "--out", str(kept)])
        assert isinstance(done.exception, nex_merge.InputError) and str(done.exception).startswith("--out: ")
        assert kept.read_bytes() == before


def study_of_name(folder, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def test_without_the_package_its_extra_is_named(toy_run, monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["dashboard", str(toy_run)])
    assert isinstance(done.exception, nex_merge.InputError)
    assert "install nex-merge[dashboard]" in str(done.exception)
    assert f"nex-merge dashboard {toy_run} --out FILE" in str(done.exception)


def test_it_is_served_on_this_machine_until_ctrl_c(toy_run):
    process = subprocess.Popen(
        [sys.executable, "-m", "nex_merge", "dashboard", str(toy_run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        assert b"Optuna Dashboard" in urllib.request.urlopen(address).read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "nex-merge: ended; the run is as it was\n")
