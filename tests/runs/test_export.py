"""What export says beside what it writes."""

import shutil
from types import SimpleNamespace

import pytest
import yaml

from nex_merge.errors import InputError, RunError
from nex_merge.measures.estimates import Objective
from nex_merge.records import Verdict
from nex_merge.runs import export
from nex_merge.runs.run import Run
from tests.conftest import toy_settings
from tests.searches import search


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (["7", "a", "b"], ""),
        (["a", "7", "b"], "a ranks"),
        (["a", "b", "7", "base"], "a and b rank"),
        (["a", "b", "base", "7"], "a, b and base rank"),
    ],
)
def test_parents_that_rank_above_the_best_merge_are_named(tmp_path, monkeypatch, order, told):
    rows = [
        {
            "rank": place,
            "trial": trial,
            "kind": "merge" if trial == "7" else "parent",
            "nex": -place,
            "consensus": place,
        }
        for place, trial in enumerate(order, 1)
    ]
    failed = {"trial": "8", "kind": "merge", "nex": None, "consensus": None}
    monkeypatch.setattr(export, "read_rows", lambda run: [*rows, failed])
    run = SimpleNamespace(path=tmp_path, objective=Objective("nex", 1))
    see = f"above trial 7, the best merge; see: nex-merge leaderboard {tmp_path}"
    assert list(export._doubts(run, "7", "nex")) == ([f"note: {told} {see}"] if told else [])
    # By another measure, those that are better by it, here all that come after the merge.
    after = order[order.index("7") + 1 :]
    assert len(list(export._doubts(run, "7", "consensus"))) == bool(after)


def test_an_export_by_a_measure_whose_verdict_is_insufficient_says_so(tmp_path, monkeypatch):
    verdict = Verdict("insufficient", ("half of it is noise", "few prompts"), (), {})
    monkeypatch.setattr(export, "read_rows", lambda run: [])
    monkeypatch.setattr(export, "read_reliability", lambda path: SimpleNamespace(of={"nex": verdict}.get))
    run = SimpleNamespace(path=tmp_path, objective=Objective("consensus", 1))
    said = "note: the verdict on nex is insufficient: half of it is noise; few prompts"
    assert list(export._doubts(run, "7", "nex")) == [said] and list(export._doubts(run, "7", "consensus")) == []


@pytest.fixture
def half_run(toy_config, tmp_path):
    """A run that computes in half precision."""
    search(toy_config, runtime={"dtype": "bfloat16"}, study={"trials": 1})
    return Run(tmp_path / "run")


def test_in_half_precision_log_probabilities_are_compared_and_not_greedy_text(half_run, tmp_path, monkeypatch):
    from transformers import GenerationMixin

    def rounds_otherwise(self, ids, **kwargs):
        raise AssertionError("greedy text in half precision hangs on rounding")

    monkeypatch.setattr(GenerationMixin, "generate", rounds_otherwise)
    lines = list(export.export_trial(half_run, "a", tmp_path / "out"))
    said = (
        "it gives the tokens of the first 4 stored responses the same log-probability, within the rounding of bfloat16"
    )
    assert any(line.endswith(said) for line in lines)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_in_half_precision_another_model_is_noticed(half_run, tmp_path, monkeypatch):
    load = export.AutoModelForCausalLM.from_pretrained

    def damaged(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.norm.weight.data *= 1.1
        return model

    monkeypatch.setattr(export.AutoModelForCausalLM, "from_pretrained", damaged)
    with pytest.raises(RunError, match=r"the stored response to prompt \d has a mean log-probability that is off by"):
        list(export.export_trial(half_run, "a", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_in_float32_stored_answers_are_held_against_the_export_token_by_token(toy_run, tmp_path, monkeypatch):
    lines = list(export.export_trial(Run(toy_run), "a", tmp_path / "out"))
    assert any(line.endswith("it gives the first 4 stored responses again, token by token") for line in lines)
    load = export.AutoModelForCausalLM.from_pretrained

    def damaged(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.norm.weight.data *= -1
        return model

    monkeypatch.setattr(export.AutoModelForCausalLM, "from_pretrained", damaged)
    with pytest.raises(RunError, match="the stored response to prompt 1 would give another token"):
        list(export.export_trial(Run(toy_run), "a", tmp_path / "other"))


def test_a_config_that_changed_since_the_run_is_named_before_anything_is_merged(toy, toy_settings_copy, tmp_path):
    import json

    folders, settings = toy_settings_copy
    search(settings)
    path = folders["b"] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.5}))
    with pytest.raises(InputError, match=r"^b: config.json in .+ changed since the run was started"):
        next(export.export_trial(Run(tmp_path / "run"), "a", tmp_path / "out"))
    with pytest.raises(InputError, match=r"config\.json"):
        search(settings, study={"trials": 3})


@pytest.fixture
def toy_settings_copy(toy, tmp_path):
    folders = {name: shutil.copytree(folder, tmp_path / name) for name, folder in toy.items()}
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(toy_settings(folders, tmp_path / "run") | {"study": {"trials": 1}}))
    return folders, path
