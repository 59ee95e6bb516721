"""Trials that fail or repeat another, and what ends a run instead."""

import pytest
import torch

from nex_merge.errors import RunError, TrialError
from tests.searches import Faulty, search, with_space


def test_identical_recipes_are_evaluated_once(toy_config, tmp_path):
    space = {"methods": ["task_arithmetic"], "parameters": {"weight": {"choices": [0.5]}}}
    rows, _ = search(with_space(toy_config, space))
    states = {row["trial"]: (row["state"], row["reason"], row["nex"]) for row in rows if row["kind"] == "merge"}
    nex = states["0000"][2]
    assert states["0000"] == ("complete", None, nex)
    assert states["0003"] == ("duplicate", "the same recipe as trial 0", nex)
    assert [row["rank"] for row in rows if row["state"] == "duplicate"] == [None] * 3


def test_stochastic_recipes_are_not_duplicates(toy_config):
    space = {"methods": ["dare_linear"], "parameters": {"weight": {"choices": [0.5]}, "density": 0.5}}
    rows, _ = search(with_space(toy_config, space))
    assert "duplicate" not in {row["state"] for row in rows}
    assert len({row["nex"] for row in rows if row["kind"] == "merge"}) > 1


def test_a_failed_trial_has_its_reason_and_the_search_goes_on(toy_config, tmp_path):
    # Weights of 1 and -1 sum to 0, which makes a normalized average infinite.
    space = {
        "methods": ["linear"],
        "parameters": {"weight": {"choices": [1.0, 0.5]}},
        "models": {"b": {"weight": {"choices": [-1.0, 1.0]}}},
    }
    rows, _ = search(with_space(toy_config, space), study={"trials": 8})
    failed = [row for row in rows if row["state"] == "failed"]
    assert failed and all("not finite" in row["reason"] for row in failed)
    assert all(row["rank"] is None and row["nex"] is None for row in failed)
    assert any(row["state"] == "complete" and row["kind"] == "merge" for row in rows)


def test_what_a_recipe_causes_is_a_failed_trial(toy_config):
    rows, _ = search(toy_config, engine=Faulty(TrialError("planted")))
    assert [row["reason"] for row in rows if row["state"] == "failed"] == ["planted"]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes"), KeyError("w"), OSError(5, "Input/output error"), MemoryError(),
     torch.AcceleratorError("device-side assert triggered")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_anything_else_ends_the_run_with_its_traceback_in_a_log(toy_config, tmp_path, error):
    engine = Faulty(error)
    with pytest.raises(RunError, match=rf"^trial 1: {type(error).__name__}: .* traceback in .*error\.log"):
        search(toy_config, engine=engine)
    log = (tmp_path / "run" / "error.log").read_text()
    assert log.startswith("Traceback") and "Faulty" not in log.splitlines()[-1] and type(error).__name__ in log
    rows, recorder = search(toy_config, engine=engine)
    assert {row["state"] for row in rows} == {"complete"} and recorder.ended == ["0001", "0002", "0003"]
