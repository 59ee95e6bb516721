"""`nex-merge audit` as a person uses it: questions on a terminal, keys, files of labels, the result."""

import json
import re

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError, RunError
from nex_merge.runs.custody import locked
from tests.labels.answered import answer_run, reply


@pytest.fixture
def run(toy_run_copy, monkeypatch):
    """Three prompts with a conclusion, one without; asked on a terminal."""
    answer_run(toy_run_copy)
    monkeypatch.setattr("nex_merge.cli.audit._is_terminal", lambda: True)
    return toy_run_copy


def audit(run, keys="", *args):
    return CliRunner().invoke(app, ["audit", str(run), *map(str, args)], input=keys)


def key_of(conclusion, text):
    """The key that stands for a conclusion in the last question shown."""
    return re.findall(rf"^  (\d)  {conclusion} ", text, re.MULTILINE)[-1]


def kept(run):
    return json.loads((run / "audit.json").read_text())


def test_questions_keys_and_the_result(run):
    done = audit(run, "x0s0", "--seed", 1)
    assert done.exit_code == 0, done.output
    questions = done.stderr
    assert questions.count("Which is right?") == 4, "an unknown key asks again"
    assert "Prompt 1 of 3 (number " in questions and "The run has only 3 prompts with a conclusion." in questions
    assert re.search(r"\d  7   \(\d variants\)\n       Let me see.\n       So it is 7.\n", questions)
    assert "claim" not in questions and "%" not in questions, "nothing that anchors"
    lines = done.stdout.splitlines()
    assert re.match(
        r"The pool's conclusion is right on 0 of 2 \(0%, 95 % interval 0% to 66%\); consensus claimed \d", lines[0]
    )
    assert "the labels contradict consensus: most variants share their mistakes" in lines[1].lower()
    assert "Left out: 1 prompt on which no variant concludes anything." in lines
    assert "Left out: 1 prompt on which you were not sure." in lines
    assert "scored with 2 known truths" in done.stdout and "Verdict on" in done.stdout
    assert lines[-1].startswith("The first by ") and "of the first 5 ranks changed" in lines[-1]
    found = kept(run)
    assert sorted(found["drawn"]) == [0, 1, 2, 3] and len(found["labels"]) == 2
    assert all(label["conclusion"] is None for label in found["labels"])


def test_a_key_stands_for_the_conclusion_beside_it(run):
    shown = audit(run, "q", "--n", 1)
    assert "No label was given, so nothing has changed." in shown.stderr and not (run / "audit.json").exists()
    done = audit(run, key_of(8, shown.stderr), "--n", 1)
    assert done.exit_code == 0 and [label["conclusion"] for label in kept(run)["labels"]] == ["8"]


def test_quitting_keeps_what_was_said_and_a_later_audit_goes_on(run):
    first = audit(run, "0q", "--seed", 1)
    assert "right on 0 of 1" in first.stdout
    asked = re.findall(r"\(number (\d) of the run\)", first.stderr)
    later = audit(run, "00", "--seed", 1)
    assert "Prompt 2 of 3" in later.stderr and "right on 0 of 3" in later.stdout
    again = re.findall(r"\(number (\d) of the run\)", later.stderr)
    assert again[0] == asked[1] and asked[0] not in again, "what was quit is asked, what was answered is not"
    assert set(kept(run)["drawn"]) == {0, 1, 2, 3}
    more = audit(run, "", "--n", 2)
    assert "3 prompts asked already; a larger --n asks for more." in more.stderr and "of 3" in more.stdout


def test_an_interrupt_keeps_what_was_said(run, monkeypatch):
    keys = iter("0")

    def key():
        for pressed in keys:
            return pressed
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.getchar", key)
    assert audit(run).exit_code in (1, 130)
    assert len(kept(run)["labels"]) == 1


def test_the_end_of_input_quits(run):
    done = audit(run, "0")
    assert done.exit_code == 0 and "right on 0 of 1" in done.stdout


def test_whole_texts_on_demand_and_nothing_that_acts_on_the_terminal(run):
    long = "\n".join(f"step {i}" for i in range(9))
    answer_run(run, lambda v, p: f"\x1b[31m{long}\n{reply(v, p)}")
    brief = audit(run, "q")
    assert "step 0" not in brief.stderr and "       ...\n       step 8\n       Let me see.\n" in brief.stderr
    whole = audit(run, "wq")
    assert whole.stderr.count("step 0") == 2 and "\x1b" not in whole.stderr


def test_rare_conclusions_are_counted_and_shown_when_none_of_the_first_is_right(run):
    answer_run(run, lambda v, p: f"It is {p if v < 3 else 10 + v}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nex_merge.labels.audit.PAGE", 2)
        done = audit(run, "0q", "--n", 1)
    rest = int(re.search(r"0 none of these: show (\d) more", done.stderr)[1])
    assert rest >= 1 and done.stderr.count("Which is right?") == 2


def test_without_a_terminal_it_says_which_prompts_to_label(run, monkeypatch):
    monkeypatch.setattr("nex_merge.cli.audit._is_terminal", lambda: False)
    done = audit(run, "000", "--n", 2)
    assert isinstance(done.exception, InputError) and done.exception.exit_code == 2
    message = str(done.exception)
    assert "--labels FILE" in message and re.search(r"counted from 0: [0-2], [0-2]$", message)


def test_a_file_of_labels_counts_whole(run, tmp_path, monkeypatch):
    monkeypatch.setattr("nex_merge.cli.audit._is_terminal", lambda: False)
    file = tmp_path / "labels.csv"
    file.write_text("index,answer\n0,7.0\n1,8\n3,7\n2,7\n")
    done = audit(run, "", "--labels", file, "--n", 1, "--format", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["n", "right", "low", "high", "claimed", "verdict", "reasons", "pick_before", "pick_after"]
    assert (found["n"], found["right"]) == (3, 2) and found["low"] < 2 / 3 < found["high"] < 1
    assert kept(run)["drawn"] == [0, 1, 3, 2]
    file.write_text("index,answer\n1,7\n")
    assert json.loads(audit(run, "", "--labels", file, "--format", "json").stdout)["right"] == 3, "the last word counts"


def test_labels_on_prompts_without_conclusions_are_refused(run, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("index,answer\n3,7\n")
    done = audit(run, "", "--labels", file)
    assert isinstance(done.exception, InputError) and "none of its labels is for a prompt on which" in str(
        done.exception
    )


def test_a_run_that_is_searched_is_refused(run):
    with locked(run):
        done = audit(run, "000")
    assert isinstance(done.exception, RunError) and "another search is running in this folder" in str(done.exception)


def test_a_prompt_whose_file_has_changed_is_decoded(run):
    config = run / "config.yaml"
    config.write_text(re.sub("prompts_sha256: [0-9a-f]+", "prompts_sha256: other", config.read_text()))
    done = audit(run, "q")
    assert done.exit_code == 0 and "<|im_start|>" in done.stderr


def test_help_says_how_to_undo_it():
    assert "To undo it, delete that file and rescore" in " ".join(
        CliRunner().invoke(app, ["audit", "--help"]).output.split()
    )
