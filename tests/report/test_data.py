"""What the page is made of: the front, columns, figures, importances, the choice of responses, sentences."""

from dataclasses import replace

import numpy as np
import optuna
import pytest

from nex_merge.errors import InputError
from nex_merge.measures.estimates import Objective
from nex_merge.measures.registry import MEASURES
from nex_merge.report import words
from nex_merge.report.comparison import spread
from nex_merge.report.data import front, leaderboard_table, reliability_figures, stage_times, take_snapshot
from nex_merge.report.figures import history, parallel, scatter
from nex_merge.runs import files
from nex_merge.runs.leaderboard import rank
from nex_merge.runs.rows import COLUMNS
from nex_merge.runs.tables import TABLE
from nex_merge.study.importances import importances
from tests.report.planted import plant, reliability_of, result_of, with_values

NEX = Objective("nex", 1)


@pytest.mark.parametrize("objective", [NEX, Objective("entropy", -1), Objective("nex", -1)])
def test_the_front_is_what_no_other_variant_beats(objective):
    rng = np.random.default_rng(1)
    results = [result_of(rng, files.trial_id(i), "merge") for i in range(30)]
    results += [replace(results[0], trial="0030"), result_of(rng, "0031", "merge", state="collapsed")]
    rows = rank(results, objective)

    def beats(a, b):
        gains = (
            b.known("mean_tokens") - a.known("mean_tokens"),
            objective.sign * (a.known(objective.name) - b.known(objective.name)),
        )
        return min(gains) >= 0 and max(gains) > 0

    sound = [row for row in rows if row.state == "complete"]
    expected = {row.trial for row in sound if not any(beats(other, row) for other in sound)}
    found = front(rows, objective)
    assert {row.trial for row in found} == expected
    tokens = [row.value("mean_tokens") for row in found]
    assert tokens == sorted(tokens) and len(expected) < 20


def test_with_length_as_the_objective_the_front_is_over_nex():
    rows = rank([result_of(np.random.default_rng(i), files.trial_id(i), "merge") for i in range(9)], NEX)
    assert front(rows, Objective("mean_tokens", -1)) == front(rows, NEX)


def test_the_leaderboard_has_every_column_and_the_terminals_first(tmp_path):
    snapshot = take_snapshot(plant(tmp_path / "run", 10))
    columns, cells = leaderboard_table(snapshot)
    names = [column.name for column in columns]
    shown = [column.name for column in columns if column.shown]
    assert shown == [*(name for name in TABLE if name != "acc"), "state", "reason"]
    renamed = {"rank", "beats_parent", "mean_tokens", "cycles_per_response", "seconds"}
    assert set(COLUMNS) - renamed <= set(names) and "p.weight.a" in names and len(names) == len(set(names))
    assert all(len(line) == len(columns) for line in cells)
    assert cells[0][0].value == 1 and cells[0][1].value == snapshot.rows[0].trial
    assert {column.name for column in columns if column.descending} >= {"nex", "95 %", "beats", "consensus"}
    assert not {column.name for column in columns if column.descending} & {"#", "tokens", "entropy", "s"}
    meanings = {column.name: column.meaning for column in columns}
    assert meanings["tokens"] == MEASURES["mean_tokens"].meaning and meanings["novelty"] == MEASURES["novelty"].meaning
    assert meanings["entropy"].endswith(", in nats")
    assert meanings["nex_low"].startswith("lower end") and "of NEX over prompts" in meanings["95 %"]


def test_another_objective_leads_the_page(tmp_path):
    run = plant(tmp_path / "run", 6, study={"objective": "perplexity"})
    snapshot = take_snapshot(run)
    shown = [column.name for column in leaderboard_table(snapshot)[0] if column.shown]
    assert "perplexity" in shown
    assert snapshot.pick.value("perplexity") == min(row.value("perplexity") for row in snapshot.of("merge"))
    figure = history(snapshot.rows, snapshot.objective, snapshot.pick)
    best = next(trace for trace in figure.data if trace.name == "best so far")
    assert list(best.y) == sorted(best.y, reverse=True)
    meanings = {column.name: column.meaning for column in leaderboard_table(snapshot)[0]}
    assert "beats base and every parent by perplexity" in meanings["beats"]


def test_a_column_is_sorted_as_the_study_is_directed(tmp_path):
    run = plant(tmp_path / "run", 2, study={"objective": "perplexity", "direction": "maximize"})
    columns = {column.name: column for column in leaderboard_table(take_snapshot(run))[0]}
    assert columns["perplexity"].descending and not columns["novelty"].descending


def test_every_column_with_an_interval_has_error_bars():
    rows = rank([result_of(np.random.default_rng(i), files.trial_id(i), "merge") for i in range(3)], NEX)
    rows = [replace(row, accuracy=0.5, accuracy_low=0.4, accuracy_high=0.7) for row in rows]
    rows[1] = replace(rows[1], accuracy_low=None, accuracy_high=None)
    points = scatter(rows, "nex", "accuracy", None).data[0]
    assert list(points.error_x.array) == pytest.approx([0.05 * row.value("nex") for row in rows])
    assert list(points.error_y.arrayminus) == pytest.approx([0.1, 0, 0.1])
    assert scatter(rows, "mean_tokens", "accuracy", None).data[0].error_x.array is None
    assert scatter(rows, "novelty", "nex", None).layout.xaxis.title.text == "novelty (neurons per token)"


def test_figures_behind_the_verdict():
    figures = dict(reliability_figures(reliability_of(4)))
    assert figures["complete variants"] == "4" and figures["split-half reliability of NEX"] == "0.6"
    assert figures["split-half reliability of entropy"] == "0.4"
    assert "split-half reliability of log gap" not in figures


def test_collapsed_and_duplicate_merges_are_never_the_best_so_far():
    rng = np.random.default_rng(0)
    results = [
        result_of(rng, "0000", "merge"),
        result_of(rng, "0001", "merge", state="collapsed"),
        result_of(rng, "0002", "merge", state="duplicate"),
    ]
    results[1] = with_values(results[1], nex=0.99)
    rows = rank(results, NEX)
    best = next(trace for trace in history(rows, NEX, rows[0]).data if trace.name == "best so far")
    assert set(best.y) == {results[0].value("nex")}


def test_merges_without_a_parameter_stand_apart_in_the_parallel_coordinates():
    rng = np.random.default_rng(0)
    results = [
        result_of(rng, "0000", "merge", parameters={"method": "ties", "density.a": 0.5}),
        result_of(rng, "0001", "merge", parameters={"method": "slerp"}),
        result_of(rng, "0002", "merge", parameters={"method": "ties", "density.a": 0.9}),
    ]
    figure, _ = parallel(rank(results, NEX), NEX)
    density, method, nex = figure.data[0].dimensions
    order = [row.trial for row in rank(results, NEX)]
    assert density.ticktext[0] == "none" and min(density["values"]) == density["values"][order.index("0001")]
    assert list(method.ticktext) == ["slerp", "ties"] and nex.label == "NEX"


def make_study(run, values):
    """A study as a search leaves it: x explains the values, y doesn't, z is only in half of the trials."""
    study = optuna.create_study(study_name="another-name", storage=f"sqlite:///{run.path / files.STUDY}")
    between = optuna.distributions.FloatDistribution(0, 1)
    rng = np.random.default_rng(0)
    for number in range(len(values)):
        x = number / len(values)
        parameters = {"x": x, "y": float(rng.uniform()), **({"z": 0.5} if number % 2 else {})}
        study.add_trial(
            optuna.trial.create_trial(params=parameters, distributions=dict.fromkeys(parameters, between), value=0.0)
        )


def test_importances_rest_on_the_values_given_and_leave_the_study_alone(tmp_path):
    run = plant(tmp_path / "a run #1, 100%", 1)
    values = {files.trial_id(number): number / 30 for number in range(30)}
    make_study(run, values)
    before = (run.path / files.STUDY).read_bytes()
    found = importances(run, values)
    assert list(found) == ["x", "y"] and found["x"] > 0.9 and sum(found.values()) == pytest.approx(1)
    assert importances(run, values) == found
    assert (run.path / files.STUDY).read_bytes() == before
    with pytest.raises(InputError, match="at least 4 merges with different scores, got 30 merges with 1 different"):
        importances(run, dict.fromkeys(values, 0.5))
    with pytest.raises(InputError, match="got 2 merges with 2 different"):
        importances(run, {"0000": 0.1, "0001": 0.2, "0099": 0.3})


def test_importances_without_a_study_to_read(tmp_path):
    run = plant(tmp_path / "run", 1)
    with pytest.raises(InputError, match=r"study\.db: no such file; it records the ranges"):
        importances(run, {})
    (run.path / files.STUDY).write_text("no database")
    with pytest.raises(InputError, match="cannot read the study"):
        importances(run, {})


def test_responses_are_spread_from_the_lowest_score_to_the_highest():
    scores = [0.5, None, 0.1, 0.9, 0.3, 0.7]
    assert spread(scores, 3) == [2, 0, 3]
    assert spread(scores, 5) == spread(scores, 99) == [2, 4, 0, 5, 3]
    assert spread(scores, 1) == [2] and spread([None], 3) == []


def test_sentences_about_a_run(tmp_path):
    run = plant(tmp_path / "run", 3, study={"trials": 5})
    run.folder("0003").mkdir()
    snapshot = take_snapshot(run)
    assert "not finished: 3 of 5 merges" in words.progress(snapshot)
    assert words.progress(snapshot).endswith("In progress or interrupted: 3.")
    assert words.counts(snapshot) == "6 trials: 6 complete."
    assert [stage for stage, *_ in stage_times(snapshot)] == ["merge", "generate", "capture", "score"]
    assert stage_times(snapshot)[1][1:] == (6, pytest.approx(18.0))
    assert words.verdict_age(snapshot) == ""
    older = replace(snapshot, reliability=replace(snapshot.reliability, variants=4))
    assert "with 4 complete variants; there are now 6" in words.verdict_age(older)
    assert "fewer than 10" in words.importance(12, 4) and words.importance(40, 4) == ""
    assert words.no_parents(snapshot) == "" and words.stages(snapshot) == ("", "")
    assert words.steps(["More prompts: nex-merge search x", "Use another match."]) == [
        ("More prompts:", "nex-merge search x"),
        ("Use another match.", ""),
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-0.1, 0.2, "includes 0"), (0.1, 0.2, "above 0"), (-0.3, -0.1, "below 0")]
)
def test_sentences_about_agreement(low, high, expected):
    agreement = {"scores": {"nex": {"spearman": {"value": (low + high) / 2, "low": low, "high": high}}}}
    assert expected in words.agreement_summary(agreement, "nex")
    assert "is undefined" in words.agreement_summary(agreement, "entropy")
