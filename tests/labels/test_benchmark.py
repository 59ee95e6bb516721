"""Matching, labelled prompts, and the measuring of a run's trials."""

import json
from pathlib import Path

import pytest

from nex_merge.errors import InputError
from nex_merge.labels.benchmark import benchmark, builtin_items, choose_trials, load_items, matcher
from nex_merge.runs import files
from nex_merge.runs.leaderboard import read_rows
from nex_merge.study.search import run_search
from nex_merge.setup.resolve import resolve_config

from .test_search import Silent


@pytest.mark.parametrize(
    ("match", "answer", "response", "right"),
    [
        ("exact", "a= b1  b2", "<think>no</think>\n\na= b1 b2\n", True),
        ("exact", "4", "it is 4", False),
        ("number", "1,200", "<think>3</think> 5 and then 1200.0", True),
        ("number", "3", "<think>3</think> it is 4", False),
        ("number", "-2.5", "x = -2.5", True),
        ("number", "7", "no idea", False),
        ("choice", "B", "A or B? The answer is B.", True),
        ("choice", "B", "The answer is (C)", False),
        ("choice", "B", "", False),
        ("regex", "fou?r", "so: for", True),
        ("regex", "^4$", "44", False),
    ],
)
def test_matching(match, answer, response, right):
    assert matcher(match, answer)(response) is right


@pytest.mark.parametrize(
    ("line", "match", "message"),
    [
        ('{"prompt": "x"}', "exact", "line 1: found no answer"),
        ('{"answer": "x"}', "exact", 'line 1: found keys answer; "prompt" with text'),
        ('{"prompt": "x", "answer": "four"}', "number", "line 1: the answer 'four' is no number"),
        ('{"prompt": "x", "answer": "("}', "regex", "line 1: the answer '(' is no regex"),
        ('{"prompt": "x", "answer": "4"}', "fuzzy", "--match: found 'fuzzy'"),
        ("", "exact", "holds no labelled prompts"),
    ],
)
def test_bad_data(tmp_path, line, match, message):
    (tmp_path / "bench.jsonl").write_text(line + "\n")
    with pytest.raises(InputError) as error:
        load_items(tmp_path / "bench.jsonl", match)
    assert message in str(error.value)


def test_builtin_problems_are_not_the_search_prompts():
    lines = Path("configs/prompts/qwen3_tiny.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = {json.loads(line)["prompt"] for line in lines}
    items = builtin_items(32)
    assert len(items) == 64 and not prompts & {item.prompt.raw for item in items}


def test_accuracy_joins_the_leaderboard_with_its_interval_and_is_not_measured_twice(toy_config, tmp_path, monkeypatch):
    # Without thinking, what is cut off may have answered.
    plan = resolve_config(str(toy_config), {"study": {"trials": 2}, "prompts": {"thinking": False}})
    run_search(plan, False, Silent())
    run = tmp_path / "run"
    before = [row["trial"] for row in read_rows(run)]
    (tmp_path / "bench.jsonl").write_text('{"prompt": "pairs", "answer": ".*"}\n{"prompt": "signs", "answer": "zz"}\n')
    items = load_items(tmp_path / "bench.jsonl", "regex")
    notes = []
    chosen = choose_trials(run, 3, [], read_rows(run))
    benchmark(run, items, "bench", chosen, notes.append)
    rows = read_rows(run)
    assert [row["trial"] for row in rows] == before, "accuracy never changes the ranking"
    assert [row["accuracy"] for row in rows] == [0.5] * 3 + [None] * 2
    assert rows[0]["accuracy_low"] == pytest.approx(0.0945, abs=1e-4)  # Wilson, 1 of 2
    assert rows[0]["accuracy_high"] == pytest.approx(0.9055, abs=1e-4)

    from nex_merge.labels import benchmark as module

    measured = []
    whole = module._measure
    monkeypatch.setattr(module, "_measure", lambda *args: measured.append(args[1].trial) or whole(*args))
    benchmark(run, items, "bench", choose_trials(run, None, [], rows), notes.append)
    assert sorted(measured) == sorted(before[3:]), "a run that was stopped goes on"
    assert files.read_accuracy(run, "base")["n"] == 2


def test_what_is_cut_off_while_thinking_is_wrong_and_changed_answers_are_measured_again(toy_config, tmp_path):
    run_search(resolve_config(str(toy_config), {"study": {"trials": 0}}), False, Silent())
    run, data = tmp_path / "run", tmp_path / "bench.jsonl"
    data.write_text('{"prompt": "pairs", "answer": ".*"}\n')
    benchmark(run, load_items(data, "regex"), "bench", ["base"], lambda text: None)
    assert files.read_accuracy(run, "base")["accuracy"] == 0, "24 tokens of a toy never close their thinking"
    first = files.read_accuracy(run, "base")["source"]
    data.write_text('{"prompt": "pairs", "answer": "x?"}\n')
    benchmark(run, load_items(data, "regex"), "bench", ["base"], lambda text: None)
    assert files.read_accuracy(run, "base")["source"] != first


def test_choosing_trials(toy_config, tmp_path):
    run_search(resolve_config(str(toy_config), {"study": {"trials": 1}}), False, Silent())
    run = tmp_path / "run"
    rows = read_rows(run)
    assert choose_trials(run, None, ["base", "0"], rows) == ["base", "0000"]
    assert choose_trials(run, 2, [], rows) == [row["trial"] for row in rows[:2]]
    with pytest.raises(InputError, match="either --top or --trials"):
        choose_trials(run, 2, ["base"], rows)
    with pytest.raises(InputError, match="trial '9': not in this run"):
        choose_trials(run, None, ["9"], rows)
