"""Tensors are the parameters of the model that the config describes, and mergekit knows them."""

import shutil

import pytest
import torch

from nex_merge.errors import InputError
from nex_merge.merging import member_notes, preflight
from tests.checkpoints.conftest import rewrite
from tests.conftest import make_toy
from tests.merging.conftest import merged

pytestmark = pytest.mark.quick


def head(change):
    return lambda tensors: tensors | {"lm_head.weight": change(tensors["model.embed_tokens.weight"].clone())}


def test_a_stored_head_under_tied_embeddings(toy, family):
    rewrite(family["a"], head(lambda embeddings: embeddings))
    assert "lm_head.weight" not in preflight(family, "base") and merged(family) == merged(toy)
    rewrite(family["a"], head(lambda embeddings: embeddings.float()))
    preflight(family, "base")
    rewrite(family["a"], head(lambda embeddings: embeddings + 0.5))
    with pytest.raises(
        InputError, match=r"a: .+lm_head\.weight differs from the embeddings.+false in .+ every member.+otherwise remov"
    ):
        preflight(family, "base")


def test_a_missing_head_of_untied_embeddings(tmp_path):
    folders = {
        name: make_toy(tmp_path / name, seed, tie_word_embeddings=False) for seed, name in enumerate(("base", "a"))
    }
    assert "lm_head.weight" in preflight(folders, "base")
    rewrite(folders["a"], lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    with pytest.raises(
        InputError, match=r"a: .+no tensor lm_head\.weight, though .+ false\. If .+ set tie_word_embeddin"
    ):
        preflight(folders, "base")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"},
            r"no tensor model\.norm\.weight, which Qwen",
        ),
        (lambda t: {k.removeprefix("model."): v for k, v in t.items()}, "saved without its head, as a bare backbone"),
        (lambda t: {f"_orig_mod.{k}": v for k, v in t.items()}, "names of tensors begin with '_orig_mod.'"),
        (
            lambda t: {f"base_model.model.{k}": v for k, v in t.items()},
            "names of tensors begin with 'base_model.model.'",
        ),
        (lambda t: t | {"model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(2)}, "adapter that was not merged into"),
        (lambda t: t | {"model.norm.weight": torch.ones(3)}, r"shape of model\.norm\.weight: .+ \[16\], got \[3\]"),
        (lambda t: t | {"model.embed_tokens.weight": torch.ones(192, 16)}, "vocab_size: 190, .+ 192 rows: .+resized"),
        (lambda t: t | {"model.layers.1.mlp.experts.0.up_proj.weight": torch.ones(2)}, "mixture-of-experts layers"),
        (lambda t: t | {"model.layers.1.mlp.gate.weight": torch.ones(2)}, "mixture-of-experts layers"),
    ],
)
def test_tensors_that_are_not_the_configs_model(family, change, message):
    rewrite(family["a"], change)
    with pytest.raises(InputError, match=f"a: .*{message}"):
        preflight(family, "base")


SMALL = {
    "vocab_size": 190, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2,
}  # fmt: skip


def other_family(toy, tmp_path, kind, **changes):
    """Base, a and b of another architecture, with the toy tokenizer."""
    import transformers

    folders = {}
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        config = getattr(transformers, kind)(**{**SMALL, "tie_word_embeddings": True, **changes})
        folders[name] = tmp_path / kind / name
        transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folders[name])
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(toy["base"] / file, folders[name] / file)
    return folders


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("LlamaConfig", {}), ("Qwen2Config", {}), ("Gemma2Config", {"head_dim": 8}),
        ("Gemma3TextConfig", {"head_dim": 8}), ("Phi3Config", {"tie_word_embeddings": False}),
        ("Olmo2Config", {}), ("GraniteConfig", {}),
    ],
)  # fmt: skip
def test_other_decoders_that_are_accepted_can_be_merged(toy, tmp_path, kind, changes):
    folders = other_family(toy, tmp_path, kind, **changes)
    preflight(folders, "base")
    assert member_notes(folders) == [] and merged(folders)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("Phi3Config", {}, r"mergekit expects the tensor lm_head\.weight of every Phi3ForCausalLM.+untie every member"),
        ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2}, "expected gated MLPs .+ got GPT2LMHeadModel"),
        ("OPTConfig", {"word_embed_proj_dim": 16}, "expected gated MLPs .+ got OPTForCausalLM"),
        ("Qwen3MoeConfig", {"num_experts": 2, "num_experts_per_tok": 1, "mlp_only_layers": [0]}, "mixture-of-experts"),
        ("Qwen3MoeConfig", {"num_experts": 2, "num_experts_per_tok": 1, "mlp_only_layers": []}, "mixture-of-experts"),
        ("MixtralConfig", {"num_local_experts": 2}, "mixture-of-experts"),
        ("CohereConfig", {}, "mergekit expects the tensor .+q_norm.+cannot merge this architecture"),
    ],
)
def test_other_decoders_that_no_merge_could_come_of_are_refused(toy, tmp_path, kind, changes, message):
    with pytest.raises(InputError, match=rf"base: .*{message}"):
        preflight(other_family(toy, tmp_path, kind, **changes), "base")
