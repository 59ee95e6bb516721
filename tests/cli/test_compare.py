"""`nex-merge compare` as a person uses it: keys on a terminal, pages and sheets, going on, and what it refuses."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.runs.advice import next_steps
from nex_merge.runs.leaderboard import best_merge, read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from tests.compare.compared import chat, say, word
from tests.compare.compared import opened as open_by_hand
from tests.compare.conftest import chats, numbered, searched  # noqa: F401
from tests.labels.answered import answer_run


@pytest.fixture
def run(chats, monkeypatch):  # noqa: F811
    """Open-ended answers, asked on a terminal."""
    monkeypatch.setattr("nex_merge.cli.compare._is_terminal", lambda: True)
    return chats


def compare(run, keys="", *args):
    return CliRunner().invoke(app, ["compare", str(run), *map(str, args)], input=keys)


def keys_for(run, trial, count):
    """The keys that prefer a trial on the first prompts."""
    opened = open_by_hand(run, "0", "base")
    place = ("first", "second")[opened.comparison.between.index(trial)]
    questions = opened.questions()[:count]
    return "".join("1" if opened.judgement(q.prompt, "", "left").better == place else "2" for q in questions)


def test_keys_until_it_is_settled(run):
    done = compare(run, keys_for(run, "base", 6) + "34", "--between", "0", "base")
    assert done.exit_code == 0, done.output
    asked = done.stderr
    assert "Trial 0 and base answer differently on 11 of 12 prompts" in asked
    assert "at least 6 looks are needed, and at most 11." in asked
    assert "Not settled after 5 looks; at most 6 more." in asked and asked.count("Better?") == 6
    assert "Settled after 6 looks." in asked
    assert done.stdout == (
        "Compared blind: trial 0 against base on 6 of 11 prompts on which they differ: trial 0 preferred on 0, base on "
        "6: base is better (error 5%).\n"
    )
    again = compare(run, "1", "--between", "base", "0000")
    assert again.stdout == done.stdout and "Better?" not in again.stderr


def test_the_questions_are_blind(run):
    done = compare(run, "12q", "--between", "0", "base")
    questions = done.stderr.partition("Prompt 1 of at most 11")[2]
    for told in ("trial", "base", "leads", "preferred", "ahead"):
        assert told not in questions.partition("Go on:")[0], told
    assert done.stdout == (
        "Compared blind: trial 0 against base on 2 prompts so far: not settled; at most 9 more looks.\n"
    )
    assert done.stderr.splitlines()[-1] == f"Go on: nex-merge compare {run} --between 0 base"


def test_stopping_undoing_and_going_on(run):
    first = compare(run, "13xuu4q", "--between", "0", "base")
    assert first.stderr.count("u undo") >= 2 and "Not settled after 2 looks" in first.stderr
    kept = json.loads((run / "compare.json").read_text())["comparisons"][0]["judgements"]
    assert [one["better"] for one in kept][-1] == "neither" and len(kept) == 1, "both were taken back"
    later = compare(run, "1q", "--between", "0", "base")
    assert "Prompt 2 of at most 11" in later.stderr and "on 2 prompts so far" in later.stdout


def test_an_interrupt_and_the_end_of_input_keep_what_was_said(run, monkeypatch):
    assert "on 1 prompt so far" in compare(run, "1", "--between", "0", "base").stdout
    keys = iter("2")

    def key():
        for pressed in keys:
            return pressed
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.getchar", key)
    assert compare(run, "", "--between", "0", "base").exit_code in (1, 130)
    assert len(json.loads((run / "compare.json").read_text())["comparisons"][0]["judgements"]) == 2


def test_a_second_judge_is_asked_what_the_first_was(run):
    compare(run, keys_for(run, "base", 6), "--between", "0", "base")
    done = compare(run, keys_for(run, "base", 6), "--between", "0", "base", "--judge", "bob")
    assert done.stderr.count("Better?") == 6
    assert "2 judges; of 6 pairs of judgements of one prompt, 6 are the same." in done.stdout


def test_long_answers_are_cut_alike_and_shown_whole_on_demand(run):
    rest = [f"line of {word(i)}" for i in range(60)]
    answer_run(run, lambda v, p: "\n".join([chat(v, p), *rest]) if p != 11 else "same")
    done = compare(run, "q", "--between", "0", "base")
    assert (
        done.stderr.count("54 lines more)") == 2
        and f"line of {word(59)}" not in done.stderr
        and "w whole" in done.stderr
    )
    whole = compare(run, "wq", "--between", "0", "base")
    assert whole.stderr.count(f"line of {word(59)}") >= 2


def test_nothing_acts_on_the_terminal(run):
    answer_run(run, lambda v, p: f"\x1b[2J\x07[bold]{chat(v, p)}" if p != 11 else "same")
    done = compare(run, "q", "--between", "0", "base")
    assert "\x1b[2J" not in done.stderr and "\x07" not in done.stderr and "[bold]" in done.stderr


def test_without_a_terminal_it_says_what_asks_instead(chats):  # noqa: F811
    done = compare(chats, "1", "--between", "0", "base")
    assert isinstance(done.exception, InputError)
    assert f"nex-merge compare {chats} --between 0 base --page FILE.html" in str(done.exception)
    state = json.loads(compare(chats, "", "--between", "0", "base", "--format", "json").stdout)
    assert state["looks"] == 0 and state["at_most"] == 11 and state["counts"] is None and state["better"] is None


def test_too_few_prompts_are_said_and_can_be_looked_at(run, tmp_path):
    answer_run(run, lambda v, p: chat(v, p) if p < 4 else "the same")
    done = compare(run, "1", "--between", "0", "base")
    assert isinstance(done.exception, InputError) and "on 4 of 12 prompts" in str(done.exception)
    assert "Better?" not in done.stderr
    done = compare(run, "", "--between", "0", "base", "--page", tmp_path / "judge.html")
    assert done.exit_code == 0 and "too few to settle anything, which takes 6." in done.stderr
    assert "looks are needed" not in (tmp_path / "judge.html").read_text()


def test_page_and_sheet_and_what_comes_back(chats, tmp_path):  # noqa: F811
    page, sheet = tmp_path / "judge.html", tmp_path / "judge.csv"
    done = compare(chats, "", "--between", "0", "base", "--page", page, "--csv", sheet)
    assert done.exit_code == 0 and page.is_file() and f"{sheet}: 11 prompts" in done.stdout
    assert f"Count what comes back: nex-merge compare {chats} --between 0 base --read FILE" in done.stderr
    sheet.write_text(sheet.read_text(encoding="utf-8-sig").replace(",,", ",both,", 11))
    done = compare(chats, "", "--between", "0", "base", "--read", sheet, "--format", "json")
    state = json.loads(done.stdout)
    assert state["looks"] == 11 and state["over"] and state["counts"] == {"both": 11}
    assert state["better"] is None and state["judges"] == ["judge"]
    board, of_run = chats / "leaderboard.csv", chats / "trials" / "p.html"
    for option, kept in (("--csv", sheet), ("--csv", board), ("--page", of_run)):
        done = compare(chats, "", "--between", "0", "base", option, kept)
        assert isinstance(done.exception, InputError) and str(done.exception).startswith(f"{option}: ")
    assert ",both," in sheet.read_text() and not of_run.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--page", "p.html", "--read", "x.csv"], "expected --read, or --page and --csv, got both"),
        (["--page", "p.txt"], "--page: expected a file name that ends in .html, got p.txt"),
        (["--csv", "p.xlsx"], "--csv: expected a file name that ends in .csv, got p.xlsx"),
        (["--read", "nowhere.csv"], "--read: no such file: 'nowhere.csv'"),
        (["--judge", " "], "--judge: expected a name, got nothing"),
    ],
)
def test_what_can_not_be_is_refused(chats, args, words):  # noqa: F811
    done = compare(chats, "", "--between", "0", "base", *args)
    assert isinstance(done.exception, InputError) and words in str(done.exception)


def test_a_folder_that_can_not_be_written_is_said_before_anybody_is_asked(run):
    (run / "compare.lock").mkdir()
    done = compare(run, "1", "--between", "0", "base")
    assert isinstance(done.exception, InputError) and "cannot be written" in str(done.exception)
    assert "Better?" not in done.stderr


def test_the_leaderboard_report_and_advice_have_it(run, tmp_path):
    """What was compared stands beside the verdict; before, comparing is advised."""
    steps = next_steps(read_rows(RunFolder(run)), RunFolder(run).objective, read_reliability(run), run)
    assert f"A few looks settle it: nex-merge compare {run}" in steps
    say(open_by_hand(run, "0", "base"), "base", 6)
    line = "base on 6: base is better (error 5%)."
    shown = CliRunner().invoke(app, ["leaderboard", str(run)])
    assert line in " ".join(shown.stdout.split()) and shown.exit_code == 0
    page = tmp_path / "report.html"
    assert CliRunner().invoke(app, ["report", str(run), "--out", str(page)]).exit_code == 0
    assert line in page.read_text()
    rescored = CliRunner().invoke(app, ["rescore", str(run)])
    assert rescored.exit_code == 0 and line in " ".join(rescored.stdout.split()), "rescoring keeps it"
    say(open_by_hand(run), best_merge(RunFolder(run)).trial, 6)
    after = next_steps(read_rows(RunFolder(run)), RunFolder(run).objective, read_reliability(run), run)
    assert not any("nex-merge compare" in step for step in after), "it is settled"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_in_a_real_terminal(chats, columns):  # noqa: F811
    """Nothing is wider than the terminal; answers stand side by side where there is room."""
    lines, code = on_a_terminal(columns, "1u3q", "compare", chats, "--between", "0", "base")
    asked = lines[lines.index("Prompt 1 of at most 11") :]
    assert code == 0
    # The keys go on in a second line, as the cursor stands behind them; commands stay in one piece.
    wide = [
        line for line in asked if len(line) > columns and not line.startswith(("Better?", "  nex-merge", "      /"))
    ]
    assert wide == []
    both = [line for line in lines if "1 left" in line and "2 right" in line and "Better" not in line]
    assert bool(both) == (columns >= 100)
    assert "so far: not settled" in " ".join(" ".join(lines).split())


def test_ctrl_c_in_a_real_terminal_names_the_command_that_goes_on(chats):  # noqa: F811
    lines, code = on_a_terminal(200, "1\x03", "compare", chats, "--between", "0", "base")
    assert code == 130
    assert lines[-1] == (
        f"nex-merge: interrupted; what is done is kept. To go on: nex-merge compare {chats} --between 0 base"
    )
    assert len(json.loads((chats / "compare.json").read_text())["comparisons"][0]["judgements"]) == 1


def on_a_terminal(columns, keys, *args):
    """The lines that a command shows on a terminal of so many columns, and its exit code; a key per question."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "LINES": "40", "COLUMNS": str(columns)}
    # As the program, so that it takes signals over.
    code = "import sys; sys.argv[0] = 'nex-merge'; from nex_merge.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown, waiting, until = b"", list(keys), time.monotonic() + 120
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        elif waiting and shown.endswith(b"stop: "):
            os.write(ours, waiting.pop(0).encode())
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    return text.replace("\r\n", "\n").strip("\n").split("\n"), process.wait(30)
