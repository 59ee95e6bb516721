"""`nex-merge clean`: what it would remove, what it removes, and that every other command reads what is left."""

import re
import shutil

import pytest
from typer.testing import CliRunner

from nex_merge.atomic import abandoned, workspace
from nex_merge.cli import clean
from nex_merge.cli.app import app
from nex_merge.errors import InputError, RunError
from nex_merge.runs.custody import locked
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from tests.conftest import without_hashes
from tests.searches import search, without_times
from tests.study.test_final import SETTINGS
from tests.study.test_race import Skilled


def invoke(*words, **options):
    return CliRunner().invoke(app, [str(word) for word in words], **options)


def sizes(run):
    return {path.relative_to(run): path.stat().st_size for path in run.rglob("*") if path.is_file()}


def with_rows(run):
    return {path.parent.parent.name for path in run.glob("trials/*/cache/rows")}


@pytest.fixture
def run(toy_run_copy):
    return toy_run_copy


@pytest.fixture
def toy_rows(toy_run):
    return without_times(read_rows(RunFolder(toy_run)))


def test_it_says_what_it_would_remove_and_removes_nothing_unasked(run):
    before = sizes(run)
    done = invoke("clean", run)
    assert done.exit_code == 0 and sizes(run) == before
    (line,) = done.stdout.splitlines()
    size = sum(size for path, size in before.items() if "rows" in path.parts and path.parts[1].isdigit())
    assert line.strip().split("  ")[0] == f"{size / 1000:.1f} kB" and "activations of 4 merges: " in line
    assert f"captured again (nex-merge rescore {run} --capture all)" in line
    assert done.stderr.splitlines() == [f"{run}: nothing was removed", f"Remove it: nex-merge clean {run} --yes"]


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_it_asks_on_a_terminal(run, monkeypatch, answer, gone):
    monkeypatch.setattr(clean, "_is_terminal", lambda: True)
    done = invoke("clean", run, input=answer)
    assert done.exit_code == 0
    assert "Remove this? [y/N]" in done.stderr and (with_rows(run) == {"base", "a", "b"}) == gone
    assert ("nothing was removed" in done.stderr) != gone and "--yes" not in done.stderr


@pytest.mark.parametrize(("keep", "merges"), [("none", 0), ("top:1", 1), ("top:3", 3), ("top:99", 4)])
def test_the_leaders_of_the_leaderboard_keep_theirs(run, keep, merges):
    before = sizes(run)
    leaders = {row.trial for row in [row for row in read_rows(RunFolder(run)) if row.kind == "merge"][:merges]}
    done = invoke("clean", run, "--keep", keep, "--yes")
    assert done.exit_code == 0 and with_rows(run) == {"base", "a", "b"} | leaders
    after = sizes(run)
    freed = sum(before.values()) - sum(after.get(path, 0) for path in before)
    if merges == 4:
        assert freed == 0 and "there is nothing to remove" in done.stderr
    else:
        assert freed > 0 and f"removed {freed / 1000:.1f} kB" in done.stderr
    assert "there is nothing to remove" in invoke("clean", run, "--keep", keep, "--yes").stderr


@pytest.mark.parametrize("keep", ["all", "top:0", "best", ""])
def test_other_words_are_refused(run, keep):
    with pytest.raises(InputError, match=f"--keep: expected none or top:K with .*, got {keep!r}"):
        raise invoke("clean", run, "--keep", keep).exception


def test_every_command_reads_what_is_left(toy_config, toy_rows, run, tmp_path):
    assert invoke("clean", run, "--yes").exit_code == 0
    for words in (
        ["leaderboard"], ["rescore", "--calibration", "pool"], ["rescore"], ["neurons", "--trial", "1"], ["report"],
        ["watch", "--once"], ["phases", "--trial", "a"], ["export", "--out", tmp_path / "out"],
    ):  # fmt: skip
        done = invoke(words[0], run, *words[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert without_times(read_rows(RunFolder(run))) == toy_rows
    with pytest.raises(InputError, match=r"trial 1: the activations were not kept \(nex-merge clean\)\. Capture them"):
        raise invoke("phases", run, "--trial", "1").exception
    whole, _ = search(toy_config, study={"trials": 6}, output=str(tmp_path / "whole"))
    rows, recorder = search(toy_config, study={"trials": 6})
    assert rows == whole and recorder.ended == ["0004", "0005"]
    assert with_rows(run) == {"base", "a", "b", "0004", "0005"}, "a search that goes on keeps what it is told to"
    assert invoke("rescore", run, "--capture", "1").exit_code == 0
    assert invoke("phases", run, "--trial", "1").exit_code == 0


def test_a_final_is_cleaned_with_its_run(toy_config, tmp_path):
    rows, _ = search(toy_config, engine=Skilled(), **SETTINGS)
    run = tmp_path / "run"
    with pytest.raises(InputError, match=rf"is the final of a run, and cleaned with it: nex-merge clean {run}"):
        raise invoke("clean", run / "final").exception
    assert invoke("clean", run, "--keep", "top:1", "--yes").exit_code == 0
    best = next(row["trial"] for row in rows if row["kind"] == "merge")
    for stage in (run, run / "final"):
        assert with_rows(stage) == {"base", "a", "b", best}
    assert without_times(rescore_run(RunFolder(run), RunFolder(run).config.nex)) == rows


def test_never_while_a_search_runs(run):
    with locked(run), pytest.raises(RunError, match="another search is running in this folder"):
        raise invoke("clean", run, "--yes").exception


def test_what_killed_processes_left(toy_config, toy_rows, run):
    """Of the half-written, what somebody still writes stays; of the trials, one whose result is gone."""
    with workspace(run / "mine.html") as held, workspace(run / "trials/0002/killed.json") as left:
        (left / "killed.json").write_text("x" * 1000)
        (held / "mine.html").write_text("x")
        kept = shutil.copytree(left, run / "trials/0002" / f"{left.name[:-12]}{'0' * 4}.partial")
        assert abandoned(run) == [kept]
        (run / "orders").mkdir()
        (run / "orders/a.ranks").write_bytes(b"x" * 2000)
        (run / "orders/mine").touch()
        shutil.copytree(run / "trials/0001", run / "trials/0004")
        for name in ("trials/0004", "trials/0003"):
            (run / name / "result.json").unlink()
        (run / "trials/0004/blocks-0.jsonl").write_text("x" * 500)
        done = invoke("clean", run, "--keep", "top:9", "--yes")
        assert done.exit_code == 0, done.output
        assert "3.0 kB  sorted weights and half-written files of killed commands: nobody reads them" in done.stdout
        assert re.search(r"kB  what 1 interrupted trial left: if the search goes on", done.stdout)
        assert held.is_dir() and left.is_dir() and not kept.exists()
    assert [path.name for path in (run / "orders").iterdir()] == ["mine"] and not (run / "trials/0004").exists()
    assert (run / "trials/0003/responses.jsonl").is_file(), "its result may come back from a copy of the run"
    rows, recorder = search(toy_config)
    assert rows == toy_rows and recorder.ended == ["0003"]


def test_earlier_runs_are_named_and_stay(run, tmp_path):
    shutil.copytree(run, tmp_path / "run.2")
    (tmp_path / "run.old").mkdir()
    done = invoke("clean", run, "--yes")
    assert f"stay in {tmp_path / 'run.2'}: an earlier run, which --fresh renamed" in done.stdout
    assert "run.old" not in done.stdout and len(with_rows(tmp_path / "run.2")) == 7


def test_scores_that_are_computed_from_activations_come_first(run):
    assert invoke("rescore", run, "--rho", "0.9").exit_code == 0
    with pytest.raises(InputError, match=rf"under rho 0\.9 and min_run 2, .*: nex-merge rescore {run}$"):
        raise invoke("clean", run, "--yes").exception
    assert len(with_rows(run)) == 7
    assert invoke("rescore", run).exit_code == 0 and invoke("clean", run, "--yes").exit_code == 0


def test_credit_that_an_earlier_version_did_not_keep_is_computed_first(run, toy_rows):
    without_hashes(run)
    shutil.rmtree(run / "trials/0001/credit")
    done = invoke("clean", run, "--yes")
    assert done.exit_code == 0 and "credit is not there. Computed from" in done.stderr
    assert without_times(rescore_run(RunFolder(run), RunFolder(run).config.nex)) == toy_rows
