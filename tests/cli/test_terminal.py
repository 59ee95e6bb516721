"""What a terminal does to the output: narrow, without Unicode, closed, full; and mistakes on the command line."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.runs.tables import column_named, count_trials, ranking_table


def run(*args, env=None, **kwargs):
    environment = {**os.environ, **(env or {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    command = [sys.executable, "-m", "nex_merge", *map(str, args)]
    return subprocess.run(command, text=True, check=False, env=environment, **streams)


def shown(rows, width, **options):
    from rich.console import Console

    table, note = ranking_table(rows, width=width, **options)
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get(), note


@pytest.mark.parametrize("objective", ["nex", "mean_tokens", "finished"])
def test_forty_columns(toy_run, objective):
    rows = read_rows(RunFolder(toy_run))
    text, note = shown(rows, 40, objectives=[objective])
    lines = text.splitlines()
    assert len(lines) == len(rows) + 1 and "…" not in text and max(map(len, lines)) <= 40
    heading = {"nex": "nex", "mean_tokens": "tokens", "finished": "finished"}[objective]
    assert lines[0].split()[:2] == ["#", "trial"] and heading in lines[0].split()
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.split()[:2] == [str(row.rank or "-"), row.trial.lstrip("0") or "0"]
    assert "columns left out for want of width: " in note and note.endswith(" s")
    assert shown(rows, 120)[1] == ""


def test_a_long_name_is_folded_not_cut(toy_run):
    rows = [replace(row, trial="a-very-long-name-of-a-parent-model" * 2) for row in read_rows(RunFolder(toy_run))][:1]
    text, _ = shown(rows, 30)
    assert "…" not in text
    assert "".join(line.split("  ")[1] if "  " in line else line for line in text.splitlines()[1:]).count("a-very") >= 1


def test_columns_says_how_wide(toy_run):
    done = run("leaderboard", toy_run, env={"COLUMNS": "40"})
    assert done.returncode == 0 and "left out for want of width" in done.stdout and "…" not in done.stdout
    done = run("leaderboard", toy_run, env={"COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "dumb"})
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in done.stdout.splitlines()[1:]]
    table = lines[: next(i for i, line in enumerate(lines) if "left out for want of width" in line)]
    assert "left out for want of width" in done.stdout and max(map(len, table)) <= 40


def test_top_and_sort(toy_run):
    rows = read_rows(RunFolder(toy_run))
    assert (count_trials(rows), count_trials(rows, 2)) == ("7 trials", "the first 2 of 7 trials")
    assert count_trials(rows[:1]) == "1 trial"
    assert [column_named(name) for name in ("acc", "vs =", "tokens", "entropy")] == [
        "accuracy", "beats_equal", "mean_tokens", "entropy",
    ]  # fmt: skip
    done = run("leaderboard", toy_run, "--sort", "cycles_per_response", "--top", 2)
    assert "the first 2 of 7 trials" in done.stdout and any(
        line.split()[:2] == ["#", "trial"] and "cycles_per_response" in line for line in done.stdout.splitlines()
    )
    with pytest.raises(InputError, match="--sort: unknown column"):
        from nex_merge.runs.leaderboard import sort_rows

        sort_rows(rows, column_named("nexx"))


@pytest.mark.parametrize("env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
@pytest.mark.parametrize("command", [("leaderboard",), ("watch", "--once"), ("leaderboard", "--format", "md")])
def test_ascii_terminals(toy_run_copy, env, command):
    folder = toy_run_copy.rename(toy_run_copy.with_name("läuft"))
    done = run(command[0], folder, *command[1:], env={**env, "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_readers_that_stop_and_disks_that_are_full(toy_run):
    command = shlex.join([sys.executable, "-m", "nex_merge", "leaderboard", str(toy_run), "--format"])
    for reader in ("head -1", "head -c 1", "true"):
        for form in ("table", "csv", "json"):
            done = subprocess.run(["bash", "-c", f"{command} {form} | {reader}"], capture_output=True, text=True)
            assert done.stderr == "", (reader, form)
    with open("/dev/full", "w") as full:
        done = run("leaderboard", toy_run, stdout=full)
    assert done.returncode == 1 and done.stderr == "nex-merge: cannot write the output: no space left on device\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("search", "x", "--trials", "abc"), "--trials: expected an integer, got 'abc'. See nex-merge search --help"),
        (("search", "x", "--trials", "-1"), "--trials: expected at least 0, got -1."),
        (("leaderboard", "x", "--top", "0"), "--top: expected at least 1, got 0. See nex-merge leaderboard --help"),
        (("leaderboard", "x", "--format", "xml"), "--format: expected table, csv, json or md, got 'xml'."),
        (("score", "--rho", "x"), "--rho: expected a number, got 'x'."),
        (("export", "x"), "--out: is missing. See nex-merge export --help"),
        (("search", "x", "--trails", "3"), "no such option: --trails"),
        (("leaderboard", "~nobody-of-this-name/x"), "RUN: expected a path, got '~nobody-of-this-name/x'"),
        (("leaderboard", b"run\xff"), "RUN: expected a name in UTF-8, got 'run\\udcff'"),
        (("search", "configs"), "configs: expected a configuration file, got a folder"),
        (
            ("search", "configs/qwen3_ties.yaml", "--out", "README.md"),
            "output: expected a folder, got the file 'README.md'",
        ),
        (("validate", "configs/qwen3_ties.yaml", "--set", "study.seed=010"), "got '010'; write 10 (or, if it is meant"),
        (("search", "configs/qwen3_tie.yaml"), "no such file. Did you mean 'qwen3_ties'? Known configurations: "),
        (("validate", "configs/qwen3_ties.yaml", "--set", "trials=3"), "'trials'. Did you mean 'study.trials'?"),
        (("validate", "configs/qwen3_ties.yaml", "--set", "study.trails=3"), "'trails'. Did you mean 'trials'? Known"),
        (("validate", "configs/qwen3_ties.yaml", "--set", "study.trials"), "--set: expected key=value, got 'study.tri"),
        (("validate", "configs/qwen3_ties.yaml", "--set", "study.objective=nexx"), "'nexx'. Did you mean 'nex'? Known"),
        (
            ("validate", "configs/qwen3_ties.yaml", "--set", "prompts.file=mine.jsonl"),
            "prompts.file: no such file: 'mine.jsonl'. Expected a .jsonl, .json, .txt, .csv or .parquet file of",
        ),
        (
            ("validate", "configs/qwen3_ties.yaml", "--family", "mine.yaml"),
            "family: no such file: 'mine.yaml'. Write one that names base and models, or name a known family: qwen3-0",
        ),
        (("leaderboard", "results/none"), "results/none: not a run folder: there is no such folder. Give the folder"),
        (("leaderboard", "README.md"), "README.md: not a run folder: it is a file. Give the folder that"),
        (("leaderboard", "configs"), "configs: not a run folder: it has no config.yaml. Give the folder that"),
        (("validate", "configs/qwen3_ties.yaml", "--set", "prompts=x"), "prompts: expected a mapping, got 'x'"),
        (
            ("validate", "configs/qwen3_ties.yaml", "--set", "nex.rho.x=1"),
            "nex.rho: expected a number > 0 and < 1, got {x",
        ),
    ],
)
def test_mistakes_on_the_command_line(args, message):
    args = [arg if isinstance(arg, bytes) else str(arg) for arg in args]
    done = subprocess.run([sys.executable, "-m", "nex_merge", *args], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--trial", "99"), "trial '99': not in this run. Trials: base, a, b, 0, 1, 2, 3"),
        (("--trial", "bas"), "trial 'bas': not in this run. Did you mean 'base'? Trials: "),
        (("--by", "accuracy"), "--by: unknown measure 'accuracy'. Known measures: nex, consensus, "),
        (
            ("--out", "configs"),
            "--out: expected a new or empty folder, got configs, which is not empty; choose another",
        ),
    ],
)
def test_mistakes_in_an_export(toy_run, tmp_path, args, message):
    done = run("export", toy_run, "--out", tmp_path / "x", *args)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("typed", ["2", "0002"])
def test_a_trial_is_typed_with_or_without_zeros_and_shown_without(toy_run, typed):
    done = run("phases", toy_run, "--trial", typed, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert f"{toy_run}: trial 2, response 0" in done.stdout and "0002" not in done.stdout + done.stderr


@pytest.mark.parametrize("width", [80, 40])
def test_sentences_fit_the_terminal(toy_run, width):
    """Commands stay in one piece, to be copied; so do the title, which names the folder, and the columns left out."""
    for columns in (width, 200):
        lines = run("leaderboard", toy_run, env={"COLUMNS": str(columns)}).stdout.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("Verdict on "))
        above = next(i for i, line in enumerate(lines) if line.split()[:2] == ["#", "trial"])
        assert max(map(len, [*lines[1:above], *lines[at:]])) <= min(columns, 80)
        legend = [line for line in lines if line.startswith("95 %: ")]
        assert len(legend) == ("beats" in lines[above]) and all(len(line) <= 80 for line in legend)


def test_the_version():
    import importlib.metadata

    assert run("--version").stdout == f"nex-merge {importlib.metadata.version('nex-merge')}\n"


def test_validate_takes_the_options_of_search(toy_config):
    done = run("validate", toy_config, "--trials", 2, "--seed", 3, "--out", toy_config.parent / "other")
    assert done.returncode == 0, done.stderr
    assert "2 merges" in done.stdout and "other" in done.stdout


def test_the_configuration_of_a_run_is_a_configuration(toy_run_copy):
    """Given back to search, it resumes the run it lies in."""
    done = run("search", toy_run_copy / "config.yaml", cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert f"run folder {toy_run_copy}" in done.stderr and "[1/" not in done.stderr


def test_spaces_are_listed_as_yaml():
    listed = run("spaces").stdout
    assert "{low: " in listed and "'low'" not in listed and "False" not in listed


@pytest.mark.parametrize("name", ["run?v=2 #3", "läuft 好, it's 100%", "~", "a%20b"])
def test_a_run_folder_of_any_name(toy_config, name):
    folder = toy_config.parent / name
    done = run("search", toy_config, "--trials", 1, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "study.db").is_file() and not list(toy_config.parent.glob("*.db"))
    assert len(list(toy_config.parent.iterdir())) == 2
    printed = next(line for line in done.stderr.splitlines() if "nex-merge report" in line)
    words = shlex.split(printed.partition(": ")[2])
    assert words == ["nex-merge", "report", str(folder), "--open"]


def test_home_in_a_configuration(toy_config, tmp_path):
    """A folder called ~ is never made, and prompts and run are found."""
    given = yaml.safe_load(toy_config.read_text())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "p.jsonl").write_text(json.dumps({"prompt": "signs"}) + "\n")
    given |= {"prompts": {"file": "~/p.jsonl"}, "output": "~/runs/a", "study": {"trials": 1}}
    toy_config.write_text(yaml.safe_dump(given))
    done = run("search", toy_config, env={"HOME": str(tmp_path / "home")})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "runs" / "a" / "leaderboard.csv").is_file() and not Path("~").exists()
