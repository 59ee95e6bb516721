"""What the members of a family must have in common, and what of their files is mended."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.errors import InputError
from nex_merge.merging import (
    check_distinct,
    generation_config,
    member_configs,
    member_notes,
    mergekit_config,
    method_specs,
    preflight,
    rounded_members,
    stored_dtype,
    weights_dtype,
)
from nex_merge.records import MergeRecipe
from tests.checkpoints.conftest import edit, rewrite, shard
from tests.merging.conftest import merged

pytestmark = pytest.mark.quick


def test_a_sound_family_needs_no_words(family):
    assert len(preflight(family, "base")) == 24 and member_notes(family) == []
    assert stored_tensors(family["a"]).keys() == preflight(family, "base").keys()


def test_everything_that_is_mended_or_ignored_is_said(family):
    edit(family["a"] / "config.json", quantization_config={"quant_method": "bitsandbytes"}, architectures=...)
    edit(family["a"] / "generation_config.json", temperature=0.9)
    (family["b"] / "consolidated.safetensors").write_bytes(b"x")
    (family["b"] / "adapter_config.json").write_text("{}")
    (family["b"] / "chat_template.jinja").write_text("{{ messages }}")
    rewrite(family["b"], lambda tensors: tensors | {"v_head.summary.weight": torch.ones(1, 16)})
    preflight(family, "base")
    assert member_notes(family) == [
        "a: config.json: quantization_config (bitsandbytes) dropped: the weights are stored in BF16",
        "a: config.json: architectures missing: Qwen3ForCausalLM taken from model_type",
        "a: generation_config.json: temperature: 0.9 dropped: a sampling value without do_sample: true",
        "b: 1 tensor ignored that Qwen3ForCausalLM has no parameter for, for example v_head.summary.weight",
        "b: chat template differs from base's; all variants are asked with the donor's",
        "b: adapter_config.json ignored: an adapter left beside full weights",
        "b: consolidated.safetensors ignored: weights are read from what model.safetensors or its index names",
    ]
    assert generation_config(family["a"]).temperature is None
    assert member_configs(family)["a"].architectures == ["Qwen3ForCausalLM"]


def test_a_family_with_mended_members_gives_the_same_merge(toy, family):
    edit(family["a"] / "config.json", architectures=..., quantization_config={"quant_method": "gptq"})
    edit(family["b"] / "config.json", architectures=["Qwen3Model"])
    shard(family["b"])
    (family["b"] / "model-00003-of-00003.safetensors").write_bytes(b"x")
    assert merged(family) == merged(toy)


def test_mergekit_is_told_the_architecture_and_paths_that_it_would_misread(family, tmp_path):
    edit(family["a"] / "config.json", architectures=...)
    plus = Path(shutil.copytree(family["b"], tmp_path / "c++@1" / "b"))
    config = {"base_model": str(family["base"]), "models": [{"model": str(family["a"])}, {"model": str(plus)}]}
    assert mergekit_config(config) == {
        "base_model": str(family["base"]),
        "models": [
            {"model": {"model": {"path": str(family["a"])}, "override_architecture": "Qwen3ForCausalLM"}},
            {"model": {"model": {"path": str(plus)}}},
        ],
    }
    adapter = {"models": [{"model": "you/base+you/adapter"}]}
    assert mergekit_config(adapter) == adapter


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rms_norm_eps": 0.5}, "rms_norm_eps: expected 1e-06 as in base, got 0.5"),
        ({"use_sliding_window": True, "sliding_window": 4}, "sliding_window: expected None as in base, got 4"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}, "rope_parameters: expected"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_parameters: expected"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu' as in base, got 'gelu'"),
    ],
)
def test_members_that_mean_different_models_need_a_named_donor(family, changes, key):
    edit(family["a"] / "config.json", **changes)
    with pytest.raises(InputError, match=rf"a: .*{key}.+`config: a`"):
        preflight(family, "base")
    preflight(family, "base", named=True)
    preflight(family, "a")


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": 4096, "use_sliding_window": False}, {"max_window_layers": 1}, {"attention_dropout": 0.1},
        {"initializer_range": 0.5}, {"max_position_embeddings": 64}, {"use_cache": False}, {"eos_token_id": [1, 2]},
        {"transformers_version": "4.51.0"}, {"dtype": "float16"}, {"torch_dtype": "float16"}, {"_name_or_path": "x"},
        {"unsloth_version": "2025"}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000}},
    ],
)  # fmt: skip
def test_harmless_differences_are_none(family, changes):
    edit(family["a"] / "config.json", **changes)
    preflight(family, "base")
    assert member_notes(family) == []


def test_tokenizers_are_compared_token_by_token(family):
    path = family["a"] / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"].append({"id": 190, "content": "<start>", "special": True})
    path.write_text(json.dumps(data))
    preflight(family, "base")
    assert member_notes(family) == [
        "a: tokenizer.json: 1 token only here, for example '<start>'",
        "a: tokenizer.json: 1 tokens beyond the 190 rows of the embeddings, for example '<start>' (190); prompts "
        "cannot use them",
    ]
    data["added_tokens"][-1]["id"] = 4
    path.write_text(json.dumps(data))
    with pytest.raises(
        InputError, match=r"a: cannot be merged with base: the vocabularies .+ id 4 is '</think>' in base"
    ):
        preflight(family, "base")


def test_a_damaged_file_names_the_member(family):
    (family["b"] / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"^b: .+/b/generation_config\.json: not valid JSON"):
        preflight(family, "base")


def test_one_checkpoint_under_two_names(toy, tmp_path):
    (tmp_path / "linked").symlink_to(toy["a"])
    with pytest.raises(InputError, match=r"c: the same folder as a .+ name every checkpoint once"):
        preflight({**toy, "c": tmp_path / "linked"}, "base")


def sampled(spec, folders):
    """A recipe of a method over all experts, the way a search writes it."""
    own = {p.name: 0.5 for p in spec.parameters.values() if p.per_model and p.required}
    shared = {p.name: 0.4 for p in spec.parameters.values() if not p.per_model and p.required}
    names = [name for name in folders if name != "base"]
    if spec.pairs:  # as a search does it, of the base and the only expert
        names = (names if len(names) > 1 or spec.names_base else ["base", *names])[:2]
    base = folders["base"] if spec.names_base else folders[names[0]] if spec.pairs else None
    config = {"merge_method": spec.name, "parameters": shared, "dtype": "float32", "out_dtype": "bfloat16"}
    config["models"] = [{"model": str(folders[name]), "parameters": own} for name in names]
    if base is not None:
        config["base_model"] = str(base)
    if spec.pairs and not spec.names_base:
        config["models"] = config["models"][1:]
    return MergeRecipe("merge", spec.name, config, 0)


@pytest.mark.parametrize("experts", [["a"], ["a", "b"], ["a", "base again"], ["a", "b", "base again"]])
@pytest.mark.parametrize("method", sorted(method_specs()))
def test_a_method_is_refused_where_mergekit_cannot_work_with_the_experts(toy, method, experts):
    spec = method_specs()[method]
    folders = {"base": toy["base"], **{name: toy.get(name, toy["base"]) for name in experts}}
    if spec.min_models > len(experts):
        refused = True  # by the search space
    else:
        try:
            check_distinct(folders, [spec])
            refused = False
        except InputError as error:
            assert f"{method} needs at least {spec.min_models} models besides the base; take base again out" in str(
                error
            )
            refused = True
    if spec.pairs and "base again" in experts:  # a pair of which one is the base
        folders = {"base": toy["base"], "a": toy["a"], "base again": toy["base"]}
    try:
        from nex_merge.merging.streamer import Streamer

        tensors = dict(Streamer().tensors(sampled(spec, folders)))
        works = len(tensors) == 24 and all(torch.isfinite(tensor).all() for tensor in tensors.values())
    except Exception:  # mergekit rejects a set of members in as many ways as it has methods
        works = False
    assert works is not refused


def test_the_base_as_an_expert_is_noted_where_it_works(toy):
    specs = method_specs()
    folders = {**toy, "same": toy["base"]}
    assert check_distinct(folders, [specs["linear"], specs["ties"]]) == [
        "same: the same folder as base: its task vector is zero"
    ]


def test_the_dtype_of_merged_weights_is_the_bases_or_the_familys(family):
    assert weights_dtype(preflight(family, "base")) == "bfloat16"
    assert weights_dtype(preflight(family, "base"), "float16") == "float16"
    assert rounded_members(family, "float32") == []
    assert len(rounded_members(family, "float16")) == 3
    rewrite(family["base"], lambda tensors: {name: tensor.double() for name, tensor in tensors.items()})
    assert rounded_members(family, "float32") == [
        "rounded: base is stored in float64, merged weights are stored in float32"
    ]
    with pytest.raises(InputError, match=r"expected weights stored as BF16, F16, F32, got F64; .+ `dtype: float32`"):
        stored_dtype(family["base"])
