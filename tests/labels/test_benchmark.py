"""Matching, labelled prompts, and the measuring of a run's trials."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError, RunError
from nex_merge.families.qwen3_tiny.problems import KINDS
from nex_merge.labels.accuracy_files import attach_accuracy
from nex_merge.labels.benchmark import benchmark, choose_trials
from nex_merge.labels.correlate import agreement_with_accuracy
from nex_merge.labels.item_grader import ItemGrader
from nex_merge.labels.items import Item, builtin_items, load_items, matcher, unlike
from nex_merge.labels.labelled_run import labelled_run
from nex_merge.records import Prompt
from nex_merge.runs import custody, files
from nex_merge.runs.accuracies import read_measurements
from nex_merge.runs.leaderboard import read_rows, write_leaderboard
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.options import options_of, with_options
from tests.searches import search


@pytest.mark.parametrize(
    ("match", "answer", "response", "right"),
    [
        ("text", "a= b1  b2", "<think>no</think>\n\na= b1 b2\n", True),
        ("text", "4", "it is 4", False),
        ("number", "1,200", "<think>3</think> 5 and then 1200.0", True),
        ("number", "3", "<think>3</think> it is 4", False),
        ("number", "-2.5", "x = -2.5", True),
        ("number", "7", "no idea", False),
        ("choice", "B", "A or B? The answer is B.", True),
        ("choice", "B", "The answer is (C)", False),
        ("choice", "B", "", False),
        ("regex:x = (.)", "4", "x = 3, no, x = 4", True),
        ("regex:^[0-9]$", "4", "44", False),
        ("regex:[0-9]+", "44", "44", True),
    ],
)
def test_matching(match, answer, response, right):
    assert matcher(match, answer)(response) is right


@pytest.mark.parametrize(
    ("line", "match", "message"),
    [
        ('{"prompt": "x"}', "text", 'line 1: expected "answer" with text or a number, got null'),
        ('{"answer": "x"}', "text", 'line 1: expected text in "prompt"'),
        (
            '{"prompt": "x", "answer": "four or five"}',
            "number",
            "line 1: answer 'four or five' cannot be read as number: expected one",
        ),
        (
            '{"prompt": "x", "answer": 1}',
            "choice",
            "line 1: answer '1' cannot be read as choice: it may count from 0 or from 1; write",
        ),
        ('{"prompt": "x", "answer": "b"}', "regex:(", "--match: 'regex:(' is not a valid regular expression"),
        (
            '{"prompt": "x", "answer": "4"}',
            "fuzzy",
            "expected number, choice, text or regex:PATTERN, got 'fuzzy'",
        ),
        ("", "text", "contains no labelled prompts"),
    ],
)
def test_bad_data(tmp_path, line, match, message):
    (tmp_path / "bench.jsonl").write_text(line + "\n")
    with pytest.raises(InputError) as error:
        load_items(tmp_path / "bench.jsonl", match)
    assert message in str(error.value)


def test_the_options_of_a_line_bound_the_letters_and_name_the_answer(tmp_path):
    lines = [
        {"prompt": "x", "choices": ["Rome", "Paris"], "answer": "Paris"},
        {"prompt": "x", "choices": {"text": ["Rome", "Paris"], "label": ["A", "B"]}, "answer": "b"},
        {"prompt": "x", "options": {"A": "Rome", "B": "Paris"}, "answer": "(B)"},
    ]
    (tmp_path / "bench.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for item in load_items(tmp_path / "bench.jsonl", "choice"):
        assert item.is_right("The answer is B.") and not item.is_right("The answer is A.")
    (tmp_path / "bench.jsonl").write_text(json.dumps(lines[0] | {"answer": "C"}) + "\n")
    with pytest.raises(
        InputError, match="line 1: answer 'C' cannot be read as choice: expected the letter of one option, \"A\""
    ):
        load_items(tmp_path / "bench.jsonl", "choice")


def test_options_by_letter_are_in_the_order_of_their_letters_and_what_a_server_returned_is_none():
    assert options_of({"options": {"B": "Paris", "A": "Rome"}}) == ["Rome", "Paris"]
    assert options_of({"choices": [{"message": {"content": "12"}, "finish_reason": "stop"}] * 2}) is None


def test_known_answers_that_look_otherwise_than_they_are_read_are_said():
    assert list(unlike(["12", "1,200", "-3.5", "Paris"], "text")) == [
        "3 of 4 known answers are numbers, but responses are compared as texts; --match number reads which number a "
        "response concludes"
    ]
    assert [line[:46] for line in unlike(["B", "(C)"], "text")] == ["2 of 2 known answers are letters of choices, b"]
    assert not [*unlike(["12", *["Paris"] * 9], "text"), *unlike(["12"], "number"), *unlike([], "text")]


def test_builtin_problems_are_not_the_search_prompts():
    lines = Path("configs/prompts/qwen3_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = {json.loads(line)["prompt"] for line in lines}
    items = builtin_items("qwen3-tiny", 32, "x")
    assert len(items) == 64 and not prompts & {item.prompt.raw for item in items}


def test_accuracy_joins_the_leaderboard_with_its_interval_and_is_not_measured_twice(toy_config, tmp_path, monkeypatch):
    # Without thinking, what is cut off may have answered.
    search(toy_config, study={"trials": 2}, prompts={"thinking": False})
    run = RunFolder(tmp_path / "run")
    before = [row.trial for row in read_rows(run)]
    items = [Item(Prompt(({"role": "user", "content": p},), p), p, lambda text, p=p: p == "pairs") for p in KINDS]
    notes = []
    chosen = choose_trials(run, 3, [], read_rows(run))
    benchmark(run, ItemGrader(items, "bench"), chosen, notes.append)
    rows = read_rows(run)
    assert [row.trial for row in rows] == before, "accuracy never changes the ranking"
    assert [row.accuracy for row in rows] == [0.5] * 3 + [None] * 2
    assert rows[0].accuracy_low == pytest.approx(0.0945, abs=1e-4)  # Wilson, 1 of 2
    assert rows[0].accuracy_high == pytest.approx(0.9055, abs=1e-4)

    from nex_merge.labels import benchmark as module

    measured = []
    whole = module.Remerger.load
    monkeypatch.setattr(
        module.Remerger, "load", lambda self, result: measured.append(result.trial) or whole(self, result)
    )
    benchmark(run, ItemGrader(items, "bench"), choose_trials(run, None, [], rows), notes.append)
    assert sorted(measured) == sorted(before[3:]), "a run that was stopped goes on"
    assert files.read_accuracy(run.path, "base")["n"] == 2

    found = labelled_run(run, rows := read_rows(run))
    assert (found.prompts, found.samples) == (4, 1), "what the run answered, not what accuracy was measured on"
    assert set(found.problems) == set(before) and set(found.problems.values()) == {2}
    assert set(found.right.values()) == {"10"} and found.equal_weights == 0.5
    assert found.nearest == next(row.trial for row in rows if row.kind == "parent")
    assert found.baselines["lambda"]["base"] == 0 and found.baselines["distance"][found.nearest] == 0
    assert agreement_with_accuracy(rows, found)["noise_ceiling"]["value"] is None, "equal accuracies rank nobody"


def test_what_is_cut_off_while_thinking_is_wrong_and_changed_answers_are_measured_again(toy_config, tmp_path):
    search(toy_config, study={"trials": 0})
    run = RunFolder(tmp_path / "run")
    item = Item(Prompt(({"role": "user", "content": "pairs"},), "pairs"), "a", lambda text: True)
    benchmark(run, ItemGrader([item], "bench"), ["base"], lambda text: None)
    assert files.read_accuracy(run.path, "base")["accuracy"] == 0, "24 tokens of a toy never close their thinking"
    first = files.read_accuracy(run.path, "base")["source"]
    benchmark(run, ItemGrader([replace(item, answer="b")], "bench"), ["base"], lambda text: None)
    assert files.read_accuracy(run.path, "base")["source"] != first


def test_choosing_trials(toy_run):
    run = RunFolder(toy_run)
    rows = read_rows(run)
    assert choose_trials(run, None, ["base", "0"], rows) == ["base", "0000"]
    assert choose_trials(run, 2, [], rows) == [row.trial for row in rows[:2]]
    with pytest.raises(InputError, match="either --top or --trials"):
        choose_trials(run, 2, ["base"], rows)
    with pytest.raises(InputError, match="trial '9': not in this run"):
        choose_trials(run, None, ["9"], rows)


def test_labelled_problems_as_text_are_told_the_format(tmp_path):
    (tmp_path / "bench.txt").write_text("Who?\n")
    with pytest.raises(InputError, match=r'--data: expected JSONL, a line \{"prompt": \.\.\., "answer": \.\.\.\}'):
        load_items(tmp_path / "bench.txt", "text")


@pytest.mark.parametrize(
    ("row", "match", "answer", "asked"),
    [
        ({"question": "2 * 9?", "answer": "2 * 9 = <<2*9=18>>18.\n#### 18"}, "number", "18", "2 * 9?"),
        ({"question": "Metal?", "choices": ["tin", "air"], "answer": 0}, "choice", "A", "Metal?\nA. tin\nB. air"),
        ({"question": "Metal?", "choices": {"text": ["air", "tin"]}, "answerKey": "B"}, "choice", "B", None),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "number", "3", "Add.\n\n1 2"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "text", "b", "a"),
    ],
)
@pytest.mark.parametrize("name", ["bench.json", "bench.parquet"])
def test_answers_of_known_formats(tmp_path, row, match, answer, asked, name):
    if name.endswith(".json"):
        (tmp_path / name).write_text(json.dumps([row]))
    else:
        pandas.DataFrame([row]).to_parquet(tmp_path / name)
    [item] = load_items(tmp_path / name, match)
    assert item.answer == answer
    if asked is not None:
        assert with_options(item.prompt, PromptsConfig(file="")).messages == ({"role": "user", "content": asked},)


def test_a_table_without_prompts_is_refused_with_its_columns(tmp_path):
    (tmp_path / "bench.csv").write_text("promt,answer\na,b\n")
    with pytest.raises(InputError, match=r"bench\.csv: expected the column 'prompt', .+ Known columns: promt, answer"):
        load_items(tmp_path / "bench.csv", "text")


def test_the_number_of_a_choice_that_is_none_is_refused(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps([{"question": "?", "choices": ["a", "b"], "answer": 2}]))
    with pytest.raises(InputError, match="row 1: answer: expected the number of a choice, 0 to 1, got 2"):
        load_items(tmp_path / "bench.json", "choice")


def test_accuracy_on_other_data_than_the_other_trials_have_is_not_attached(toy_run_copy, tmp_path):
    run = RunFolder(toy_run_copy)
    trials = [row.trial for row in read_rows(run)]
    (tmp_path / "full.csv").write_text("trial,accuracy\n" + "".join(f"{t},0.{i}\n" for i, t in enumerate(trials)))
    (tmp_path / "one.csv").write_text("trial,accuracy,n\n0,0.7,100\n")
    attach_accuracy(run, tmp_path / "full.csv")
    before = read_measurements(run.path, "0000")
    with pytest.raises(InputError, match=r"different data \(.*full\.csv; .*one\.csv\)"):
        attach_accuracy(run, tmp_path / "one.csv")
    assert read_measurements(run.path, "0000") == before
    done = CliRunner().invoke(app, ["correlate", str(run.path), "--by", "trial"])
    assert done.exit_code == 0 and "trial 0: " in done.stdout and "trial 0000" not in done.output


def test_problems_are_of_the_builtin_ones(toy_run):
    done = CliRunner().invoke(app, ["correlate", str(toy_run), "--problems", "3"])
    assert str(done.exception) == "--problems: expected only with --accuracy builtin"


def test_two_that_measure_one_run_are_told_apart(toy_run_copy, tmp_path):
    """Their accuracies would be mixed; and whoever writes the leaderboard last has read what the others wrote."""
    run = RunFolder(toy_run_copy)
    file = tmp_path / "accuracy.csv"
    file.write_text("trial,accuracy\na,0.5\n")
    busy = "another command is measuring the accuracy of its trials"
    with custody.measuring(run.path):
        with pytest.raises(RunError, match=rf"^{run.path}: {busy}.*\. Wait for it or end it$"):
            benchmark(run, ItemGrader([], "x"), ["a"], print)
        with pytest.raises(RunError, match=busy):
            attach_accuracy(run, file)
    attach_accuracy(run, file)
    with custody.locked(run.path, files.LEADERBOARD_LOCK):
        waiting = threading.Thread(target=write_leaderboard, args=(run,))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        files.write_accuracy(run.path, "a", {"accuracy": 0.75})
    waiting.join()
    (row,) = [row for row in json.loads((run.path / "leaderboard.json").read_text()) if row["trial"] == "a"]
    assert row["accuracy"] == 0.75
