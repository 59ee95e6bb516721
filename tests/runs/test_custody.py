"""The run folder before a search: what is refused, in the user's words, and that nothing is moved too early."""

import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError, RunError
from nex_merge.runs import custody, files
from nex_merge.runs.leaderboard import write_leaderboard
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.estimate import estimate
from nex_merge.study.search import run_search
from tests.engines.fakes import FakeEngine
from tests.searches import search


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def go(config, trials=1, **overrides):
    overrides["study"] = {"trials": trials, **overrides.get("study", {})}
    return search(config, **{"engine": FakeEngine(), **overrides})


def refused(config, match, fresh=False, kind=InputError, **overrides):
    """Search and `validate` refuse alike, and neither changes anything."""
    resolved = resolve_config(str(config), overrides)
    before = listed(config.parent)
    with pytest.raises(kind, match=match):
        run_search(resolved, fresh, engine=FakeEngine())
    with pytest.raises(kind, match=match):
        list(estimate(resolved, fresh))
    assert listed(config.parent) == before


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_something_else_is_refused(toy_config, tmp_path, fresh):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    refused(toy_config, r"run is not empty and not a run folder: it has thesis\.tex\. Choose .* \(--out\)", fresh)
    (tmp_path / "run" / "config.yaml").write_text("of: another program\n")
    refused(toy_config, r"not a run folder: it has config\.yaml, thesis\.tex", fresh)
    (tmp_path / "run" / "trials").mkdir()
    refused(toy_config, "not a run folder", fresh)


def test_an_empty_folder_and_hidden_files_are_no_obstacle(toy_config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".gitkeep").touch()
    assert len(go(toy_config)[0]) == 4


def test_another_configuration_is_in_the_users_words(toy, toy_config, tmp_path):
    go(toy_config)
    data = yaml.safe_load(toy_config.read_text())
    data["family"]["models"]["b"] = str(toy["a"])
    data["search_space"]["parameters"]["density"] = 0.5
    toy_config.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as error:
        go(toy_config, prompts={"limit": 3})
    text = str(error.value)
    assert "resolved" not in text and len(text.splitlines()) == len(set(text.splitlines()))
    assert f"family.models.b: was '{toy['b']}" in text and "prompts.limit: was 4, is 3" in text
    assert "search_space.parameters.density: was {" in text or "search_space.parameters.density" in text
    assert f"its settings are in {tmp_path}/run/config.yaml" in text and "--out" in text and "--fresh" in text
    refused(toy_config, "was started with another configuration")


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/shared.db"])
def test_fresh_starts_over_and_keeps_the_earlier_run(toy_config, tmp_path, storage):
    study = {"storage": storage and storage.format(tmp_path)}
    go(toy_config, 2, study=study)
    _, recorder = go(toy_config, 1, fresh=True, study=study)
    assert recorder.ended == ["base", "a", "b", "0000"]
    assert recorder.notes == [f"renamed the earlier run to {tmp_path}/run.1"]
    assert [result.trial for result in RunFolder(tmp_path / "run").results()] == ["base", "a", "b", "0000"]
    # The earlier run goes on under its new name, and beside the new one.
    _, recorder = go(toy_config, 3, study=study, output=str(tmp_path / "run.1"))
    assert recorder.ended == ["0002"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"study": {"storage": "sqlite:////nowhere/at/all.db"}}, "the folder /nowhere/at does not exist"),
        ({"study": {"storage": "sqlite:///configs"}}, "expected a database file, got a folder"),
        ({"study": {"storage": "sqlite:///README.md"}}, "damaged or not a database"),
        ({"study": {"storage": "postgresql"}}, "expected a database URL"),
        ({"prompts": {"file": "configs/prompts/reasoning.txt", "limit": 0}}, "prompts"),
        ({"generation": {"max_new_tokens": 10_000}}, "context"),
    ],
    ids=str,
)
def test_fresh_moves_nothing_before_all_is_checked(toy_config, tmp_path, changes, match):
    go(toy_config)
    before = listed(tmp_path)
    with pytest.raises(InputError, match=match):
        go(toy_config, fresh=True, engine=None, **changes)
    assert listed(tmp_path) == before


def test_fresh_puts_the_earlier_run_back_if_no_trial_was_begun(toy_config, tmp_path, monkeypatch):
    go(toy_config)
    before = listed(tmp_path)
    resolved = resolve_config(str(toy_config))
    notes = []
    with pytest.raises(OSError, match="planted"), custody.hold(resolved, True, notes.append) as run:
        assert not (run.path / files.TRIALS).exists() and (tmp_path / "run.1" / files.TRIALS).exists()
        raise OSError("planted")
    assert listed(tmp_path) == before
    assert notes[-1] == f"no trial was begun: the earlier run is {tmp_path}/run again"
    # Also where the ranking of nothing was written; but not over what somebody has put there.
    with pytest.raises(OSError, match="planted"), custody.hold(resolved, True, notes.append) as run:
        write_leaderboard(run)
        raise OSError("planted")
    assert listed(tmp_path) == before
    with pytest.raises(OSError, match="planted"), custody.hold(resolved, True, notes.append) as run:
        (run.path / "mine").write_text("mine")
        raise OSError("planted")
    assert notes[-1] == f"no trial was begun: the earlier run is {tmp_path}/run.1 now"
    assert (tmp_path / "run" / "mine").is_file() and (tmp_path / "run.1" / files.TRIALS).is_dir()


def test_work_before_a_trial_is_a_leftover(toy_config, tmp_path):
    """A worker came, and the search ended: the folder can be used, and an earlier run gets it back."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / files.WORK).write_text("torn")
    assert len(go(toy_config)[0]) == 4
    before = listed(tmp_path)
    hold = custody.hold(resolve_config(str(toy_config)), True, lambda text: None)
    with pytest.raises(OSError, match="planted"), hold as run:
        (run.path / files.WORK).write_text("torn")
        raise OSError("planted")
    assert listed(tmp_path) == before


def test_a_folder_of_somebody_elses_orders_is_left_alone(toy_config, tmp_path):
    (tmp_path / "run" / "orders").mkdir(parents=True)
    (tmp_path / "run" / "orders" / "2024.csv").write_text("mine")
    with custody.hold(resolve_config(str(toy_config)), False, print) as run:
        (run.path / "orders" / "0.ranks").write_bytes(b"")
    assert [path.name for path in (tmp_path / "run" / "orders").iterdir()] == ["2024.csv"]


def test_a_search_by_an_earlier_consensus_is_not_gone_on_with(toy_config, tmp_path, monkeypatch):
    consensus = {"study": {"objective": "consensus"}}
    rows, _ = go(toy_config, **consensus)
    assert RunFolder(tmp_path / "run").votes == custody.DEFINITION
    monkeypatch.setattr(custody, "DEFINITION", custody.DEFINITION + 1)
    match = "begun under an earlier definition of consensus.*rescore .*run. To search on, use another folder"
    refused(toy_config, match, study={"objective": "consensus", "trials": 2})
    again, _ = go(toy_config, **consensus)  # nothing is left to try
    assert [row["trial"] for row in again] == [row["trial"] for row in rows]
    assert RunFolder(tmp_path / "run").votes != custody.DEFINITION, "it stays what it was begun under"


@pytest.fixture
def searching(toy_config, tmp_path):
    """A run folder that another process has locked."""
    go(toy_config)
    code = (
        "import sys, time; from filelock import FileLock\nwith FileLock(sys.argv[1]): print(flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run" / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_in_use_is_refused_with_who_holds_it(toy_config, tmp_path, searching):
    who = rf"another search is running in this folder \(process {searching.pid} \(\S+\)\)"
    for fresh in (False, True):
        refused(toy_config, who, fresh, RunError)
    before = (tmp_path / "run" / "leaderboard.csv").read_bytes()
    result = CliRunner().invoke(app, ["rescore", str(tmp_path / "run"), "--calibration", "crossfit"])
    assert isinstance(result.exception, RunError) and str(searching.pid) in str(result.exception)
    assert (tmp_path / "run" / "leaderboard.csv").read_bytes() == before
