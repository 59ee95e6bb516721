"""Whole searches over the toy family: results on disk, and what does and does not matter."""

import json

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.runs.run import RunFolder
from tests.engines.fakes import FakeEngine
from tests.searches import TRIALS, search, study_of


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
