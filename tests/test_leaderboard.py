"""Ranking, ties, formats; correlation against closed forms; accuracy files."""

import csv
import io
import json

import pytest

from nex_merge.correlate import agreement, attach_accuracy
from nex_merge.errors import InputError
from nex_merge.leaderboard import COLUMNS, as_csv, as_json, as_markdown, rank, sort_rows
from nex_merge.records import NexScore, TrialResult


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


def rows_with(accuracy, nex, tokens):
    return [
        {"trial": f"{i:04d}", "state": "complete", "accuracy": a, "nex": n, "mean_tokens": t, "entropy": 0.5}
        for i, (a, n, t) in enumerate(zip(accuracy, nex, tokens, strict=True))
    ]


def test_agreement_in_closed_form():
    found = agreement(rows_with([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 3], [1, 2, 3, 4]))
    nex, tokens = found["scores"]["nex"], found["scores"]["mean_tokens"]
    assert nex["spearman"]["value"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert nex["kendall"]["value"] == pytest.approx(2 / 3)  # 5 pairs agree, 1 does not
    assert nex["top_trial"] == "0002" and nex["regret"] == pytest.approx(0.1)
    assert tokens["spearman"]["value"] == pytest.approx(-1), "fewer tokens are ranked first"
    assert tokens["regret"] == pytest.approx(0.3)
    assert found["scores"]["entropy"]["spearman"]["value"] is None, "a constant has no correlation"
    assert nex["spearman"]["low"] <= 0.8 <= nex["spearman"]["high"]


def test_agreement_needs_accuracy():
    with pytest.raises(InputError, match="only 2 of 4 trials have accuracy"):
        agreement(rows_with([0.1, 0.2, None, None], [1, 2, 3, 4], [1, 2, 3, 4]))


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
    from nex_merge import trials

    (tmp_path / "config.yaml").write_text("study: {objective: nex, direction: auto}\n")
    trials.write_result(tmp_path, RESULTS[0])
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        attach_accuracy(tmp_path, tmp_path / name)
    assert message in str(error.value)


def test_accuracy_joins_the_leaderboard(tmp_path):
    from nex_merge import trials
    from nex_merge.leaderboard import write_leaderboard

    (tmp_path / "config.yaml").write_text("study: {objective: nex, direction: auto}\n")
    for item in RESULTS:
        trials.write_result(tmp_path, item)
    (tmp_path / "a.json").write_text('{"base": 0.25, "2": 0.75}')
    attach_accuracy(tmp_path, tmp_path / "a.json")
    assert {row["trial"]: row["accuracy"] for row in write_leaderboard(tmp_path)}["0002"] == 0.75
