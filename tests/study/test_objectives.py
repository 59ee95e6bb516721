"""Whole searches with several objectives: what the study is told, resuming, repair, and what is refused."""

import shutil

import optuna
import pytest
from typer.testing import CliRunner

from nex_merge import Run
from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.nex import calibration
from nex_merge.runs.front import volume_over
from nex_merge.runs.leaderboard import best_merge, read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.importances import importances
from nex_merge.study.search import run_search
from tests.engines.fakes import FakeEngine
from tests.rows import by_column
from tests.searches import search

OBJECTIVES = {"nex": "auto", "entropy": "minimize"}


@pytest.fixture
def go(toy_config, monkeypatch):
    """Searches with two objectives, the first of which depends on the pool."""
    monkeypatch.setattr(calibration, "FIRST_POOL", 2)

    def searched(trials, final=None, **changes):
        study = {"trials": trials, "objectives": OBJECTIVES, "constraints": {"mean_tokens": "<= 1000"}, "final": final}
        return search(toy_config, nex={"calibration": "pool"}, study=study, **changes)

    return searched


def test_a_search_that_was_stopped_and_repaired_ends_like_one_that_was_not(go, tmp_path):
    whole, _ = go(10, output=str(tmp_path / "whole"))
    for stop in (3, 7):
        go(stop)
    shutil.rmtree(tmp_path / "run" / "trials" / "0005")
    _, recorder = go(7)
    assert recorder.ended == ["0005"], "the study knows its parameters"
    (tmp_path / "run" / "study.db").unlink()
    rows, recorder = go(10)
    assert rows == whole and recorder.ended == ["0007", "0008", "0009"]
    told = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/run/study.db")
    assert [direction.name for direction in told.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in told.trials:
        result = RunFolder(tmp_path / "run").find(str(trial.number))
        assert trial.values == [result.value("nex"), result.value("entropy")]
        assert set(trial.constraints) == {"collapse", "mean_tokens"}
    again, recorder = go(10)
    assert again == whole and recorder.ended == []


def test_the_leaderboard_is_ordered_by_front_and_export_asks_which(go, tmp_path):
    rows, _ = go(6)
    ordered = [(row["front"], -row["nex"]) for row in rows if row["state"] == "complete"]
    assert ordered == sorted(ordered) and ordered[0][0] == 1
    run = RunFolder(tmp_path / "run")
    front = ", ".join(str(int(row["trial"])) for row in rows if row["kind"] == "merge" and row["front"] == 1)
    message = rf"nex and entropy are objectives alike.* --trial \({front}\), or the best by one measure with --by"
    with pytest.raises(InputError, match=message):
        best_merge(run)
    with pytest.raises(InputError, match=message):
        Run(run.path).export(tmp_path / "out")
    merges = [row for row in rows if row["kind"] == "merge" and row["state"] == "complete"]
    assert best_merge(run, "nex").trial == max(merges, key=lambda row: row["nex"])["trial"]
    assert best_merge(run, "entropy").trial == min(merges, key=lambda row: row["entropy"])["trial"]
    values = {row["trial"]: row["nex"] for row in merges}
    assert set(importances(run, values)) == set(run.find("0").parameters), "of the first objective"
    screen = CliRunner().invoke(app, ["watch", str(run.path), "--once"]).output
    assert "hypervolume over merges (-), now " in screen and "reference: the worst of all complete variants" in screen


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"objective": "nex"}, r"study: expected either objective or objectives, got both; .*--set study\.objective=n"),
        ({"direction": "minimize"}, "study: expected either direction or objectives, got both"),
        ({"objectives": {"nex": "auto"}}, r"study: expected objectives to name two or three measures, got 1; one is "),
        ({"objectives": dict.fromkeys(("nex", "entropy", "consensus", "finished"), "auto")}, "measures, got 4"),
        ({"objectives": {"nex": "auto", "entropi": "auto"}}, r"study\.objectives: unknown measure 'entropi'\. Did you"),
        ({"objectives": {"nex": "auto", "log_gap": "auto"}}, r"study\.objectives: measure 'log_gap' cannot be an obj"),
        ({"objectives": {"nex": "up", "entropy": "auto"}}, r"study\.objectives\.nex: expected 'auto', 'maximize' or "),
        ({"objectives": ["nex", "entropy"]}, r"study\.objectives: expected a mapping, got \[nex, entropy\]"),
        ({"objectives": {"nex": "auto", "consensus": "auto"}, "baselines": False},
         r"study\.objectives: consensus compares with base and parents"),
        ({"pruner": "wilcoxon", "block": 2}, r"study\.pruner: wilcoxon ends merges that are worse by one obj"),
        ({"objectives": {"nex": "auto", "self_consistency": "auto"}},
         r"study\.objectives: self_consistency requires generation\.samples of at least 4, got 1"),
    ],
)  # fmt: skip
def test_objectives_that_are_refused(toy_config, study, message):
    with pytest.raises(InputError, match=message) as error:
        search(toy_config, engine=FakeEngine(), study={"objectives": OBJECTIVES, **study})
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "study",
    [
        {"objectives": {"consensus": "auto", "entropy": "auto"}},
        {"constraints": {"entropy": "<= 1"}, "objective": "consensus"},
    ],
    ids=str,
)
def test_what_reads_activations_needs_them(toy_config, study):
    message = rf"activations\.capture: study\.{next(iter(study))} entropy is computed from activations"
    with pytest.raises(InputError, match=message):
        search(toy_config, engine=FakeEngine(), activations={"capture": "none"}, study=study)


def test_a_final_is_ranked_by_fronts_of_its_own(go, tmp_path):
    """Values from other prompts than those of the search, also for who is on the front."""
    rows, _ = go(5, prompts={"limit": 12}, final={"top": 3, "share": 0.5})
    final = [row for row in rows if row["stage"] == "final"]
    assert (
        final == rows[: len(final)] and final[0]["front"] == 1 and {row["stage"] for row in rows} == {"final", "search"}
    )
    run = RunFolder(tmp_path / "run")
    front = ", ".join(str(int(row["trial"])) for row in final if row["kind"] == "merge" and row["front"] == 1)
    with pytest.raises(InputError, match=rf"--trial \({front}\)"):
        best_merge(run)
    searched = [
        row for row in by_column(read_rows(run, final=False)) if row["kind"] == "merge" and row["state"] == "complete"
    ]
    assert len(volume_over(read_rows(run, final=False), run.objective).trials) == len(searched) > 3


def test_null_is_as_good_as_not_given(toy_config):
    study = {"objective": None, "direction": None, "objectives": OBJECTIVES}
    assert resolve_config(str(toy_config), {"study": study}).config.study.objectives == OBJECTIVES
    assert resolve_config(str(toy_config), {"study": {"objectives": None}}).config.study.objective == "nex"


def test_the_order_of_objectives_is_part_of_a_run(toy_config):
    search(toy_config, engine=FakeEngine(), study={"trials": 1, "objectives": OBJECTIVES})
    turned = dict(reversed(OBJECTIVES.items()))
    with pytest.raises(InputError, match=r"study\.objectives: was \['nex', 'entropy'\], is \['entropy', 'nex'\]"):
        search(toy_config, engine=FakeEngine(), study={"trials": 1, "objectives": turned})


def test_a_sampler_of_ones_own_may_be_one_for_several_objectives(toy_config, tmp_path):
    study = {"trials": 9, "objectives": OBJECTIVES, "constraints": {"mean_tokens": "<= 5"}}
    sampler = optuna.samplers.NSGAIISampler(seed=0, population_size=3)
    rows = by_column(
        run_search(resolve_config(str(toy_config), {"study": study}), engine=FakeEngine(), sampler=sampler)
    )
    told = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/run/study.db").trials
    assert {row["state"] for row in rows if row["kind"] == "merge"} == {"infeasible"}
    assert len({tuple(trial.params.values()) for trial in told}) == 9
    assert all(trial.constraints["mean_tokens"] == pytest.approx(0.2) and len(trial.values) == 2 for trial in told)


def test_a_merge_that_lacks_an_objective_is_no_value_for_the_sampler(toy_config, tmp_path, monkeypatch):
    from nex_merge.study import trial

    estimate = trial.estimate_new

    def forgets(pool, weights):
        found = estimate(pool, weights)
        return {name: item for name, item in found.items() if name != "entropy" or pool.variants[-1].trial != "0001"}

    monkeypatch.setattr(trial, "estimate_new", forgets)
    search(toy_config, engine=FakeEngine(), study={"trials": 3, "objectives": OBJECTIVES})
    told = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/run/study.db").trials
    assert [trial.state.name for trial in told] == ["COMPLETE", "FAIL", "COMPLETE"]
