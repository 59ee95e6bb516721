"""Capturing candidates, and `nex-merge select` as a user runs it."""

import csv
import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from nex_merge.cli.app import app
from nex_merge.engines.observe import ObserveSettings
from nex_merge.errors import InputError
from nex_merge.inspect.select.selection import conclusion_of, observe_candidates
from nex_merge.inspect.select.selectors import SELECTORS
from nex_merge.inspect.select.summary import AGREEMENT, FOUND, STUDY, WITHOUT_CONCLUSIONS
from nex_merge.records import Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig
from tests.engines.fakes import FakeEngine
from tests.pages import ROOT

SETTINGS = ("--set", "activations.slice_tokens=2", "--set", "activations.top_k=8")


def test_empty_candidates_are_not_captured():
    texts = ["one", "", "two", " "]
    responses = [Response(0, i, (1,), tuple(range(20, 26)), text, False) for i, text in enumerate(texts)]
    engine = FakeEngine()
    settings = ObserveSettings(GenerationConfig(), ActivationsConfig(slice_tokens=2), PhasesConfig())
    found = observe_candidates(engine, responses, settings)
    assert engine.answered == 0 and engine.captured == 1
    assert [item is None for item in found.stats] == [False, True, False, True]
    assert [len(found.base.group(i)[0]) for i in range(4)] == [6, 0, 6, 0]
    assert found.credits.responses == 4 and set(found.seconds) == {"capture", "score"}


@pytest.mark.parametrize(
    ("text", "truncated", "thinking", "found"),
    [
        ("<think>\n12", True, False, None),
        ("12", True, True, None),
        ("12", True, False, "12"),
        ("12", False, True, "12"),
        ("<think>\n</think>\n\n12", True, True, "12"),
    ],
)
def test_unfinished_thinking_has_no_conclusion(text, truncated, thinking, found):
    assert conclusion_of(Response(0, 0, (1,), (2,), text, truncated), "text", thinking) == found


def invoke(*args):
    return CliRunner().invoke(app, ["select", *map(str, args)])


def test_given_responses_with_answers(toy, tmp_path):
    words = "a: a1 3 + a2 5 = 8 a? 8 yes\na= a1 a2 wait b: b1 9 no b2 4 b? 13"
    texts = [f"{words} {words} 1", f"{words} no no\n2", f"{words} {words} 1", "", "  "]
    lines = [{"prompt": p, "responses": texts[: 5 - i], "answer": 1} for i, p in enumerate(["pairs", "signs"])]
    file = tmp_path / "r.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = invoke(
        file,
        "--model",
        toy["a"],
        "--match",
        "number",
        "--by",
        "shortest",
        "--summary",
        tmp_path / "s" / "s.json",
        *SETTINGS,
    )
    assert done.exit_code == 0, done.output
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["prompt"] == 0 and first["right"] == [True, False, True, False, False]
    assert first["order"] == [1, 0, 2, 3, 4] and first["picks"]["shortest"] == 1 and first["picks"]["majority"] == 0
    assert set(first["picks"]) == set(first["scores"]) == set(SELECTORS)
    assert all(scores[3:] == [None, None] for scores in first["scores"].values())
    assert first["scores"]["nex"][0] == first["scores"]["nex"][2] and first["scores"]["majority"][:3] == [2, 1, 2]
    assert first["scores"]["shortest"][1] < first["scores"]["shortest"][0] and len(second["order"]) == 4
    assert "2 prompts, 9 candidates: 2 duplicates within their prompt, 3 empty" in done.stderr
    assert "candidates with undefined scores, which rank last: nex 3, majority 3, shortest 3" in done.stderr
    assert "random" in done.stderr and "oracle" in done.stderr
    summary = json.loads((tmp_path / "s" / "s.json").read_text())
    assert [item["candidates"] for item in summary["comparisons"]] == [2, 4]
    assert summary["comparisons"][0]["selectors"]["random"]["accuracy"] == pytest.approx((2 / 5 + 2 / 4) / 2)


def test_sampled_responses(toy, tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "pairs"}\n{"messages": [{"role": "user", "content": "signs"}]}\n')
    args = (file, "--model", toy["a"], "--samples", 3, "--set", "generation.max_new_tokens=20", *SETTINGS)
    done = invoke(*args)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(line["responses"]) for line in lines] == [3, 3] and "right" not in lines[0]
    assert "sampling 3 responses to each of 2 prompts at temperature 0.7" in done.stderr
    assert invoke(*args).stdout == done.stdout
    # Under given weights a candidate's score does not depend on the others.
    np.savez(tmp_path / "w.npz", keys=np.arange(32, dtype=np.uint32), weights=np.linspace(-1, 1, 32, dtype=np.float32))
    both = invoke(*args, "--weights", tmp_path / "w.npz")
    alone = invoke(*args, "--weights", tmp_path / "w.npz", "--set", "prompts.limit=1")
    assert both.stdout.splitlines()[0] == alone.stdout.splitlines()[0]


def test_only_empty_responses(toy, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"prompt": "pairs", "responses": ["", ""], "answer": "x"}\n')
    done = invoke(tmp_path / "r.jsonl", "--model", toy["a"], *SETTINGS)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["order"] == [0, 1]
    assert "candidates with undefined scores, which rank last: nex 2" in done.stderr


def test_agreement_of_conclusions_is_the_default_and_the_study_is_quoted(toy, tmp_path):
    texts = ["It is 4. wait no a b", "It is 5.", "It is 5. yes yes", "It is 6."]
    lines = [
        {"prompt": "pairs", "responses": texts, "answer": 5},
        {"prompt": "signs", "responses": ["no", "wait a", "b yes"], "answer": 5},
        {"prompt": "a b", "responses": texts[:3], "finish_reason": ["stop", "length", "length"], "answer": 5},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = invoke(tmp_path / "r.jsonl", "--model", toy["a"], "--match", "number", *SETTINGS)
    assert done.exit_code == 0, done.output
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert [line["by"] for line in (first, second, third)] == ["majority", "neighbours", "majority"]
    assert first["order"] == [1, 2, 0, 3] and second["order"][0] == second["picks"]["neighbours"]
    assert third["order"][0] == 0 and third["scores"]["majority"] == [1, None, None]  # what was cut has no vote
    for words in (
        "ordered by majority: most frequent conclusion",
        "no candidate of 1 of 3 prompts concludes anything; these are ordered by neighbours",
        "majority:       +0.03 and +0.03 at temperature 0.7, +0.21 and +0.20 at 1.3",
        "nex:            -0.12 and -0.02 at temperature 0.7, -0.38 and -0.28 at 1.3",
        "2 cut off, which conclude nothing",
    ):
        assert words in done.stderr
    assert not re.search(r"^majority +\S+ \S+ \[", done.stderr, re.MULTILINE)  # three prompts are no sample
    done = invoke(tmp_path / "r.jsonl", "--model", toy["a"], "--by", "nex", "--match", "text", *SETTINGS)
    assert {json.loads(line)["by"] for line in done.stdout.splitlines()} == {"nex"}
    assert "ordered by nex: highest Good-Mass Fraction" in done.stderr
    assert "3 of 3 known answers are numbers, but responses are compared as texts" in done.stderr


def test_what_is_said_of_the_study_is_what_it_found():
    with open(ROOT / "results" / "studies" / "best_of_n.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "both" and row["candidates"] == "16"]
    assert (ROOT / STUDY).exists() and set(FOUND) == set(SELECTORS)
    for name, gains in FOUND.items():
        by_run = {row["run"]: f"{float(row['gain']):+.2f}" for row in rows if row["selector"] == name}
        runs = ("0.75-0.75-at-0.7", "1.0-0.75-at-0.7", "0.75-0.75", "1.0-0.75")
        assert [f"{gain:+.2f}" for gain in gains] == [by_run[run] for run in runs]
    best = {name: sum(gains) for name, gains in FOUND.items()}
    assert {AGREEMENT, WITHOUT_CONCLUSIONS} <= set(sorted(best, key=lambda name: -best[name])[:2])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.jsonl",), "RESPONSES: no such file: 'none.jsonl'"),
        (("none.jsonl", "--by", "majorty"), "--by: unknown selector 'majorty'. Did you mean 'majority'?"),
        (("none.jsonl", "--calibration", "self"), "--calibration: expected pool or prompt, got 'self'"),
        (
            ("none.jsonl", "--calibration", "pool", "--weights", "w.npz"),
            "expected either --calibration or --weights, got both",
        ),
        (("none.jsonl", "--rho", "1"), "--rho: expected a number > 0 and < 1, got 1.0"),
        (("R", "--summary", "s.json"), "--summary: expected known answers"),
        (("R", "--weights", "none.npz"), "--weights: no such file: none.npz"),
        (("R",), "--model: expected a checkpoint folder or a hub id"),
    ],
)
def test_invalid_options_are_rejected(tmp_path, args, message):
    (tmp_path / "r.jsonl").write_text('{"prompt": "x", "responses": ["a"]}\n')
    done = invoke(*(tmp_path / "r.jsonl" if arg == "R" else arg for arg in args), "--model", "nowhere")
    assert isinstance(done.exception, InputError) and message in str(done.exception)
