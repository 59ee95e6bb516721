"""Searches that tell trackio and MLflow, the real ones on this machine, and trackers that fail."""

import json
import logging
import sqlite3
import sys
from contextlib import closing, nullcontext
from types import SimpleNamespace

import pytest

import nex_merge
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.leaderboard import LEADERBOARD_FILES
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.tracking import observer as tracking
from tests.engines.fakes import FakeEngine
from tests.pages import ROOT, blocks
from tests.searches import go


@pytest.fixture
def told(caplog):
    """What is said of trackers, so far."""
    return lambda: [said for said in map(logging.LogRecord.getMessage, caplog.records) if said.startswith("tracking.")]


def query(path, text):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """The database of trackio's project `merges`."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path / "trackio" / "merges.db"


@pytest.mark.parametrize("prints", [[], ["1", "2", "no such place", "again in 4 s"]])
def test_a_tracker_that_hangs_is_left_behind(toy_config, tmp_path, monkeypatch, told, prints):
    script = ["#!/bin/sh", *(f"echo {line}" for line in prints), "exec sleep 600", ""]
    (tmp_path / "python").write_text("\n".join(script))
    (tmp_path / "python").chmod(0o755)
    for name, value in (("FINISH", 0.1), ("HURRY", 0.1), ("sys.executable", str(tmp_path / "python"))):
        monkeypatch.setattr(f"nex_merge.study.tracking.observer.{name}", value)
    rows, _ = go(toy_config, tracking={"trackio": "merges"})
    cause = "; its process said last: 1 2 no such place again in 4 s" if prints else ""
    assert len(rows) == 7 and told() == [
        f"tracking.trackio: did not take everything within 0 s of the end of the search{cause}. It is told nothing "
        "more until the search is resumed, which tells it what is missing"
    ]


def test_both_are_told_and_a_search_that_is_resumed_goes_on_with_its_run(
    toy_config, tmp_path, trackio, monkeypatch, told
):
    run, server = tmp_path / "run", tmp_path / "mlflow.db"
    monkeypatch.setattr(tracking, "FINISH", 300.0)
    both = {"trackio": "merges", "mlflow": f"sqlite:///{server}"}
    go(toy_config, trials=1, tracking={"mlflow": both["mlflow"]})
    first = json.loads((run / "tracking.mlflow.json").read_text())
    go(toy_config, trials=2, tracking=both)
    assert told() == []
    kept = json.loads((run / "tracking.mlflow.json").read_text())
    assert kept["search"] == first["search"] and kept["trials"].items() > first["trials"].items()
    assert [*kept["trials"]] == ["base", "a", "b", "0000", "0001"]

    names = dict(query(server, "SELECT run_uuid, name FROM runs"))
    assert sorted(names.values()) == ["a", "b", "base", "run", "trial 0", "trial 1"]
    parents = query(server, "SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert dict(parents) == dict.fromkeys(kept["trials"].values(), kept["search"])
    assert query(server, "SELECT DISTINCT status FROM runs") == [("FINISHED",)]
    result = json.loads((run / files.TRIALS / "0001" / files.RESULT).read_text())
    logged = dict(query(server, f"SELECT key, value FROM latest_metrics WHERE run_uuid = '{kept['trials']['0001']}'"))
    assert logged["nex"] == result["estimates"]["nex"]["value"] and "mean_tokens" in logged
    params = dict(query(server, f"SELECT key, value FROM params WHERE run_uuid = '{kept['trials']['0001']}'"))
    assert params["weight.a"] == str(result["parameters"]["weight.a"])
    of_search, of_trial = (
        {path.name: path for path in (tmp_path / "mlartifacts" / id / "artifacts").iterdir()}
        for id in (kept["search"], kept["trials"]["0001"])
    )
    assert of_search.keys() == {files.CONFIG, LEADERBOARD_FILES[0]} and of_trial.keys() == {files.RECIPE}
    assert of_search[LEADERBOARD_FILES[0]].read_bytes() == (run / LEADERBOARD_FILES[0]).read_bytes()

    study = json.loads((run / "tracking.trackio.json").read_text())["search"]
    logged = {name: json.loads(text) for name, text in query(trackio, "SELECT run_name, metrics FROM metrics")}
    assert logged.keys() == {study, *(f"{study}-{trial}" for trial in kept["trials"])}
    assert logged[f"{study}-0001"]["nex"] == result["estimates"]["nex"]["value"]
    table = logged[study]["leaderboard"]["_value"]
    assert [row["trial"] for row in table] == [
        row["trial"] for row in json.loads((run / "leaderboard.json").read_text())
    ]
    groups = {json.loads(text)["_Group"] for (text,) in query(trackio, "SELECT config FROM configs")}
    assert groups == {study}
    assert len(query(trackio, "SELECT * FROM artifacts")) == 6  # five recipes, one configuration


def test_a_tracker_that_fails_is_told_of_once_and_changes_nothing(toy_config, trackio, told):
    trackio.parent.write_text("no folder")
    rows, recorder = go(toy_config, tracking={"trackio": "merges"})
    (note,) = told()
    assert "Not a directory" in note or "File exists" in note
    assert note.endswith("It is told nothing more until the search is resumed, which tells it what is missing")
    assert len(rows) == 7 and len(recorder.ended) == 7


@pytest.mark.quick
def test_a_password_is_used_and_not_kept(toy_config, monkeypatch):
    uri = "http://me:geheim@127.0.0.1:9/?token=geheim"
    resolved = resolve_config(str(toy_config), {"tracking": {"mlflow": uri}})
    assert resolved.config.tracking.mlflow == "http://me@127.0.0.1:9/" and resolved.trackers == {"mlflow": uri}
    assert "geheim" not in repr(resolved)


@pytest.mark.quick
def test_what_no_tracker_can_do_is_refused(toy_config, monkeypatch):
    with pytest.raises(InputError, match=r"tracking\.mlflow: expected tracking URI .+ sqlite.+, got '\./mlruns'"):
        resolve_config(str(toy_config), {"tracking": {"mlflow": "./mlruns"}})
    with pytest.raises(InputError, match=r"mlflow: the password in http://bob@127\.0\.0\.1:9/ has an @.+write %40"):
        go(toy_config, tracking={"mlflow": "http://bob:p@ss/w@127.0.0.1:9/"})
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"tracking\.trackio: needs trackio.+install nex-merge\[trackio\]"):
        go(toy_config, tracking={"trackio": "merges"})


def test_the_observer_that_the_page_shows_for_another_tracker(toy_config, monkeypatch):
    """Weights & Biases needs an account; here is what it would be called with."""
    (block,) = (block for block in blocks(ROOT / "docs/extending.md") if block.reason is not None)
    logged = {}

    def init(project, group, name, config=None):
        return nullcontext(SimpleNamespace(log=lambda item: logged.update({name: item})))

    stub = SimpleNamespace(
        init=init, Table=lambda columns, data: [dict(zip(columns, row, strict=True)) for row in data]
    )
    monkeypatch.setitem(sys.modules, "wandb", stub)
    exec(block.text, found := {})
    run = nex_merge.search(toy_config, engine=FakeEngine(), observers=[found["WandB"]()])
    assert logged.keys() == {"leaderboard", *(result.trial for result in run.results())}
    assert logged["0003"]["nex"] == run.trial(3).value("nex")
    assert [row["trial"] for row in logged["leaderboard"]["leaderboard"]] == [*run.leaderboard["trial"]]
