"""What export says beside what it writes."""

import pytest

from nex_merge.errors import RunError
from nex_merge.runs import export
from nex_merge.runs.run import Run
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
        {"rank": place, "trial": trial, "kind": "merge" if trial == "7" else "parent"}
        for place, trial in enumerate(order, 1)
    ]
    failed = {"rank": None, "trial": "8", "kind": "merge"}
    monkeypatch.setattr(export, "read_rows", lambda run: [*rows, failed])
    assert export._above(tmp_path, "7") == told


@pytest.fixture
def half_run(toy_config, tmp_path):
    """A run that computes in half precision."""
    search(toy_config, runtime={"dtype": "bfloat16"}, study={"trials": 1})
    return Run(tmp_path / "run")


def test_in_half_precision_logits_are_compared_and_not_greedy_text(half_run, tmp_path, monkeypatch):
    from transformers import GenerationMixin

    def rounds_otherwise(self, ids, **kwargs):
        raise AssertionError("greedy text in half precision hangs on rounding")

    monkeypatch.setattr(GenerationMixin, "generate", rounds_otherwise)
    lines = list(export.export_trial(half_run, "a", tmp_path / "out"))
    assert any("the same logits for the first response of" in line and "bfloat16" in line for line in lines)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_in_half_precision_another_model_is_noticed(half_run, tmp_path, monkeypatch):
    load = export.AutoModelForCausalLM.from_pretrained

    def damaged(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.norm.weight.data *= 1.1
        return model

    monkeypatch.setattr(export.AutoModelForCausalLM, "from_pretrained", damaged)
    with pytest.raises(RunError, match="other logits than the scored model"):
        list(export.export_trial(half_run, "a", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
