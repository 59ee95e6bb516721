"""What the page is told: the front, columns, importances, which responses are shown, what is said of a run."""

from dataclasses import replace

import numpy as np
import optuna
import pytest

from nex_merge.errors import InputError
from nex_merge.report import words
from nex_merge.report.comparison import spread
from nex_merge.report.data import front, leaderboard_table, stage_times, take_snapshot
from nex_merge.report.figures import over_trials, parallel
from nex_merge.runs import files
from nex_merge.runs.leaderboard import COLUMNS, TABLE, Objective, rank
from nex_merge.study.optuna_study import importances
from tests.report.planted import plant, result_of


@pytest.mark.parametrize("objective", [Objective("nex", 1), Objective("entropy", -1), Objective("nex", -1)])
def test_the_front_is_what_no_other_variant_beats(objective):
    rng = np.random.default_rng(1)
    results = [result_of(rng, files.trial_id(i), "merge") for i in range(30)]
    results += [replace(results[0], trial="0030"), result_of(rng, "0031", "merge", state="collapsed")]
    rows = rank(results, objective)

    def beats(a, b):
        gains = (b["mean_tokens"] - a["mean_tokens"], objective.sign * (a[objective.name] - b[objective.name]))
        return min(gains) >= 0 and max(gains) > 0

    sound = [row for row in rows if row["state"] == "complete"]
    expected = {row["trial"] for row in sound if not any(beats(other, row) for other in sound)}
    found = front(rows, objective)
    assert {row["trial"] for row in found} == expected
    tokens = [row["mean_tokens"] for row in found]
    assert tokens == sorted(tokens) and len(expected) < 20


def test_of_lengths_themselves_the_front_is_over_nex():
    rows = rank([result_of(np.random.default_rng(i), files.trial_id(i), "merge") for i in range(9)])
    assert front(rows, Objective("mean_tokens", -1)) == front(rows, Objective("nex", 1))


def test_the_leaderboard_has_every_column_and_the_terminals_first(tmp_path):
    snapshot = take_snapshot(plant(tmp_path / "run", 10))
    columns, cells = leaderboard_table(snapshot)
    names = [column.name for column in columns]
    shown = [column.name for column in columns if column.shown]
    assert shown == [*(name for name in TABLE if name != "acc"), "state", "reason"]
    renamed = {"rank", "beats_parent", "mean_tokens", "cycles_per_response", "seconds"}
    assert set(COLUMNS) - renamed <= set(names) and "p.weight.a" in names and len(names) == len(set(names))
    assert all(len(line) == len(columns) for line in cells)
    assert cells[0][0].value == 1 and cells[0][1].value == snapshot.rows[0]["trial"]
    assert {column.name for column in columns if column.falls} >= {"nex", "95 %", "beats", "cycles"}


def test_another_objective_has_a_column_and_a_line_of_its_own(tmp_path):
    run = plant(tmp_path / "run", 6, study={"objective": "perplexity"})
    snapshot = take_snapshot(run)
    shown = [column.name for column in leaderboard_table(snapshot)[0] if column.shown]
    assert "perplexity" in shown
    assert snapshot.pick["perplexity"] == min(row["perplexity"] for row in snapshot.of("merge"))
    figure = over_trials(snapshot.rows, snapshot.objective, snapshot.pick)
    best = next(trace for trace in figure.data if trace.name == "best so far")
    assert list(best.y) == sorted(best.y, reverse=True)
    assert any("best parent by NEX" in line for line in words.standing(snapshot))


def test_collapsed_and_duplicate_merges_are_never_the_best_so_far():
    rng = np.random.default_rng(0)
    results = [
        result_of(rng, "0000", "merge"),
        result_of(rng, "0001", "merge", state="collapsed"),
        result_of(rng, "0002", "merge", state="duplicate"),
    ]
    results[1] = replace(results[1], score=replace(results[1].score, nex=0.99))
    rows = rank(results)
    best = next(trace for trace in over_trials(rows, Objective("nex", 1), rows[0]).data if trace.name == "best so far")
    assert set(best.y) == {results[0].score.nex}


def test_merges_without_a_parameter_stand_apart_in_the_parallel_coordinates():
    rng = np.random.default_rng(0)
    results = [
        result_of(rng, "0000", "merge", parameters={"method": "ties", "density.a": 0.5}),
        result_of(rng, "0001", "merge", parameters={"method": "slerp"}),
        result_of(rng, "0002", "merge", parameters={"method": "ties", "density.a": 0.9}),
    ]
    figure, _ = parallel(rank(results), Objective("nex", 1))
    density, method, nex = figure.data[0].dimensions
    order = [row["trial"] for row in rank(results)]
    assert density.ticktext[0] == "none" and min(density["values"]) == density["values"][order.index("0001")]
    assert list(method.ticktext) == ["slerp", "ties"] and nex.label == "NEX"


def told_study(run, values):
    """A study as a search leaves it: x explains the values, y doesn't, z is only in half of the trials."""
    study = optuna.create_study(study_name="another-name", storage=f"sqlite:///{run / files.STUDY}")
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
    told_study(run, values)
    before = (run / files.STUDY).read_bytes()
    found = importances(run, None, values)
    assert list(found) == ["x", "y"] and found["x"] > 0.9 and sum(found.values()) == pytest.approx(1)
    assert importances(run, None, values) == found
    assert (run / files.STUDY).read_bytes() == before
    with pytest.raises(InputError, match="takes 4 merges with different scores; found 30 merges, 1 different"):
        importances(run, None, dict.fromkeys(values, 0.5))
    with pytest.raises(InputError, match="found 2 merges, 2 different"):
        importances(run, None, {"0000": 0.1, "0001": 0.2, "0099": 0.3})


def test_importances_without_a_study_to_read(tmp_path):
    run = plant(tmp_path / "run", 1)
    with pytest.raises(InputError, match=r"has no study\.db"):
        importances(run, None, {})
    (run / files.STUDY).write_text("no database")
    with pytest.raises(InputError, match="can't be read"):
        importances(run, None, {})


def test_responses_are_spread_from_the_lowest_score_to_the_highest():
    scores = [0.5, None, 0.1, 0.9, 0.3, 0.7]
    assert spread(scores, 3) == [2, 0, 3]
    assert spread(scores, 5) == spread(scores, 99) == [2, 4, 0, 5, 3]
    assert spread(scores, 1) == [2] and spread([None], 3) == []


def test_what_is_said_of_a_run(tmp_path):
    run = plant(tmp_path / "run", 3, study={"trials": 5})
    (run / files.TRIALS / "0003").mkdir()
    snapshot = take_snapshot(run)
    assert "not finished: 3 of 5 planned" in words.progress(snapshot) and "cut off: 3" in words.progress(snapshot)
    assert words.counted(snapshot) == "6 trials: 6 complete."
    assert [stage for stage, *_ in stage_times(snapshot)] == ["merge", "generate", "capture", "score"]
    assert stage_times(snapshot)[1][1:] == (6, pytest.approx(18.0))
    assert words.verdict_age(snapshot) == ""
    older = replace(snapshot, reliability=replace(snapshot.reliability, variants=4))
    assert "with 4 sound variants; now there are 6" in words.verdict_age(older)
    assert "fewer than 10" in words.importance(12, 4) and words.importance(40, 4) == ""
    low = take_snapshot(plant(tmp_path / "low", 1, **{"0000": {"score": replace(_score(), nex=0.1)}}))
    assert any("ranks above it: no merge of this run is better" in line for line in words.standing(low))


def _score():
    return result_of(np.random.default_rng(0), "0000", "merge").score


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-0.1, 0.2, "holds 0"), (0.1, 0.2, "above 0"), (-0.3, -0.1, "below 0")]
)
def test_what_is_said_of_agreement(low, high, said):
    found = {"scores": {"nex": {"spearman": {"value": (low + high) / 2, "low": low, "high": high}}}}
    assert said in words.agreement(found, "nex")
    assert "can't be told" in words.agreement(found, "entropy")
