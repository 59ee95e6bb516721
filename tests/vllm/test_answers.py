"""Weights in vLLM's own model, and its answers beside those of transformers: float32, on the CPU."""

import dataclasses

import numpy as np
import pytest
import torch

from nex_merge.engines import vllm_model
from nex_merge.engines.transformers import ModelAnswers
from nex_merge.engines.vllm_engine import VllmAnswers, VllmEngine
from nex_merge.engines.vllm_model import VllmModel
from nex_merge.errors import RunError, TrialError
from nex_merge.setup.config import GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.study.proposal import passthrough
from tests.conftest import make_toy
from tests.engines.test_contracts import GREEDY, PROMPTS, SAMPLED, family_of, variants

LONG = GenerationConfig(max_new_tokens=64)
NARROW = SAMPLED.model_copy(update={"top_k": 20, "top_p": 0.9, "max_new_tokens": 64})


@pytest.fixture(scope="module")
def engine(toy):
    return VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))


@pytest.fixture
def ids(engine):
    return engine.encode(PROMPTS * 3, PromptsConfig(file=""), 64)


@pytest.mark.parametrize("config", [LONG, NARROW], ids=["greedy", "sampled"])
def test_tokens_are_those_of_transformers_for_every_variant(toy, engine, ids, config):
    ours, found = ModelAnswers(engine.resident), []
    for recipe in variants(toy):
        engine.load(recipe)
        found.append(engine.answer(ids, config))
        assert found[-1] == ours.answer(ids, config)
    assert len({tuple(one.token_ids for one in responses) for responses in found}) == 3


def test_a_member_with_a_config_of_its_own_answers_under_it(tmp_path):
    other = {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}
    toy = {name: make_toy(tmp_path / name, seed, head_dim=32) for seed, name in enumerate(["base", "a"])}
    toy["b"] = make_toy(tmp_path / "b", 2, head_dim=32, **other)
    places = {name: str(folder) for name, folder in toy.items()}
    family = open_family({"base": places.pop("base"), "models": places, "config": "a"}, None)
    engine = VllmEngine(family, RuntimeConfig(engine="vllm", device="cpu"))
    ours, ids = ModelAnswers(engine.resident), engine.encode(PROMPTS, PromptsConfig(file=""), 64)
    for recipe in variants(toy):
        engine.load(recipe)
        found = engine.answer(ids, LONG)
        assert found == ours.answer(ids, LONG)
        if recipe.parameters.get("model") == "b":
            with engine.resident.under_the_donors_config():
                assert found != ours.answer(ids, LONG), "or the config makes no difference"


def test_without_the_reset_earlier_weights_answer(toy, monkeypatch):
    """Which is why `forget_prefixes` is not left to vLLM, which does no such thing when weights are replaced."""
    engine = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))
    # vLLM keeps whole blocks, of 128 tokens on the CPU.
    prompts = [[5 + (7 * i + 3 * k) % 150 for i in range(300)] for k in range(4)]
    first, second = variants(toy)[:2]
    engine.load(second)
    expected = engine.answer(prompts, GREEDY)
    engine.load(first)
    engine.answer(prompts, GREEDY)
    monkeypatch.setattr(VllmModel, "forget_prefixes", lambda self: None)
    engine.load(second)
    assert engine.answer(prompts, GREEDY) != expected
    monkeypatch.undo()
    assert engine.answer(prompts, GREEDY) == expected


def test_a_reset_that_fails_is_no_warning(toy, engine, ids, monkeypatch):
    engine.load(variants(toy)[0])
    engine.answer(ids, GREEDY)
    monkeypatch.setattr(engine.answers._model._llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(RunError, match="did not reset its prefix cache"):
        engine.answer(ids, GREEDY)


def test_the_output_layer_that_a_reload_leaves_behind_is_noticed(monkeypatch):
    """Tied to the embeddings, it is packed for the CPU when vLLM is built, and never again; small ones never are."""
    tied = vllm_model.config_for_vllm

    def as_the_checkpoint_has_it(model):
        config = tied(model)
        config.tie_word_embeddings = True
        return config

    monkeypatch.setattr(vllm_model, "config_for_vllm", as_the_checkpoint_has_it)
    replaced = VllmModel.replace_weights
    monkeypatch.setattr(
        VllmModel,
        "replace_weights",
        lambda self, weights: replaced(self, [(name, weight) for name, weight in weights if "lm_head" not in name]),
    )
    family = open_family("qwen3-tiny", ["pairs"])
    engine = VllmEngine(family, RuntimeConfig(engine="vllm", device="cpu"))
    engine.load(passthrough("parent", "pairs", family.references["pairs"], "bfloat16"))
    with pytest.raises(RunError, match="does not hold the weights that it was given"):
        engine.answer([[5, 6, 7]], GREEDY)


def test_weights_of_a_neighbour_are_noticed_in_half_precision_too(toy, monkeypatch):
    """By what vLLM keeps as it was given, since rounding hides them from the logits."""
    engine = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu", dtype="bfloat16"))
    merge = variants(toy)[2]
    models = [
        {**model, "parameters": {"weight": weight}}
        for model, weight in zip(merge.config["models"], (0.49, 0.51), strict=True)
    ]
    neighbour = dataclasses.replace(merge, config={**merge.config, "models": models})
    engine.load(merge)
    assert engine.answer([[5, 6, 7]], GREEDY)
    monkeypatch.setattr(VllmModel, "replace_weights", lambda self, weights: None)
    engine.load(neighbour)
    with pytest.raises(RunError, match=r"embed_tokens\.weight is another tensor there"):
        engine.answer([[5, 6, 7]], GREEDY)


def test_rounding_stays_far_below_what_tells_two_variants_apart(toy, engine):
    found = []
    text = [3 * i + 5 for i in range(50)]
    for recipe in variants(toy):
        engine.load(recipe)
        engine.answer([[5, 6, 7]], GREEDY)
        found.append(engine.answers._model.next_logits(text))
        own = engine.logits(text)[np.arange(len(text) - 1), text[1:]]
        assert abs(found[-1] - own).max() < 1e-5 * abs(own).max()
    assert min(abs(found[0] - found[1]).max(), abs(found[1] - found[2]).max()) > 0.1


def test_drafts_save_steps_and_change_nothing(toy, ids, monkeypatch):
    engine = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))
    engine.load(variants(toy)[0])
    responses = engine.answer(ids, LONG)
    steps = []
    once = engine.answers._model._llm.llm_engine.step
    monkeypatch.setattr(engine.answers._model._llm.llm_engine, "step", lambda: steps.append(1) or once())
    assert engine.answer(ids, LONG) == responses
    alone = len(steps)
    assert engine.answer(ids, LONG, responses) == responses
    assert len(steps) - alone < alone / 3


@pytest.mark.parametrize("config", [LONG, NARROW], ids=["greedy", "sampled"])
def test_tokens_that_rounding_may_have_decided_are_decided_by_the_resident_model(toy, ids, config, monkeypatch):
    """Shown with every token taken for one, and with a vLLM whose weights are coarser than they should be."""
    engine = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))
    monkeypatch.setattr("nex_merge.engines.vllm_engine.tolerance", lambda dtype, logits: 100.0)
    monkeypatch.setattr(VllmModel, "unlike", lambda self, weights: [])
    replaced = VllmModel.replace_weights
    monkeypatch.setattr(
        VllmModel, "replace_weights", lambda self, weights: replaced(self, [(name, coarse(w)) for name, w in weights])
    )
    engine.load(variants(toy)[0])
    expected = ModelAnswers(engine.resident).answer(ids, config)
    assert engine.answer(ids, config) != expected
    once = VllmAnswers._continued

    def all_unsure(self, model, texts, *others):
        found = once(self, model, texts, *others)
        return [
            (new, list(range(len(before), len(before) + len(new))))
            for (new, _), (_, before) in zip(found, texts, strict=True)
        ]

    monkeypatch.setattr(VllmAnswers, "_continued", all_unsure)
    counted = []
    assert engine.answer(ids, config, notify=counted.append) == expected
    assert sum(counted) == sum(len(one.token_ids) for one in expected)


def coarse(weight):
    return (weight * 16).round() / 16


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_logits_that_are_not_finite_are_a_fault_of_the_trial(toy, engine, ids, config):
    engine.load(variants(toy)[0])
    engine.answer(ids, config)

    def spoil(worker):
        worker.model_runner.model.model.norm.weight.data.fill_(torch.nan)

    engine.answers._model._llm.collective_rpc(spoil)
    with pytest.raises(TrialError, match="not finite"):
        engine.answer(ids, config)
    engine.load(variants(toy)[0])
    assert engine.answer(ids, config) == ModelAnswers(engine.resident).answer(ids, config)


@pytest.mark.parametrize("tokens", [1, 700, 3000])
def test_tokens_do_not_depend_on_how_many_are_answered_at_once(toy, engine, ids, tokens):
    fresh = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))
    for one in (engine, fresh):
        one.load(variants(toy)[2])
    narrow = LONG.model_copy(update={"batch_tokens": tokens})
    assert fresh.answer(ids, narrow) == engine.answer(ids, LONG)
    assert fresh.answers._model.size.tokens == max(tokens, 512)
