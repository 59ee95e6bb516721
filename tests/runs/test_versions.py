"""Folders that released versions wrote are read, rescored, reported and resumed. `tests/runs/` keeps one of each."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.measures.advice import advice_of
from nex_merge.records import Verdict
from nex_merge.report import write_report
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import best_merge, read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import SCHEMA, read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import PACKAGE, NexConfig
from tests.rows import by_column
from tests.searches import search

FIRST = Path(__file__).parent / "0.1.0"
CONFIG = "configs/qwen3_ties.yaml"


@pytest.fixture
def first(tmp_path) -> Path:
    """The run that version 0.1.0 wrote: qwen3-tiny, 4 prompts, 3 merges; its paths filled in."""
    folder = Path(shutil.copytree(FIRST, tmp_path / "run"))
    for path in folder.rglob("*.yaml"):
        path.write_text(path.read_text().replace("@PACKAGE@", str(PACKAGE)).replace("@RUN@", str(folder)))
    return folder


def known(rows):
    """What version 0.1.0 knew, without what it computed otherwise."""
    old = json.loads((FIRST / "leaderboard.json").read_text())
    columns = [name for name in old[0] if name not in ("beats_parent", "seconds")]
    return [{name: row.get(name) for name in columns} for row in rows]


def test_it_is_read_as_it_was_written(first):
    run = RunFolder(first)
    assert run.schema == 1 and run.config.consensus.match == "auto"
    rows = by_column(read_rows(run))
    assert known(rows) == known(json.loads((FIRST / "leaderboard.json").read_text()))
    assert [row["trial"] for row in rows if row["reference"]] == ["0000"]
    assert best_merge(run).trial == rows[[row["kind"] for row in rows].index("merge")]["trial"]


def test_its_verdict_is_that_on_nex(first):
    kept = json.loads((FIRST / "reliability.json").read_text())
    found = read_reliability(first)
    assert found.of("nex") == Verdict(kept["verdict"], tuple(kept["reasons"]), tuple(map(advice_of, kept["advice"])))
    assert found.of("consensus") is None


def test_it_is_rescored_to_the_digit(first):
    run = RunFolder(first)
    rows = by_column(rescore_run(run, NexConfig()))
    assert known(rows) == known(json.loads((FIRST / "leaderboard.json").read_text()))
    assert all(row["agreement"] is not None for row in rows), "a measure that it did not know"
    assert all(0 <= row["beats_parent"] < 1 for row in rows if row["kind"] == "merge")


def test_it_is_reported(first, tmp_path):
    write_report(RunFolder(first), tmp_path / "page.html", datetime.now(UTC), lambda text: pytest.fail(text))
    assert "0002" in (tmp_path / "page.html").read_text() or "trial 2" in (tmp_path / "page.html").read_text()


def test_it_goes_on_and_says_that_the_sampler_is_another(first):
    asked = {"prompts": {"limit": 4}, "generation": {"max_new_tokens": 96}, "study": {"trials": 4}}
    rows, recorder = search(Path(CONFIG), **asked, output=str(first))
    assert recorder.ended == ["0003"]
    # Every response of the run is cut: only beside base and parents, which are cut as well, is that no collapse.
    assert {row["trial"]: row["state"] for row in rows}["0003"] == "complete"
    assert any("started by version 0.1.0" in note for note in recorder.notes)
    old = {row["trial"]: row["nex"] for row in json.loads((FIRST / "leaderboard.json").read_text())}
    assert {row["trial"]: row["nex"] for row in rows if row["trial"] != "0003"} == old
    assert json.loads((first / "trials" / "0003" / "result.json").read_text())["schema"] == SCHEMA


def test_its_study_is_written_again_from_its_trials(first):
    (first / "study.db").unlink()
    rows, recorder = search(
        Path(CONFIG), prompts={"limit": 4}, generation={"max_new_tokens": 96}, study={"trials": 3}, output=str(first)
    )
    assert recorder.ended == [] and any("lacks trials that" in note for note in recorder.notes)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{first}/study.db")
    assert [trial.params for trial in study.trials] == [RunFolder(first).find(str(i)).parameters for i in range(3)]
    assert known(rows) == known(json.loads((FIRST / "leaderboard.json").read_text()))


def test_another_configuration_is_refused_all_the_same(first):
    with pytest.raises(InputError, match=r"generation\.max_new_tokens: was 96, is 97"):
        search(Path(CONFIG), prompts={"limit": 4}, generation={"max_new_tokens": 97}, output=str(first))


def test_a_merge_of_it_is_exported(first, tmp_path):
    lines = list(export_trial(RunFolder(first), "1", tmp_path / "out"))
    assert any("bit for bit" in line for line in lines) and (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["config.yaml", "trials/0000/result.json", "scores.json", "reliability.json"])
def test_a_newer_version_is_named(first, name):
    path = first / name
    item = yaml.safe_load(path.read_text())
    path.write_text(json.dumps({**item, "schema": SCHEMA + 1}))
    with pytest.raises(InputError, match=rf"expected schema 1 to {SCHEMA}, got {SCHEMA + 1}.* newer nex-merge"):
        run = RunFolder(first)
        read_rows(run)
        from nex_merge.runs.results import read_reliability

        read_reliability(first)


def test_a_key_that_a_later_version_adds_is_no_damage(first):
    path = first / "trials" / "0000" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_later": 1}))
    assert RunFolder(first).result("0000") is not None


SECOND = Path(__file__).parent / "0.2.0"
FAMILY = {"base": "families/qwen3_tiny/weights/base",
          "models": {name: f"families/qwen3_tiny/weights/{name}" for name in ("pairs", "signs")}}  # fmt: skip


@pytest.fixture
def second(tmp_path) -> Path:
    """The run that version 0.2.0 wrote, whose models lay elsewhere: qwen3-tiny, 4 prompts, 3 merges, with hashes."""
    return Path(shutil.copytree(SECOND, tmp_path / "run"))


def test_that_of_0_2_0_is_rescored_to_the_digit(second):
    old = json.loads((SECOND / "leaderboard.json").read_text())
    run = RunFolder(second, note=pytest.fail)
    assert read_rows(run)
    (second / "leaderboard.json").unlink()
    rescore_run(run, run.config.nex)
    assert json.loads((second / "leaderboard.json").read_text()) == old


def test_that_of_0_2_0_goes_on_where_its_models_are_now(second):
    rows, recorder = search(second / "config.yaml", family=FAMILY, study={"trials": 4}, output=str(second))
    assert recorder.ended == ["0003"]
    old = {row["trial"]: row["nex"] for row in json.loads((SECOND / "leaderboard.json").read_text())}
    assert {row["trial"]: row["nex"] for row in rows if row["trial"] != "0003"} == old
