"""Several runs, or copies of one, on one storage of either kind."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage

from nex_merge.errors import InUse, RunError
from nex_merge.runs import claims
from nex_merge.runs.database import Database
from tests.engines.fakes import FakeEngine
from tests.searches import Meddler, go, search, told


@pytest.fixture
def shared(storage, tmp_path):
    """The database of the storage."""
    database = Database(storage, tmp_path)
    yield database
    database.engine.dispose()


def studies(database: Database) -> list[str]:
    return optuna.get_all_study_names(RDBStorage(*database.arguments))


def test_runs_of_one_name_on_a_shared_storage_keep_apart(toy_config, tmp_path, storage, shared):
    both = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        rows, _ = go(toy_config, 2, study={"storage": storage}, output=str(tmp_path / folder / "x"))
        both.append(rows)
    own, _ = go(toy_config, 2)
    assert both == [own, own], "to the digit"
    assert len(studies(shared)) == 2


def test_two_searches_at_once_on_a_shared_storage(toy_config, tmp_path, storage, shared):
    """The second begins and ends while the first is at work."""

    def other():
        rows.append(go(toy_config, study={"storage": storage}, output=str(tmp_path / "other"))[0])

    rows = []
    rows.append(go(toy_config, study={"storage": storage}, engine=Meddler(other))[0])
    assert rows[0] == rows[1] and len(studies(shared)) == 2


def test_a_study_that_another_search_drives_is_left_alone(toy_config, tmp_path, storage):
    """Two copies of a run on one storage: the second finds the first at work, also on base."""
    study = {"trials": 2, "storage": storage}
    refused = []

    class Looks(FakeEngine):
        def answer(self, *args, **kwargs):
            answers = super().answer(*args, **kwargs)
            if self.answered in (1, 4):
                copy = shutil.copytree(tmp_path / "run", tmp_path / f"copy{self.answered}")
                with pytest.raises(InUse, match=r"study run-\w+ is driven by another search \(process \d+ on .*--out"):
                    search(toy_config, engine=FakeEngine(), study=study, output=str(copy))
                refused.append(self.answered)
            return answers

    _, recorder = search(toy_config, engine=Looks(), study=study)
    assert refused == [1, 4] and recorder.ended == ["base", "a", "b", "0000", "0001"]
    _, recorder = search(toy_config, engine=FakeEngine(), study=study, output=str(tmp_path / "copy4"))
    assert recorder.ended == ["0000", "0001"], "what the copy lacks"


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "moved"])
def test_a_run_under_another_name_goes_on(toy_config, whole, tmp_path, storage, shared, copied):
    go(toy_config, study={"storage": storage})
    (shutil.copytree if copied else shutil.move)(tmp_path / "run", tmp_path / "other")
    rows, recorder = go(toy_config, 6, study={"storage": storage}, output=str(tmp_path / "other"))
    assert rows == whole and recorder.ended == ["0004", "0005"] and not recorder.notes
    if copied:
        rows, recorder = go(toy_config, 6, study={"storage": storage})
        assert rows == whole and recorder.ended == ["0004", "0005"]
        assert any("run/trials lacks 0004, 0005" in note for note in recorder.notes)
    assert len(told(shared)) == 6


def test_a_deleted_study_is_written_again(toy_config, whole, storage, shared):
    go(toy_config, study={"storage": storage})
    (name,) = studies(shared)
    optuna.delete_study(study_name=name, storage=RDBStorage(*shared.arguments))
    rows, recorder = go(toy_config, 6, study={"storage": storage})
    assert rows == whole and recorder.ended == ["0004", "0005"] and studies(shared) == [name]


def test_killed_and_resumed(toy_config, whole, searched, tmp_path, storage, shared):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from tests.searches import Meddler, go\n"
        "go(Path(sys.argv[1]), 6, study={'storage': sys.argv[2]}, engine=Meddler(lambda: os.kill(os.getpid(), 9)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(toy_config), storage], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with shared.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT trial FROM nex_merge_claims").all() == [(-1,)]
    rows, recorder = go(toy_config, 6, study={"storage": storage})
    assert rows == whole and recorder.ended == ["0001", "0002", "0003", "0004", "0005"]
    assert told(shared) == told(Database(None, searched / "whole"))


@pytest.mark.parametrize("trial", ["b", "0001"])
def test_a_driver_that_lost_its_study_writes_and_tells_no_more(toy_config, tmp_path, storage, shared, trial):
    """Another took over while it was suspended in the middle of a trial."""

    class Suspended(FakeEngine):
        def answer(self, *args, **kwargs):
            answers = super().answer(*args, **kwargs)
            if (tmp_path / "run" / "trials" / trial).exists():
                with shared.engine.begin() as connection:
                    connection.exec_driver_sql("UPDATE nex_merge_claims SET owner = 'elsewhere|1|1|aaaa'")
            return answers

    study = {"trials": 3, "storage": storage}
    with pytest.raises(RunError, match=r"another search took the study run-\w+ over while .* no heartbeat for 45 s"):
        search(toy_config, engine=Suspended(), study=study)
    folder = Path(tmp_path / "run" / "trials" / trial)
    assert [path.name for path in folder.iterdir()] == ["recipe.yaml"]
    assert [state for _, state, _ in told(shared)] == ([] if trial == "b" else ["COMPLETE", "RUNNING"])
    with shared.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT owner FROM nex_merge_claims").scalar_one() == "elsewhere|1|1|aaaa"


def test_a_driver_that_lost_its_study_tells_no_more(toy_config, tmp_path, shared, storage, monkeypatch):
    """Another took over between the result and the report of it."""
    beat, beats = claims.Claims.beat, []

    def lost(self, owner):
        beats.append(owner)
        return beat(self, owner) and len(beats) % 3 > 0

    monkeypatch.setattr(claims.Claims, "beat", lost)
    with pytest.raises(RunError, match="took the study"):
        search(toy_config, engine=FakeEngine(), study={"trials": 1, "storage": storage, "baselines": False})
    assert (tmp_path / "run" / "trials" / "0000" / "result.json").exists()
    assert [state for _, state, _ in told(shared)] == ["RUNNING"]
