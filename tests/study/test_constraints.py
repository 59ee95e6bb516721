"""Bounds that merges have to keep, and collapse, as the study and the leaderboard have them."""

import pytest
import yaml

from nex_merge.errors import InputError
from tests.conftest import without_hashes
from tests.engines.fakes import FakeEngine
from tests.searches import search, study_of


def test_a_collapsed_variant_ranks_below_every_sound_one_and_is_infeasible(toy_config, tmp_path, monkeypatch):
    from nex_merge.study import trial

    whole = trial.collapse
    calls = []

    def collapses_first(pool):
        calls.append(1)
        return (0.5, "planted") if len(calls) == 1 else (min(whole(pool)[0], -0.1), None)

    monkeypatch.setattr(trial, "collapse", collapses_first)
    rows, _ = search(toy_config)
    assert [row["trial"] for row in rows if row["state"] == "collapsed"] == ["0000"]
    assert rows[-1]["trial"] == "0000" and rows[-1]["reason"] == "planted" and rows[-1]["rank"] == 7
    told = study_of(tmp_path / "run").trials
    assert [trial.constraints["collapse"] > 0 for trial in told] == [True, False, False, False]


@pytest.mark.parametrize(("budget", "violation"), [(4.0, 0.5), (6.0, 0.0), (12.0, -0.5)])
def test_constraints_are_those_of_the_study(toy_config, tmp_path, budget, violation):
    """The fake answers everything with 6 tokens, as sound as those of base and parents."""
    constraints = {"finished": ">= 0.5", "mean_tokens": f"<= {budget}"}
    rows, _ = search(toy_config, engine=FakeEngine(), study={"constraints": constraints})
    merges = [row for row in rows if row["kind"] == "merge"]
    assert [row["violation"] for row in merges] == [violation] * 4
    reason = "study.constraints.mean_tokens: expected <= 4, got 6" if violation > 0 else None
    assert [row["reason"] for row in merges] == [reason] * 4
    assert {row["state"] for row in merges} == {"infeasible" if violation > 0 else "complete"}
    assert {row["state"] for row in rows if row["kind"] != "merge"} == {"complete"}, "constraints are for merges"
    told = {"collapse": -1.0, "finished": -1.0, "mean_tokens": violation}
    assert [trial.constraints for trial in study_of(tmp_path / "run").trials] == [told] * 4


def test_a_token_budget_of_earlier_versions_is_a_constraint(toy_config, tmp_path):
    """Also in a run folder of theirs, which the same search goes on with."""
    budget = {"trials": 1, "max_mean_tokens": 4.0}
    rows, _ = search(toy_config, engine=FakeEngine(), study=budget)
    assert rows[-1]["reason"] == "study.constraints.mean_tokens: expected <= 4, got 6"
    path = tmp_path / "run" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    assert saved["study"].pop("constraints") == {"mean_tokens": "<= 4"} and "max_mean_tokens" not in saved["study"]
    path.write_text(yaml.safe_dump({**saved, "study": {**saved["study"], "max_mean_tokens": 4.0}}))
    without_hashes(tmp_path / "run")
    for study in (budget, {"constraints": {"mean_tokens": "<=4"}}):
        rows, recorder = search(toy_config, engine=FakeEngine(), study={**study, "trials": 1})
        assert recorder.ended == [] and len(rows) == 4
    with pytest.raises(InputError, match=r"study\.constraints\.mean_tokens: was '<= 4', is '<= 5'"):
        search(toy_config, engine=FakeEngine(), study={"trials": 1, "max_mean_tokens": 5})


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"constraints": {"finishd": ">= 1"}}, r"study\.constraints: unknown measure 'finishd'\. Did you mean 'finish"),
        ({"constraints": {"finished": ">= 2"}}, r"finished: no merge can keep '>= 2', as finished is between 0 and 1"),
        ({"constraints": {"entropy": "<= -1"}}, r"entropy: no merge can keep '<= -1', as entropy is never below 0"),
        ({"constraints": {"finished": ">= 1"}, "max_mean_tokens": 800},
         r"study: expected either constraints or max_mean_tokens.* got both; write constraints\.mean_tokens: '<= 800'"),
        ({"max_mean_tokens": "many"}, r"study: expected max_mean_tokens to be a positive number, got 'many'"),
        ({"constraints": {"consensus": ">= 0.5"}, "baselines": False}, r"study\.constraints: consensus compares with"),
    ],
)  # fmt: skip
def test_constraints_that_are_refused(toy_config, study, message):
    with pytest.raises(InputError, match=message) as error:
        search(toy_config, engine=FakeEngine(), study=study)
    assert len(str(error.value).splitlines()) == 1


def test_that_collapse_cannot_be_told_is_said_once(toy_config):
    """The toy family is not trained: its members are mostly cut."""
    said = []
    for trials in (0, 1):
        _, recorder = search(toy_config, study={"trials": trials})
        said.append([note for note in recorder.notes if "can't be told" in note])
    ((note,), again) = said
    assert "cut at max_new_tokens" in note and note.endswith("; raise generation.max_new_tokens") and not again
    _, recorder = search(toy_config, fresh=True, engine=FakeEngine(), study={"trials": 0})
    assert not any("can't be told" in note for note in recorder.notes), "the fake finishes"


def test_a_merge_that_collapsed_and_is_beyond_a_constraint_has_both_reasons(toy_config, monkeypatch):
    from nex_merge.study import trial

    monkeypatch.setattr(trial, "collapse", lambda pool: (0.7, "planted"))
    rows, _ = search(toy_config, engine=FakeEngine(), study={"constraints": {"mean_tokens": "<= 4"}})
    merges = [(row["state"], row["reason"], row["violation"]) for row in rows if row["kind"] == "merge"]
    reason = "planted; study.constraints.mean_tokens: expected <= 4, got 6"
    assert merges == [("collapsed", reason, 0.7)] * 4
