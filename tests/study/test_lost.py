"""Run folders that were copied, moved or lost files, and studies that other programs changed: the search goes on."""

import re
import shutil
import subprocess
import sys
import time

import optuna
import pytest

from nex_merge.errors import InputError, RunError
from nex_merge.runs import claims, database
from nex_merge.runs.database import Database
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from tests.searches import Meddler, go, told


@pytest.mark.parametrize(
    ("lost", "again", "note"),
    [
        (["trials/0001"], ["0001"], r"run/trials lacks 0001, which the study run-\w+ has in .*run/study\.db"),
        (["trials/0001", "trials/0003"], ["0001", "0003"], r"run/trials lacks 0001, 0003, which"),
        (["trials/0001/result.json"], ["0001"], r"run/trials lacks 0001, which"),
        (["trials/0002/cache"], ["0002"], r"0002/cache/.*\. Evaluated again: trial 2"),
        (["trials/0002/cache/rows"], ["0002"], r"0002/cache/rows/.*\. Evaluated again: trial 2"),
        (["trials/0002/responses.jsonl"], ["0002"], r"0002/responses\.jsonl.*Evaluated again: trial 2"),
        (["trials/0002/recipe.yaml"], ["0002"], r"0002/recipe\.yaml.*Evaluated again: trial 2"),
        (["trials/b"], ["b"], None),
        (["trials"], ["base", "a", "b", "0000", "0001", "0002", "0003"], r"run/trials lacks 0000, 0001, 0002, 0003"),
        (["trials/0002/credit"], [], None),
        (["leaderboard.csv", "leaderboard.json", "scores.json", "reliability.json", "leaderboards"], [], None),
        (["study.db"], [], r"study\.db: its study run-\w+ lacks trials that .*run has \(0000, 0001, 0002, 0003\)"),
        (["study.db", "trials/0001"], ["0001"], r"lacks trials that .*run has \(0000, 0002, 0003\)"),
        (["lock"], [], None),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_what_was_lost_is_named_and_made_again(toy_config, run, whole, searched, lost, again, note, capsys):
    for name in lost:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    rows, recorder = go(toy_config, 6)
    assert recorder.ended == [*again, "0004", "0005"]
    assert rows == whole, "the leaderboard does not depend on what was lost"
    notes = "\n".join(recorder.notes)
    assert re.search(note, notes) if note else "again" not in notes and "lacks" not in notes
    assert told(Database(None, run)) == told(Database(None, searched / "whole"))


def test_truncated_responses_are_lost_and_refused_by_who_only_reads(toy_config, run, whole):
    path = run / "trials" / "0001" / "responses.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=r"responses\.jsonl: is damaged or was edited: its SHA-256 .*\. Restore"):
        rescore_run(RunFolder(run), RunFolder(run).config.nex)
    rows, recorder = go(toy_config, 6)
    assert recorder.ended == ["0001", "0004", "0005"] and rows == whole


def test_without_its_configuration_a_run_says_where_to_take_it_from(toy_config, run):
    (run / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"Restore .*run/config\.yaml from a copy of the run, search in .* \(--out\)"):
        go(toy_config)
    assert go(toy_config, 1, fresh=True)[1].ended == ["base", "a", "b", "0000"]


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "moved"])
def test_a_run_under_another_name_goes_on(toy_config, run, whole, tmp_path, copied):
    (shutil.copytree if copied else shutil.move)(run, tmp_path / "other")
    rows, recorder = go(toy_config, 6, output=str(tmp_path / "other"))
    assert rows == whole and recorder.ended == ["0004", "0005"] and not recorder.notes
    if copied:
        rows, recorder = go(toy_config, 6)
        assert rows == whole and recorder.ended == ["0004", "0005"] and not recorder.notes


def test_another_runs_study_is_refused(toy_config, run, tmp_path):
    go(toy_config, 8, study={"seed": 1}, output=str(tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "study.db", run / "study.db")
    with pytest.raises(InputError, match=r"trial \d of study 'other-\w+' has other parameters than .*run/trials/000\d"):
        go(toy_config)


def test_a_study_that_is_deleted_during_the_search_ends_it_and_is_written_again(toy_config, whole, tmp_path):
    url = f"sqlite:///{tmp_path}/run/study.db"
    engine = Meddler(lambda: optuna.delete_study(study_name=optuna.get_all_study_names(url)[0], storage=url))
    with pytest.raises(RunError, match=r"study\.db: another program deleted the study .* The same command"):
        go(toy_config, engine=engine)
    rows, _ = go(toy_config, 6)
    assert rows == whole


def test_a_study_db_that_is_removed_during_the_search_is_written_again(toy_config, whole, tmp_path):
    engine = Meddler((tmp_path / "run" / "study.db").unlink)
    with pytest.raises(RunError, match=r"study\.db: another program removed or replaced it .* writes the study again"):
        go(toy_config, engine=engine)
    rows, recorder = go(toy_config, 6)
    assert rows == whole and recorder.ended == ["0002", "0003", "0004", "0005"]


def test_a_trial_that_another_program_marks_as_failed_keeps_its_result(toy_config, tmp_path):
    def fail():
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/run/study.db")
        study.tell(1, state=optuna.trial.TrialState.FAIL)

    rows, recorder = go(toy_config, engine=Meddler(fail))
    assert any("trial 1 was finished by another program" in note for note in recorder.notes)
    assert {row["state"] for row in rows} == {"complete"} and len(rows) == 7
    assert go(toy_config)[0] == rows


def test_a_lock_during_the_search_loses_and_doubles_nothing(toy_config, whole, searched, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY", 0.05)
    monkeypatch.setattr(database, "POLL", 0.05)
    monkeypatch.setattr(database, "SILENT", 0.3)
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    monkeypatch.setattr(claims, "RETRY", 0.02)
    holders = []

    def hold():
        code = (
            f"import sqlite3, time; c = sqlite3.connect({str(tmp_path / 'run' / 'study.db')!r}, isolation_level=None)\n"
            "c.execute('BEGIN EXCLUSIVE'); print(flush=True); time.sleep(1); c.execute('COMMIT')"
        )
        holders.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE))
        holders[-1].stdout.readline()
        time.sleep(0.1)  # the heartbeat meets the lock

    rows, recorder = go(toy_config, 6, engine=Meddler(hold))
    holders[0].communicate()
    assert rows == whole and told(Database(None, tmp_path / "run")) == told(Database(None, searched / "whole"))
    assert [note.partition(":")[0].split()[0] for note in recorder.notes] == ["waiting", f"{tmp_path}/run/study.db"]


def test_fewer_trials_than_there_are_and_a_run_that_is_complete(toy_config, run):
    _, recorder = go(toy_config, 2)
    assert recorder.ended == []
    more, complete = recorder.notes
    assert more == f"study.trials: {run} has 4 merges already, more than 2; all are kept"
    assert f"{run} is complete: its 7 trials are finished" in complete and f"{run}/leaderboard.csv" in complete
    assert "--trials with more than 4" in complete
    assert not go(toy_config, 5)[1].notes
