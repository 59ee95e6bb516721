"""The table on a terminal, and the noise ceiling in words."""

from dataclasses import replace

import numpy as np
import pytest

from nex_merge.labels.agreement_table import ceiling_in_words, print_agreement, print_legend
from nex_merge.labels.correlate import agreement_with_accuracy
from nex_merge.labels.labelled_run import LabelledRun
from nex_merge.measures.registry import OBJECTIVES
from nex_merge.records import Estimate
from tests.labels.test_correlate import rows_with

MAIN = ("measure", "Spearman", "better", "top", "its", "regret", "over")


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    rows = rows_with(rng.random(15), rng.random(15), rng.random(15), ["base", "parent", "parent"] + ["merge"] * 12)
    members = ("base", "thinking", "instruct-2507")
    rows = [
        replace(
            row, trial=members[number] if number < 3 else row.trial,
            estimates={name: Estimate(float(rng.random())) for name in OBJECTIVES},
        )
        for number, row in enumerate(rows)
    ]  # fmt: skip
    trials = [row.trial for row in rows]
    distances = {trial: float(d) if d > 0.2 else None for trial, d in zip(trials, rng.random(15), strict=True)}
    baselines = {"distance": distances, "lambda": {trial: float(rng.random()) for trial in trials}}
    return agreement_with_accuracy(rows, LabelledRun(24, 1, {}, {}, 0.5, "thinking", baselines))


def printed(result, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_agreement(result)
    print_legend(result)
    return capsys.readouterr().out


def test_eighty_columns_have_what_matters_most(result, monkeypatch, capsys):
    text = printed(result, 80, monkeypatch, capsys)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in text
    heading = next(line for line in lines if "measure" in line and "Spearman" in line)
    above = lines[lines.index(heading) - 1] if "better" not in heading else ""
    assert all(word in above + heading for word in MAIN), "the seven columns that matter most"
    assert "95 % bootstrap over variants" in text and "left out for want of width" in text
    missing = 15 - result["baselines"]["distance"]["variants"]
    assert missing and f"distance is without {missing} of 15 variants" in text
    assert "-distance *" in text and "\nlambda *" in text and "parent thinking" in " ".join(text.split())
    for name, item in result["scores"].items():
        line = next(line for line in lines if line.lstrip("-").startswith(f"{name} "))
        assert f"{item['top_accuracy']:.3f}" in line and f"{item['regret']['1']:.3f}" in line
        assert f"{item['gain_over_best_parent']:+.3f}" in line


def test_a_long_name_is_folded_and_costs_no_column(result, monkeypatch, capsys):
    scores = {name: {**item, "top_trial": "a-parent-with-a-long-name"} for name, item in result["scores"].items()}
    lines = printed({**result, "scores": scores}, 80, monkeypatch, capsys).splitlines()
    assert max(map(len, lines)) <= 80 and any("parent" in line and "regret" in line for line in lines[:5])
    assert sum("a-parent-w" in line for line in lines) == len(scores)


def test_wide_terminals_show_all_and_narrow_ones_the_first(result, monkeypatch, capsys):
    wide = printed(result, 200, monkeypatch, capsys)
    assert "left out for want of width" not in wide
    assert all(word in wide for word in ("Kendall", "Pearson", "over =", "overlap"))
    narrow = printed(result, 45, monkeypatch, capsys)
    assert max(map(len, narrow.splitlines())) <= 45 and "10 columns left out" in " ".join(narrow.split())


CEILING = {"value": 0.714, "low": 0.4, "high": 0.89, "prompts": 24, "samples": 1, "problems": 128,
           "shared_noise": 0.3, "accuracy_ranks_at": 0.93}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected", "unexpected"),
    [
        (
            {},
            "labels on the same 24 prompts x 1 sample would reach 0.71 [0.40, 0.89]; no measure from these prompts can "
            "be expected above this range. The accuracies themselves, on 128 problems, rank the variants at about "
            "0.93.",
            "independently",
        ),
        ({"samples": 4}, "24 prompts x 4 samples would reach at most 0.71", "about 0.71"),
        ({"shared_noise": None}, "would reach about 0.71", "no measure"),
        ({"shared_noise": None}, "all are taken to err independently, which lowers the figure", "n in the"),
        (
            {"problems": None, "shared_noise": None, "accuracy_ranks_at": None},
            "their own noise is not removed, which raises the figure; give it as n in the accuracy file",
            "themselves",
        ),
        ({"value": None}, "undefined. The accuracies on 128 problems differ by no more than chance", "reach"),
    ],
)
def test_the_ceiling_in_words(changes, expected, unexpected):
    text = ceiling_in_words({**CEILING, **changes})
    assert text.startswith("Noise ceiling: ") and expected in text and unexpected not in text and "  " not in text
