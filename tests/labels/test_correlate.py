"""Correlations, regret and curves against closed forms and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nex_merge.errors import InputError
from nex_merge.labels.correlate import _overlap, agreement_with_accuracy, split
from nex_merge.labels.labelled_run import LabelledRun
from nex_merge.labels.plots import scatter_text, write_scatters
from nex_merge.labels.statistics import curve, kendall, pearson, wilson
from nex_merge.measures.registry import OBJECTIVES
from nex_merge.records import Estimate
from nex_merge.runs.rows import Row


def rows_with(accuracy, nex, tokens, kinds=None):
    estimates = dict.fromkeys(OBJECTIVES, Estimate(0.5))
    return [
        Row(
            f"{i:04d}", (kinds or ["merge"] * 99)[i], "ab"[i % 2], "complete", i + 1, accuracy=a, accuracy_source="x",
            estimates={**estimates, "nex": Estimate(n, n - 0.1, n + 0.1), "mean_tokens": Estimate(t)},
        )
        for i, (a, n, t) in enumerate(zip(accuracy, nex, tokens, strict=True))
    ]  # fmt: skip


def test_agreement_in_closed_form():
    found = agreement_with_accuracy(rows_with([0.1, 0.2, 0.3, 0.4], [1, 2, 4, 3], [1, 2, 3, 4]))
    nex, tokens = found["scores"]["nex"], found["scores"]["mean_tokens"]
    assert nex["spearman"]["value"] == pytest.approx(0.8)  # 1 - 6 * 2 / (4 * 15)
    assert nex["kendall"]["value"] == pytest.approx(2 / 3)  # 5 pairs agree, 1 does not
    assert nex["top_trial"] == "0002" and nex["regret"] == pytest.approx({"1": 0.1, "3": 0.0, "5": 0.0})
    assert tokens["spearman"]["value"] == pytest.approx(-1), "fewer tokens are ranked first"
    assert tokens["regret"]["1"] == pytest.approx(0.3) and tokens["regret"]["3"] == pytest.approx(0.1)
    assert tokens["overlap"] == {"1": 0.0, "3": pytest.approx(2 / 3), "5": 1.0}
    assert found["scores"]["entropy"]["spearman"]["value"] is None, "a constant has no correlation"
    assert nex["spearman"]["low"] <= 0.8 <= nex["spearman"]["high"]


def test_overlap_over_ties_is_its_expectation():
    x, y = np.array([4.0, 3, 2, 1]), np.array([0.5, 0.5, 0.5, 0.1])
    assert _overlap(x, y, 1) == pytest.approx(1 / 3)
    assert _overlap(x, y, 2) == pytest.approx(2 / 3)
    assert _overlap(x, y, 3) == 1


def test_accuracy_from_different_data_is_refused():
    rows = rows_with([0.1, 0.2, 0.3], [1, 2, 3], [1, 2, 3])
    rows[1] = replace(rows[1], accuracy_source="y")
    with pytest.raises(InputError, match="comes from different data \\(x; y\\)"):
        agreement_with_accuracy(rows)


def test_equal_accuracies_have_neither_correlation_nor_curve():
    rows = [
        replace(row, estimates={**row.estimates, "entropy": Estimate(i)})
        for i, row in enumerate(rows_with([0.0] * 6, range(6), range(6)))
    ]
    found = agreement_with_accuracy(rows)
    assert found["scores"]["nex"]["spearman"]["value"] is None and found["curves"] == {}


def test_the_best_parent_is_named_beside():
    found = agreement_with_accuracy(rows_with([0.1, 0.6, 0.3], [1, 2, 3], [1, 2, 3], ["base", "parent", "merge"]))
    assert found["best_parent_accuracy"] == 0.6


def test_agreement_needs_accuracy():
    with pytest.raises(InputError, match="only 2 of 4 trials have accuracy"):
        agreement_with_accuracy(rows_with([0.1, 0.2, None, None], [1, 2, 3, 4], [1, 2, 3, 4]))


def test_resampled_correlations_are_scipys():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 6, 12).astype(float), rng.normal(size=12)
    picks = rng.integers(12, size=(20, 12))
    np.testing.assert_allclose(kendall(x, y, picks), [stats.kendalltau(x[p], y[p])[0] for p in picks])
    np.testing.assert_allclose(pearson(x[picks], y[picks]), [stats.pearsonr(x[p], y[p])[0] for p in picks])
    ranks = [stats.rankdata(values[picks], axis=1) for values in (x, y)]
    np.testing.assert_allclose(pearson(*ranks), [stats.spearmanr(x[p], y[p])[0] for p in picks])


def test_wilsons_interval_is_scipys_and_takes_shares_of_no_whole_number():
    for right, n in ((0, 5), (3, 7), (64, 128), (9, 9)):
        assert wilson(right / n, n) == tuple(stats.binomtest(right, n).proportion_ci(method="wilson"))
    low, high = wilson(0.5, 8.5)
    assert wilson(0.5, 8)[0] < low < wilson(0.5, 9)[0] and low + high == pytest.approx(1)


def test_an_inverted_u_is_found_with_its_vertex():
    x = np.linspace(0, 1, 30)
    noise = np.random.default_rng(0).normal(scale=0.01, size=30)
    found = curve(x, 0.5 - (x - 0.4) ** 2 + noise)
    assert found["inverted_u"] and found["vertex"]["low"] < 0.4 < found["vertex"]["high"]
    assert found["aic_quadratic"] < found["aic_linear"]


@pytest.mark.parametrize("y", [lambda x: x, lambda x: (x - 0.5) ** 2, lambda x: -((x + 3) ** 2)])
def test_lines_troughs_and_half_branches_are_no_inverted_u(y):
    x = np.linspace(0, 1, 30)
    noise = np.random.default_rng(0).normal(scale=0.01, size=30)
    assert not curve(x, y(x) + noise)["inverted_u"]


def test_a_curve_needs_five_different_values():
    assert curve(np.array([0.0, 0, 1, 1, 2, 2]), np.arange(6.0)) is None


def test_splitting_keeps_base_and_parents_in_every_part():
    rows = rows_with([0.1] * 5, range(5), range(5), ["base", "parent", "merge", "merge", "merge"])
    parts = split(rows, "method")
    assert {name: [row.trial for row in part] for name, part in parts.items()} == {
        "a": ["0000", "0001", "0002", "0004"],
        "b": ["0000", "0001", "0003"],
    }


def test_scatter_plots(tmp_path):
    rows = rows_with([0.1, 0.6, 0.3], [1, 2, 3], [1, 2, 3], ["base", "parent", "merge"])
    lines = scatter_text(rows, "nex").splitlines()
    assert lines[1].endswith("P") and lines[1].startswith("   0.600 |")
    assert "B" in lines[14] and "o" in "".join(lines[1:15])
    files = write_scatters(rows, ["nex", "mean_tokens"], tmp_path / "plots")
    assert [file.name for file in files] == ["nex.png", "mean_tokens.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_equal_scores_stand_in_the_order_of_trial_numbers():
    rows = rows_with([0.1, 0.2, 0.3], [1, 1, 1], [1, 1, 1])
    rows = [replace(row, trial=trial) for row, trial in zip(rows, ("10000", "9999", "0003"), strict=True)]
    assert agreement_with_accuracy(rows)["scores"]["mean_tokens"]["top_trial"] == "0003"
    more = rows[:2] + rows_with([0.4], [0], [2])
    assert agreement_with_accuracy(more)["scores"]["mean_tokens"]["top_trial"] == "9999"


def test_the_better_half_is_ranked_apart():
    # The lower five are ordered as accuracy is, the upper five the other way round.
    accuracy = [i / 10 for i in range(10)]
    found = agreement_with_accuracy(rows_with(accuracy, [0, 1, 2, 3, 4, 9, 8, 7, 6, 5], range(10)))["scores"]
    assert found["nex"]["spearman"]["value"] > 0.5
    assert found["nex"]["spearman_better_half"]["value"] == pytest.approx(-1) and found["nex"]["better_half"] == 5
    short = agreement_with_accuracy(rows_with(accuracy[:8], range(8), range(8)))["scores"]["nex"]
    assert short["better_half"] == 4 and short["spearman_better_half"]["value"] is None, "four are too few"


def test_gains_of_the_top_pick_over_the_best_parent_and_equal_weights():
    rows = rows_with([0.1, 0.6, 0.3, 0.8], [1, 2, 3, 0], [4, 3, 2, 1], ["parent", "parent", "merge", "merge"])
    scores = agreement_with_accuracy(rows, LabelledRun(equal_weights=0.5))["scores"]
    assert scores["nex"]["gain_over_best_parent"] == pytest.approx(-0.3)
    assert scores["nex"]["gain_over_equal_weights"] == pytest.approx(-0.2)
    assert scores["mean_tokens"]["gain_over_best_parent"] == pytest.approx(0.2)
    without = agreement_with_accuracy(rows_with([0.1, 0.6, 0.3], [1, 2, 3], [1, 2, 3]))["scores"]["nex"]
    assert without["gain_over_best_parent"] is None and without["gain_over_equal_weights"] is None


def test_baselines_are_compared_over_the_variants_that_have_them():
    rows = rows_with([0.1, 0.2, 0.3, 0.9], range(4), range(4))
    distance = {"0000": 3.0, "0001": 2.0, "0002": 1.0, "0003": None}
    run = LabelledRun(baselines={"distance": distance, "lambda": dict.fromkeys(distance)}, nearest="a")
    found = agreement_with_accuracy(rows, run)
    item = found["baselines"]["distance"]
    assert item["spearman"]["value"] == pytest.approx(1), "nearer is taken for better"
    assert item["variants"] == 3 and item["regret"]["1"] == pytest.approx(0.6), "the best of all, not of these"
    assert found["baselines_left_out"] == ["lambda"] and "distance" not in found["scores"]


def test_the_ceiling_of_a_run_rests_on_what_is_known_of_its_accuracies():
    rows = rows_with([0.2, 0.4, 0.6, 0.8], range(4), range(4))
    assert agreement_with_accuracy(rows)["noise_ceiling"] is None, "the run's size is not known"
    plain = agreement_with_accuracy(rows, LabelledRun(prompts=24))["noise_ceiling"]
    assert plain["problems"] is None and plain["shared_noise"] is None and plain["accuracy_ranks_at"] is None
    trials = [row.trial for row in rows]
    known = LabelledRun(prompts=24, problems=dict.fromkeys(trials, 10))
    noisy = agreement_with_accuracy(rows, known)["noise_ceiling"]
    assert noisy["value"] < plain["value"] and noisy["problems"] == 10
    # Every variant solves what a worse one solves: the order of all is plain on any few problems.
    right = {trial: "1" * k + "0" * (10 - k) for trial, k in zip(trials, (2, 4, 6, 8), strict=True)}
    nested = agreement_with_accuracy(rows, LabelledRun(24, 1, known.problems, right))["noise_ceiling"]
    assert nested["shared_noise"] > 0.3 and nested["value"] > noisy["value"]
    part = LabelledRun(24, 1, {trials[0]: 10}, {trials[0]: right[trials[0]]})
    assert agreement_with_accuracy(rows, part)["noise_ceiling"] == plain, "known of some is known of none"
