"""PostgreSQL as a study's storage: beside what `test_shared_storage` asks of either, what a server alone can do."""

import threading

import optuna
import pytest
from optuna.storages import RDBStorage

from nex_merge.errors import InputError
from nex_merge.runs import claims, database
from nex_merge.runs.claims import Claims
from nex_merge.runs.database import Database
from tests.postgres import PASSWORD
from tests.searches import Meddler, go, told


def test_a_server_that_is_killed_and_started_again_is_waited_for(toy_config, whole, postgres, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "SILENT", 0.2)
    monkeypatch.setattr(database, "POLL", 0.1)
    monkeypatch.setattr(claims, "HEARTBEAT", 0.1)
    monkeypatch.setattr(claims, "RETRY", 0.1)
    url = postgres.fresh()
    restart = threading.Timer(1.0, postgres.start)

    def crash():
        postgres.kill()
        restart.start()

    rows, recorder = go(toy_config, 6, study={"storage": url}, engine=Meddler(crash))
    restart.join()
    assert rows == whole and recorder.ended == ["base", "a", "b", *(f"{i:04d}" for i in range(6))]
    waiting, available = recorder.notes
    assert "the server is not available" in waiting and "is available again" in available
    assert [state for _, state, _ in told(Database(url, tmp_path))] == ["COMPLETE"] * 6
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert PASSWORD.encode() not in kept and PASSWORD not in "".join(recorder.notes)


def test_many_open_one_new_database_at_once(postgres, tmp_path):
    """As several searches that are started together do; what each of them creates is there already, or comes to be."""
    for _ in range(3):
        url, start, ended = postgres.fresh(), threading.Barrier(4), []

        def search(url=url, start=start, ended=ended):
            opened = Database(url, tmp_path, pytest.fail)

            def step():
                optuna.create_study(study_name="one", storage=RDBStorage(*opened.arguments), load_if_exists=True)
                Claims(opened.engine, "one").create()
                return "opened"

            start.wait()
            ended.append(opened.run(step))

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ended == ["opened"] * 4


def test_a_wrong_password_is_refused_before_any_work_and_not_shown(toy_config, postgres, tmp_path):
    url = postgres.fresh().replace(PASSWORD, "swordfish")
    with pytest.raises(InputError, match=r"the server is not available \(.*password authentication failed") as error:
        go(toy_config, study={"storage": url})
    assert "swordfish" not in str(error.value) and not (tmp_path / "run").exists()
