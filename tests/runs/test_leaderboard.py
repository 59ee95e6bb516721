"""Ranking, ties, formats, verdicts; accuracy files."""

import csv
import io
import json

import pytest

from nex_merge.labels.benchmark import attach_accuracy
from nex_merge.setup.config import StudyConfig
from nex_merge.errors import InputError
from nex_merge.runs.leaderboard import COLUMNS, as_csv, as_json, as_markdown, objective_of, rank, sort_rows, verdict
from nex_merge.records import SCORES, NexScore, Reliability, Rivals, TrialResult


def result(trial, nex, kind="merge", state="complete", **fields):
    score = None
    if nex is not None:
        score = NexScore(nex, 1.0, nex, nex, "self", (nex,), 1, 1, 2, 1, 0.5, {})
    return TrialResult(trial, kind, "ties", "ties", 0, state, score=score, seconds={"merge": 1.0}, **fields)


RESULTS = [
    result("base", 0.5, "base"),
    result("0000", 0.7, parameters={"weight.a": 0.1}),
    result("0001", None, state="failed", reason="not finite"),
    result("0002", 0.9, parameters={"weight.a": 0.3}),
    result("0003", 0.7),
    result("0004", 0.9, state="duplicate", reason="the same recipe as trial 0002"),
]


def test_ranking():
    rows = rank(RESULTS)
    assert [(row["rank"], row["trial"]) for row in rows] == [
        (1, "0002"), (2, "0000"), (3, "0003"), (4, "base"), (None, "0001"), (None, "0004"),
    ]  # fmt: skip
    assert rows[0]["cycles_per_response"] == 2 and rows[0]["seconds"] == 1.0


def test_formats_hold_all_columns():
    rows = rank(RESULTS)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert list(read[0]) == [*COLUMNS, "p.weight.a"]
    assert read[0]["nex"] == "0.9" and read[4]["nex"] == ""
    loaded = json.loads(as_json(rows))
    assert list(loaded[0]) == [*COLUMNS, "p.weight.a"] and loaded[2]["p.weight.a"] is None
    assert as_markdown(rows).splitlines()[2].startswith("| 1 | 2 | ties | 0.9000 | 0.900-0.900 | - |")


def test_sorting():
    rows = rank(RESULTS)
    assert [row["trial"] for row in sort_rows(rows, "p.weight.a")][:2] == ["0000", "0002"]
    with pytest.raises(InputError, match=r"no column 'nexx'\. Did you mean 'nex'"):
        sort_rows(rows, "nexx")


def test_collapsed_ranks_below_every_sound_one():
    rows = rank([*RESULTS, result("0005", 0.99, state="collapsed", reason="loops")])
    assert [(row["rank"], row["trial"]) for row in rows][4:6] == [(5, "0005"), (None, "0001")]


def test_another_objective_and_direction():
    def with_tokens(trial, tokens):
        return result(trial, 0.5, rivals=Rivals(tokens, 0.1, 0.1, 1.0, 1.0, 0.1, None))

    found = [with_tokens("0000", 30.0), with_tokens("0001", 10.0), with_tokens("0002", 20.0)]
    objective = objective_of({"objective": "mean_tokens", "direction": "auto"})
    assert [row["trial"] for row in rank(found, objective)] == ["0001", "0002", "0000"]
    objective = objective_of({"objective": "mean_tokens", "direction": "maximize"})
    assert [row["trial"] for row in rank(found, objective)] == ["0000", "0002", "0001"]


def test_every_score_can_be_the_objective():
    choices = StudyConfig.model_fields["objective"].annotation.__args__
    assert choices == tuple(SCORES)
    assert set(SCORES) <= set(COLUMNS)


def test_the_verdict_in_plain_words():
    found = Reliability("weak", ("few cycles",), ("longer responses",), 5, 24, 0.7, 1.2, 0.6, 0.5, 0.2, 0.9, 0.3)
    assert verdict(found) == [
        "Verdict on NEX: weak; this ranking is coarse, or says little that length does not.",
        "  - few cycles",
        "  What would help: longer responses",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "trial,acc\nbase,1\n", "has no accuracy; it has trial, acc"),
        ("a.csv", "trial,accuracy\nbase,70\n", "row 1: accuracy is 70.0; a number between 0 and 1"),
        ("a.csv", "trial,accuracy\nbase,high\n", "row 1: accuracy is 'high'"),
        ("a.csv", "trial,accuracy\n99,0.5\n", "row 1: trial '99': not in this run; it has base"),
        ("a.json", "[", "not valid JSON"),
        ("a.json", "[]", "found no rows"),
        ("a.json", '[{"accuracy": 0.5}]', "row 1: neither trial nor recipe is given"),
        ("a.txt", "", "is .txt; .csv or .json would do"),
    ],
)
def test_accuracy_files(tmp_path, name, text, message):
    from nex_merge.runs import files

    (tmp_path / "config.yaml").write_text("study: {objective: nex, direction: auto}\n")
    files.write_result(tmp_path, RESULTS[0])
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        attach_accuracy(tmp_path, tmp_path / name)
    assert message in str(error.value)


def test_accuracy_joins_the_leaderboard(tmp_path):
    from nex_merge.runs import files
    from nex_merge.runs.leaderboard import write_leaderboard

    (tmp_path / "config.yaml").write_text("study: {objective: nex, direction: auto}\n")
    for item in RESULTS:
        files.write_result(tmp_path, item)
    (tmp_path / "a.json").write_text('{"base": 0.25, "2": 0.75}')
    attach_accuracy(tmp_path, tmp_path / "a.json")
    assert {row["trial"]: row["accuracy"] for row in write_leaderboard(tmp_path)}["0002"] == 0.75
