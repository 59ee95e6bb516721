"""Around the commands: runs near by, completion, -h, how much a search says and where, facts for a bug report."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.cli.logs import logged
from nex_merge.errors import InputError, RunError


def invoke(*words: object):
    return CliRunner().invoke(app, list(map(str, words)))


def test_alone_the_runs_near_by_are_listed(toy_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("results/done", "stopped", "broken"):
        shutil.copytree(toy_run, tmp_path / name)
    shutil.rmtree(tmp_path / "stopped" / "trials" / "0003")
    (tmp_path / "broken" / "reliability.json").write_text("[1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("no: run\n")
    done = invoke()
    assert done.exit_code == 0, done.output
    heading, *lines = [line.split() for line in done.stdout.splitlines()]
    assert heading == ["run", "family", "state", "trials", "recommended", "verdict"]
    assert [line[:3] for line in lines] == [
        ["broken", "-", "damaged"], ["results/done", "custom", "finished"], ["stopped", "custom", "stopped"],
    ]  # fmt: skip
    assert lines[1][3:] == ["7", "of", "7", "none", "insufficient"] and lines[2][3:6] == ["6", "of", "7"]
    assert "nex-merge --help" in done.stderr


def test_what_is_recommended_is_in_the_list(toy_run_copy, monkeypatch):
    board = toy_run_copy / "leaderboard.json"
    rows = json.loads(board.read_text())
    row = next(row for row in rows if row["trial"] == "0001")
    row["recommended"] = "nex"
    board.write_text(json.dumps(rows))
    monkeypatch.chdir(toy_run_copy)
    monkeypatch.setenv("COLUMNS", "120")
    assert f"trial 1, NEX {row['nex']:.4f}  insufficient" in invoke().stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_completion_in_bash(tmp_path):
    program = tmp_path / "nex-merge"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nex_merge "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(nex-merge --show-completion bash)"\n'
        'complete -p nex-merge | grep -q "default" || exit 1\n'  # files, where nothing else fits
        "function tried { COMP_WORDS=($1); COMP_CWORD=$2; _nex_merge_completion nex-merge; echo ${COMPREPLY[*]}; }\n"
        'tried "nex-merge se" 1; tried "nex-merge search --lo" 2\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["search select", "--log-file"] and done.stderr == ""


@pytest.mark.parametrize("words", [(), ("search",), ("doctor",)])
def test_a_short_option_asks_for_help(words):
    assert invoke(*words, "-h").stdout == invoke(*words, "--help").stdout != ""


def test_a_quiet_search_prints_the_leaderboard_alone_and_its_log_has_the_rest(toy_run_copy, tmp_path):
    log = tmp_path / "new" / "search.log"
    done = invoke("search", toy_run_copy / "config.yaml", "-q", "--log-file", log)
    assert done.exit_code == 0, done.output
    assert done.stderr == "" and "best first" in done.stdout
    assert "is complete: its 7 trials are finished" in log.read_text()
    failed = invoke("search", "none.yaml", "--quiet", "--log-file", log)
    assert failed.exit_code != 0
    first, last = log.read_text().splitlines()[0], log.read_text().splitlines()[-1]
    assert "run folder" in first and "nex-merge: none.yaml: no such file" in last


@pytest.mark.parametrize("name", ["run/search.log", "toy.yaml", "notes.txt"])
def test_a_log_goes_to_no_file_of_the_user_and_not_into_the_way_of_its_search(toy_config, tmp_path, name):
    log = tmp_path / name
    (tmp_path / "notes.txt").write_text("2 eggs\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = invoke("search", toy_config, "--log-file", log)
    assert isinstance(done.exception, InputError) and str(done.exception).startswith("--log-file: expected a ")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_quiet_and_verbose_exclude_each_other():
    assert "give one of them" in str(invoke("search", "configs/qwen3_ties.yaml", "-q", "-v").exception)


def test_a_log_has_warnings_which_are_shown_too_and_what_ended_the_search(tmp_path, capsys):
    path = tmp_path / "log"
    with pytest.raises(RunError), logged(path):
        logging.getLogger("nex_merge.some").warning("planted \x1b[2J")
        logging.getLogger("transformers.some").error("of a library")
        raise RunError("it broke")
    warned, library, ended = path.read_text().splitlines()
    assert warned.endswith("WARNING nex_merge.some: planted ␛[2J") and library.endswith("of a library")
    assert ended.endswith("nex-merge: it broke")
    assert "planted" in capsys.readouterr().err
    logging.getLogger("nex_merge.some").warning("after it")
    assert "after it" not in path.read_text()


def test_facts_for_a_bug_report_hold_no_secret_and_no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(__file__).parents[3]))
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = invoke("doctor", "--format", "json")
    found = json.loads(done.stdout)
    assert found["nex-merge"].endswith("nex_merge") and " in ~/" in found["nex-merge"]
    assert "hf_planted" not in done.output and str(Path.home()) not in done.output
    assert found["python"].startswith(".".join(map(str, sys.version_info[:3]))) and len(found["gpu"]) >= 1
    assert {line.split()[0] for line in found["libraries"]} >= {"torch", "transformers", "mergekit", "optuna"}
    assert not any(line.endswith("missing") for line in found["libraries"])
    assert "OMP_NUM_THREADS=3" in found["variables"] and "test: installed" in found["extras"]
    assert found["ray cluster"] == "found, and does not answer"


@pytest.mark.parametrize("command", ["methods", "families", "spaces", "measures"])
def test_listings_for_programs(command):
    found, shown = json.loads(invoke(command, "--format", "json").stdout), invoke(command).stdout
    assert [line.partition(":")[0] for line in shown.splitlines() if line[:1] != " "] == list(found)
