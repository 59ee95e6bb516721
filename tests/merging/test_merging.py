"""In-memory merges against what mergekit writes, for every method; preflight; rejected merges."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from optuna.samplers import RandomSampler
from safetensors import safe_open

from nex_merge.errors import InputError, TrialError
from nex_merge.merging import Merger, mergekit_plan, method_specs, preflight, rounded_members, weights_dtype
from nex_merge.records import MergeRecipe
from nex_merge.runs import files
from nex_merge.runs.proof import checkpoint_digest
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import passthrough, propose
from tests.conftest import make_toy

SPECS = method_specs()
METHODS = sorted(SPECS)


def sampled_recipe(toy, method, seed=7, **space):
    """A recipe with random values, gradients over depth and a filter."""
    import optuna

    taken = SPECS[method].parameters
    ranges = {"weight": {"low": 0.1, "high": 1.0}, "density": {"low": 0.3, "high": 0.7}, "t": {"low": 0.0, "high": 1.0}}
    parameters = {name: value for name, value in ranges.items() if name in taken}
    settings = {"methods": [method], "parameters": parameters, "layer_groups": 2, "filters": ["self_attn"], **space}
    trial = optuna.create_study(sampler=RandomSampler(seed=1)).ask()
    return propose(load_space(settings, SPECS, ["a", "b"]), toy, "bfloat16", trial, seed)


def test_every_method_of_the_registry_is_offered():
    from mergekit.merge_methods import registered_methods

    assert set(METHODS) == {method.spec.name for method in registered_methods()} - {"passthrough"}


@pytest.mark.parametrize("method", METHODS)
def test_tensors_equal_those_mergekit_writes(toy, tmp_path, method):
    recipe = sampled_recipe(toy, method)
    found = Merger(toy, "base", "cpu", torch.float32).load(recipe)
    config = MergeConfiguration.model_validate(dict(recipe.config))
    run_merge(config, str(tmp_path / "out"), MergeOptions(random_seed=recipe.seed, quiet=True))
    assert found == checkpoint_digest(tmp_path / "out")


@pytest.mark.parametrize("method", ["ties", "dare_ties", "linear", "slerp"])
def test_one_merger_over_float32_checkpoints_gives_every_variant_the_right_bits(toy, tmp_path, method):
    """A float32 checkpoint is memory-mapped: no variant may modify what the next one reads."""
    from safetensors.torch import load_file, save_file

    folders = {}
    for name, folder in toy.items():
        folders[name] = shutil.copytree(folder, tmp_path / name)
        wide = {key: tensor.float() for key, tensor in load_file(folder / "model.safetensors").items()}
        save_file(wide, folders[name] / "model.safetensors", {"format": "pt"})
    merger = Merger(folders, "base", "cpu", torch.float32)
    merger.keep_ranks(tmp_path / "orders")
    for seed in (1, 2):
        recipe = sampled_recipe(folders, method, seed)
        found = merger.load(recipe)
        out = tmp_path / f"out{seed}"
        config = MergeConfiguration.model_validate(dict(recipe.config))
        run_merge(config, str(out), MergeOptions(random_seed=seed, quiet=True))
        assert found == checkpoint_digest(out)


def test_the_files_are_those_that_mergekit_reads(toy, tmp_path):
    """Of shards, those that the index names; weights beside them are ignored."""
    folder = shutil.copytree(toy["a"], tmp_path / "a")
    shard = "model-00001-of-00001.safetensors"
    shutil.move(folder / "model.safetensors", folder / shard)
    shutil.copy(toy["b"] / "model.safetensors", folder / "consolidated.safetensors")
    with safe_open(folder / shard, "pt") as file:
        index = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    merger = Merger(toy, "base", "cpu", torch.float32)
    recipe = sampled_recipe(toy, "ties")
    expected = merger.load(recipe)
    assert Merger({**toy, "a": folder}, "base", "cpu", torch.float32).load(
        sampled_recipe({**toy, "a": folder}, "ties")
    ) == expected  # fmt: skip


def test_the_recipe_file_reproduces_the_variant(toy, tmp_path):
    """As a user would do it: recipe.yaml and the mergekit-yaml command, with the trial's seed."""
    recipe = sampled_recipe(toy, "dare_ties", seed=11)
    found = Merger(toy, "base", "cpu", torch.float32).load(recipe)
    files.write_recipe(tmp_path, recipe)
    code = "from mergekit.scripts.run_yaml import main; main()"
    command = [sys.executable, "-c", code, str(tmp_path / "recipe.yaml"), str(tmp_path / "out"), "--random-seed", "11"]
    subprocess.run(command, check=True, capture_output=True)
    assert found == checkpoint_digest(tmp_path / "out")


@pytest.mark.parametrize("method", [name for name in METHODS if SPECS[name].stochastic and name != "arcee_fusion"])
def test_stochastic_methods_depend_on_the_seed_alone(toy, method):
    merger = Merger(toy, "base", "cpu", torch.float32)
    first = merger.load(sampled_recipe(toy, method, seed=1))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert merger.load(sampled_recipe(toy, method, seed=1)) == first
    assert torch.equal(torch.get_rng_state(), state), "the global generator's state is restored"
    assert merger.load(sampled_recipe(toy, method, seed=2)) != first


def test_planning_in_memory_is_still_broken_in_mergekit(toy):
    """Once it works, `mergekit_plan` no longer needs what is private."""
    planner, _ = mergekit_plan.planned(sampled_recipe(toy, "linear").config, {})
    with pytest.raises(TypeError):
        planner.plan_in_memory()


def test_the_resident_model_holds_the_parent_exactly(toy):
    merger = Merger(toy, "base", "cpu", torch.float32)
    for name in ("a", "base"):
        assert merger.load(passthrough("parent", name, toy[name], "bfloat16")) == checkpoint_digest(toy[name])
    stored = dict(merger.model.named_parameters())
    assert merger.model.lm_head.weight is merger.model.model.embed_tokens.weight, "tied weights stay tied"
    from safetensors.torch import load_file

    for name, tensor in load_file(toy["base"] / "model.safetensors").items():
        assert torch.equal(stored[name], tensor.float())


def test_a_merge_that_is_not_finite_fails(toy):
    models = [{"model": str(toy[n]), "parameters": {"weight": w}} for n, w in (("a", 1.0), ("b", -1.0))]
    recipe = MergeRecipe("merge", "linear", {"merge_method": "linear", "models": models, "dtype": "float32"}, 0)
    with pytest.raises(TrialError, match="not finite"):
        Merger(toy, "base", "cpu", torch.float32).load(recipe)


def test_an_unwritten_parameter_fails(toy, monkeypatch):
    from nex_merge.merging.streamer import Streamer

    whole = Streamer.tensors
    monkeypatch.setattr(Streamer, "tensors", lambda self, recipe: list(whole(self, recipe))[:-1])
    with pytest.raises(TrialError, match="produced no tensor for 1 parameter of the model, for example "):
        Merger(toy, "base", "cpu", torch.float32).load(passthrough("base", "base", toy["base"], "bfloat16"))


def test_preflight_accepts_the_toy_family(toy):
    assert weights_dtype(preflight(toy, "base")) == "bfloat16"


def test_members_that_are_rounded_are_listed(toy, tmp_path):
    from safetensors.torch import load_file, save_file

    def copy_of(name, dtype, part=""):
        folder = shutil.copytree(toy[name], tmp_path / f"{name}-{dtype}{part}")
        tensors = load_file(folder / "model.safetensors")
        changed = {key: tensor.to(dtype) for key, tensor in tensors.items() if part in key}
        save_file({**tensors, **changed}, folder / "model.safetensors", {"format": "pt"})
        return folder, len(changed), len(tensors)

    assert rounded_members(toy) == []
    math, *_ = copy_of("a", torch.float32)
    code, norms, tensors = copy_of("b", torch.float32, "norm")
    half, *_ = copy_of("b", torch.float16)
    assert 0 < norms < tensors
    assert rounded_members({"base": toy["base"], "math": math, "code": code, "half": half}) == [
        "rounded: math is stored in float32, merged weights are stored in bfloat16",
        f"rounded: code has {norms} of {tensors} tensors in float32, merged weights are stored in bfloat16",
        "rounded: half is stored in float16, merged weights are stored in bfloat16",
    ]
    base, *_ = copy_of("base", torch.float32)
    assert rounded_members({"base": base, "a": toy["a"], "half": half}) == [], "float32 holds both exactly"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, "other: cannot be merged with base: num_hidden_layers: expected 2, got 3"),
        ({"intermediate_size": 48}, "intermediate_size: expected 32, got 48"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: expected True, got False"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}},
            r"other: rope_parameters: expected .+ as in base, got .+`config: other`",
        ),
    ],
)
def test_preflight_rejects(toy, tmp_path, changes, message):
    other = make_toy(tmp_path / "other", 5, **changes)
    with pytest.raises(InputError, match=message):
        preflight({"base": toy["base"], "other": other}, "base")


def test_merges_use_the_donors_rotary_settings_and_the_base_keeps_its_own(toy, tmp_path):
    changes = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}
    folders = {"base": toy["base"], "other": make_toy(tmp_path / "other", 5, **changes)}
    preflight(folders, "other")
    merger = Merger(folders, "other", "cpu", torch.float32)
    merger.load(passthrough("base", "base", toy["base"], "bfloat16"))
    of_base = merger.model.model.rotary_emb.inv_freq.clone()
    merger.load(passthrough("parent", "other", folders["other"], "bfloat16"))
    assert not torch.equal(of_base, merger.model.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("folder", ["c++/a", "a@main"])
def test_marks_of_mergekit_in_a_path_are_read_as_a_path(toy, tmp_path, folder):
    copied = shutil.copytree(toy["a"], tmp_path / folder)
    recipe = sampled_recipe(toy, "ties")
    there = sampled_recipe({**toy, "a": copied}, "ties")
    assert dict(there.config) == dict(recipe.config) or str(copied) in str(there.config)
    loaded = [Merger(folders, "base", "cpu", torch.float32).load(made) for folders, made in
              ((toy, recipe), ({**toy, "a": copied}, there))]  # fmt: skip
    assert loaded[0] == loaded[1]
