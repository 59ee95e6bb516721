"""Whole searches over the toy family: results on disk, resuming after kill -9, duplicates, failures, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
import yaml

from nex_merge import interrupts
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.study import optuna_study
from tests.conftest import without_hashes
from tests.engines.fakes import FakeEngine
from tests.searches import search, with_space, without_times

TRIALS = ["base", "a", "b", "0000", "0001", "0002", "0003"]


@pytest.fixture
def toy_rows(toy_run):
    """The leaderboard of the search that `toy_config` describes, done once for all tests that compare with it."""
    return without_times(read_rows(RunFolder(toy_run)))


def study_of(run: Path) -> optuna.Study:
    """The only study in a run folder's database."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{run}/study.db")


def test_a_search_of_four_trials(toy_run, toy_rows):
    rows, run = toy_rows, toy_run
    assert [result.trial for result in RunFolder(run).results()] == TRIALS
    assert [row["rank"] for row in rows] == list(range(1, 8))
    assert sorted((row["nex"] for row in rows), reverse=True) == [row["nex"] for row in rows]
    for trial in TRIALS:
        folder = run / "trials" / trial
        assert {path.name for path in folder.iterdir()} == {
            "recipe.yaml",
            "responses.jsonl",
            "cache",
            "credit",
            "result.json",
        }
        result = RunFolder(run).result(trial)
        assert set(result.seconds) == {"merge", "generate", "capture", "score"}
        assert result.score.responses == 4
    first = yaml.safe_load((run / "trials" / "0000" / "recipe.yaml").read_text())
    assert [model["parameters"]["weight"] for model in first["models"]] == [0.5, 0.5], "equal weights come first"
    assert not list(run.rglob("*.safetensors")), "no trial writes weights"
    saved = json.loads((run / "leaderboard.json").read_text())
    assert [row["trial"] for row in saved] == [row["trial"] for row in rows]
    opened = study_of(run)
    assert [trial.value for trial in opened.trials] == [RunFolder(run).result(f"000{i}").score.nex for i in range(4)]


def test_finished_trials_are_not_recomputed_and_a_run_can_be_prolonged(toy_config, tmp_path, monkeypatch):
    long, _ = search(toy_config, study={"trials": 6}, output=str(tmp_path / "long"))
    search(toy_config, study={"trials": 3})
    rows, watcher = search(toy_config, study={"trials": 6})
    assert watcher.ended == ["0003", "0004", "0005"]
    assert rows == long
    again, watcher = search(toy_config, study={"trials": 6})
    assert again == rows and watcher.ended == []


@pytest.mark.parametrize("trials", [pytest.param(["0001"], marks=pytest.mark.quick), ["a", "0002"]], ids="+".join)
def test_killed_in_the_middle_of_a_trial_and_resumed(toy_config, toy_rows, tmp_path, trials):
    command = [sys.executable, "-m", "nex_merge", "search", str(toy_config)]
    for trial in trials:
        killed_in(command, tmp_path / "run" / "trials" / trial)
    rows, watcher = search(toy_config)
    assert watcher.ended == TRIALS[TRIALS.index(trials[-1]) :]
    assert rows == toy_rows
    opened = study_of(tmp_path / "run")
    assert [trial.state.name for trial in opened.trials] == ["COMPLETE"] * 4


def killed_in(command, folder):
    """Start the command and kill it, with SIGKILL, while it is at work on the trial in `folder`."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "recipe.yaml").exists():
        assert process.poll() is None, "the search ended before the trial began"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "result.json").exists(), "killed too late to be in the middle of the trial"


def test_killed_between_result_and_tell(toy_config, toy_rows, monkeypatch):
    tell = optuna_study._tell

    def dies(opened, trial, *rest):
        if trial.number == 2:
            raise KeyboardInterrupt
        tell(opened, trial, *rest)

    monkeypatch.setattr(optuna_study, "_tell", dies)
    with pytest.raises(KeyboardInterrupt):
        search(toy_config)
    monkeypatch.setattr(optuna_study, "_tell", tell)
    rows, watcher = search(toy_config)
    assert rows == toy_rows and watcher.ended == ["0003"], "trial 2 was done, and only the study had not heard of it"


@pytest.mark.parametrize(("key", "value"), [("seed", 1), ("sampler", "random")])
def test_the_seed_and_the_sampler_decide(toy_config, tmp_path, key, value):
    first, other = (
        search(toy_config, engine=FakeEngine(), study={"trials": 8, **changed}, output=str(tmp_path / name))[0]
        for name, changed in (("first", {}), ("other", {key: value}))
    )

    def drawn(rows):
        return {row["trial"]: row["p.weight.a"] for row in rows if row["kind"] == "merge"}

    first, other = drawn(first), drawn(other)
    same = {trial for trial, weight in first.items() if weight == other[trial]}
    assert same == {"0000", "0001", "0002"}, "what people try first, whatever the seed and the sampler"


def test_the_order_of_keys_does_not_matter(toy_config, toy_rows):
    data = yaml.safe_load(toy_config.read_text())

    def backwards(item):
        return {key: backwards(item[key]) for key in reversed(item)} if isinstance(item, dict) else item

    turned = backwards(data)
    turned["family"]["models"] = data["family"]["models"]  # their order is that of the recipe's models
    toy_config.write_text(yaml.safe_dump(turned, sort_keys=False))
    rows, _ = search(toy_config)
    assert rows == toy_rows


def test_batch_size_does_not_matter(toy_config, toy_rows):
    rows, _ = search(toy_config, generation={"batch_tokens": 1})
    assert rows == toy_rows


def test_answers_of_members_and_earlier_merges_are_drafts_and_change_nothing(
    toy_config, toy_rows, tmp_path, monkeypatch
):
    from nex_merge.engines.transformers import FamilyEngine

    seen = []
    answer = FamilyEngine.answer

    def without(self, prompts, config, drafts=(), notify=lambda tokens: None, only=None):
        seen.append(len(drafts) // len(prompts))
        return answer(self, prompts, config, (), notify, only)

    monkeypatch.setattr(FamilyEngine, "answer", without)
    assert search(toy_config)[0] == toy_rows
    assert seen[-7:] == [0, 1, 2, 3, 4, 5, 6], "after the rehearsal, if any: base, a and b, then four merges"
    # The first merge has nothing to be drafted from without base and parents.
    assert len(search(toy_config, output=str(tmp_path / "alone"), study={"trials": 2, "baselines": False})[0]) == 2


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


class Faulty(FakeEngine):
    """Raises an error at the fifth answer, once."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def answer(self, *args, **kwargs):
        answers = super().answer(*args, **kwargs)
        if self.answered == 5:
            raise self.error
        return answers


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


def test_an_interrupted_search_ranks_what_is_done(toy_config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(toy_config, engine=Faulty(KeyboardInterrupt()))
    assert [row["trial"] for row in json.loads((tmp_path / "run" / "leaderboard.json").read_text())]
    assert not (tmp_path / "run" / "scores.json").exists(), "nothing slow stands between Ctrl-C and the end"


@pytest.mark.parametrize("error", [None, TrialError("planted"), RuntimeError("planted")])
def test_nothing_is_kept_of_what_an_interrupt_got_lost_in(toy_config, tmp_path, monkeypatch, error):
    """A library swallowed it, or made another error of it, in the fifth answer."""

    class Swallowing(Faulty):
        def answer(self, *args, **kwargs):
            if self.answered == 4:
                interrupts._now.number = signal.SIGINT
            return super().answer(*args, **kwargs) if self.error else FakeEngine.answer(self, *args, **kwargs)

    monkeypatch.setattr(interrupts, "_now", interrupts._State())
    engine = Swallowing(error)
    with pytest.raises((interrupts.Interrupted, RuntimeError)):
        search(toy_config, engine=engine)
    run = tmp_path / "run"
    assert [result.trial for result in RunFolder(run).results()] == ["base", "a", "b", "0000"]
    assert not (run / "trials" / "0001" / "responses.jsonl").exists() and not (run / "error.log").exists()
    assert "0000" in (run / "leaderboard.csv").read_text()
    monkeypatch.setattr(interrupts, "_now", interrupts._State())
    _, recorder = search(toy_config, engine=engine)
    assert recorder.ended == ["0001", "0002", "0003"]


def test_an_engine_of_ones_own_is_all_that_a_search_needs(toy_config, tmp_path):
    engine = FakeEngine()
    rows, recorder = search(toy_config, engine=engine)
    assert recorder.ended == TRIALS and len(rows) == 7
    assert engine.answered == engine.captured == 7
    assert engine.drafts == [0, 4, 8, 12, 16, 20, 24]


def test_pool_scores_everyone_under_the_same_weights(toy_config, toy_rows, tmp_path):
    pooled, _ = search(toy_config, nex={"calibration": "pool"})
    assert {row["trial"]: row["nex"] for row in pooled} != {row["trial"]: row["nex"] for row in toy_rows}
    longer, watcher = search(toy_config, nex={"calibration": "pool"}, study={"trials": 5})
    assert watcher.ended == ["0004"]
    fresh, _ = search(toy_config, nex={"calibration": "pool"}, study={"trials": 5}, output=str(tmp_path / "fresh"))
    assert longer == fresh


def test_another_configuration_is_refused_with_the_difference(toy_config, tmp_path):
    search(toy_config, study={"trials": 1})
    with pytest.raises(InputError) as error:
        search(toy_config, study={"trials": 1, "seed": 5}, nex={"rho": 0.9})
    assert "nex.rho: was 0.95, is 0.9" in str(error.value)
    assert "study.seed: was 0, is 5" in str(error.value)
    assert "--fresh" in str(error.value)
    _, watcher = search(toy_config, fresh=True, study={"trials": 1, "seed": 5}, nex={"rho": 0.9})
    assert f"renamed the earlier run to {tmp_path}/run.1" in watcher.notes
    assert (tmp_path / "run.1" / "trials" / "0000" / "result.json").exists()


def test_changed_prompts_are_another_configuration(toy_config, tmp_path):
    (tmp_path / "p.txt").write_text("pairs\nsigns\n")
    prompts = {"file": str(tmp_path / "p.txt")}
    search(toy_config, study={"trials": 0}, prompts=prompts)
    (tmp_path / "p.txt").write_text("pairs\npairs\n")
    with pytest.raises(InputError, match=r"prompts\.file: the content of .*p\.txt has changed"):
        search(toy_config, study={"trials": 0}, prompts=prompts)


def test_other_library_versions_are_noted(toy_config, tmp_path):
    search(toy_config, study={"trials": 0})
    path = tmp_path / "run" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["resolved"]["versions"]["torch"] = "1.0"
    path.write_text(yaml.safe_dump(saved))
    _, watcher = search(toy_config, study={"trials": 0})
    assert any("library version changed since this run was started: torch: was '1.0'" in note for note in watcher.notes)


def test_two_searches_in_one_folder(toy_config, tmp_path):
    from filelock import FileLock

    search(toy_config, study={"trials": 0})
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(RunError, match="another search is running"):
        search(toy_config, study={"trials": 0})


def test_a_filter_that_catches_nothing(toy_config):
    space = {"methods": ["ties"], "parameters": {"weight": 0.5}, "filters": ["self_atn"]}
    with pytest.raises(InputError, match=r"filters\.0: expected part of a tensor's name, got 'self_atn'"):
        search(with_space(toy_config, space))


def test_no_room_for_the_response(toy_config):
    with pytest.raises(InputError, match="the model's context is 512"):
        search(toy_config, generation={"max_new_tokens": 500})


def test_pool_shows_the_sampler_like_with_like(toy_config, tmp_path, monkeypatch):
    """Under a pool, earlier trials are rescored when it grows; stopping in between changes nothing."""
    from nex_merge.nex import calibration

    monkeypatch.setattr(calibration, "FIRST_POOL", 2)
    pool = {"calibration": "pool"}
    whole, _ = search(toy_config, nex=pool, study={"trials": 13}, output=str(tmp_path / "whole"))
    for stop in (3, 9, 13):
        rows, _ = search(toy_config, nex=pool, study={"trials": stop})
    assert rows == whole
    told = study_of(tmp_path / "run").trials
    final = {row["trial"]: row["nex"] for row in whole}
    assert any(trial.value != final[f"{trial.number:04d}"] for trial in told), "early scores were rescored"


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


def test_another_objective_with_its_direction(toy_config, tmp_path):
    rows, _ = search(toy_config, study={"objective": "entropy"})
    entropies = [row["entropy"] for row in rows if row["state"] == "complete"]
    assert entropies == sorted(entropies)
    opened = study_of(tmp_path / "run")
    assert opened.direction.name == "MINIMIZE"
    other = {"objective": "entropy", "direction": "maximize"}
    rows, _ = search(toy_config, study=other, output=str(tmp_path / "other"))
    entropies = [row["entropy"] for row in rows if row["state"] == "complete"]
    assert entropies == sorted(entropies, reverse=True)


def test_fresh_does_not_step_around_a_search_at_work(toy_config, tmp_path):
    from filelock import FileLock

    search(toy_config, study={"trials": 0})
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(RunError, match="another search is running"):
        search(toy_config, fresh=True, study={"trials": 0})
    assert (tmp_path / "run" / "trials" / "base" / "result.json").exists(), "nothing was moved aside"


def test_what_is_refused_moves_nothing_aside(toy_config, tmp_path):
    search(toy_config, study={"trials": 0})
    with pytest.raises(InputError, match="the model's context is 512"):
        search(toy_config, fresh=True, generation={"max_new_tokens": 500})
    assert not (tmp_path / "run.1").exists()


def test_changed_checkpoints_are_another_configuration(toy, toy_config, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(toy["a"], own)
    config = yaml.safe_load(toy_config.read_text())
    config["family"]["models"]["a"] = str(own)
    toy_config.write_text(yaml.safe_dump(config))
    search(toy_config, study={"trials": 0})
    shutil.copy(toy["b"] / "model.safetensors", own / "model.safetensors")
    with pytest.raises(InputError, match=r"family\.models\.a: the weights in .*own changed since"):
        search(toy_config, study={"trials": 0})


def test_runs_of_one_name_on_a_shared_storage_keep_apart(toy_config, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.db"
    both = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        rows, _ = search(toy_config, study={"trials": 2, "storage": shared}, output=str(tmp_path / folder / "x"))
        both.append(rows)
    assert both[0] == both[1]
    assert len(optuna.get_all_study_names(shared)) == 2


def test_a_trial_that_another_search_evaluates_is_left_alone(toy_config, tmp_path):
    """Two copies of a run on one storage: the second finds the first at work on trial 0."""
    shared = f"sqlite:///{tmp_path}/shared.db"

    class Looks(FakeEngine):
        def answer(self, *args, **kwargs):
            answers = super().answer(*args, **kwargs)
            if self.answered == 4:
                shutil.copytree(tmp_path / "run", tmp_path / "copy")
                with pytest.raises(
                    RunError, match=r"trial 0 of this study is being evaluated by another search \(proc"
                ):
                    search(toy_config, engine=FakeEngine(), study=study, output=str(tmp_path / "copy"))
            return answers

    study = {"trials": 2, "storage": shared}
    _, recorder = search(toy_config, engine=Looks(), study=study)
    assert recorder.ended == ["base", "a", "b", "0000", "0001"]


def test_a_renamed_run_goes_on_with_its_study(toy_config, tmp_path):
    from nex_merge.study.importances import importances

    whole, _ = search(toy_config, study={"trials": 5}, output=str(tmp_path / "whole"))
    search(toy_config, study={"trials": 3})
    (tmp_path / "run").rename(tmp_path / "renamed")
    rows, recorder = search(toy_config, study={"trials": 5}, output=str(tmp_path / "renamed"))
    assert rows == whole and recorder.ended == ["0003", "0004"]
    values = {row["trial"]: row["nex"] + i for i, row in enumerate(rows) if row["kind"] == "merge"}
    assert sum(importances(RunFolder(tmp_path / "renamed"), values).values()) == pytest.approx(1)


def test_one_prompt_gives_no_interval(toy_config, tmp_path):
    prompts = {"limit": 1}
    rows, _ = search(toy_config, prompts=prompts, study={"trials": 0})
    assert {row["nex_low"] for row in rows} == {row["beats_parent"] for row in rows} == {None}
    with pytest.raises(InputError, match="crossfit scores prompts under weights from other prompts"):
        search(toy_config, prompts=prompts, nex={"calibration": "crossfit"}, output=str(tmp_path / "other"))


def test_the_order_of_the_weights_is_kept_only_while_a_search_runs(toy_config, tmp_path):
    stale = tmp_path / "run" / "orders" / "left.ranks"
    search(toy_config)
    assert not stale.parent.exists()
    stale.parent.mkdir()
    stale.write_bytes(b"of another process")
    search(toy_config, study={"trials": 5})
    assert not stale.parent.exists()


def test_a_search_that_failed_before_its_first_trial_blocks_nothing(toy_config):
    with pytest.raises(InputError, match=r"study\.storage: expected a database URL"):
        search(toy_config, engine=FakeEngine(), study={"trials": 1, "storage": "foo"})
    rows, _ = search(toy_config, engine=FakeEngine(), study={"trials": 1})
    assert len(rows) == 4
