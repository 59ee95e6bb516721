"""LoRA adapters as members of a family: merged once, with the bits that mergekit gives for `base+adapter`."""

import json

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.export import checkpoint_digest, export_trial
from nex_merge.runs.run import Run
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.setup.resolve import resolve_config
from tests.conftest import toy_settings
from tests.searches import search


@pytest.fixture
def adapter(toy, tmp_path):
    """A LoRA adapter of rank 2 on the queries of both layers."""
    torch.manual_seed(3)
    folder = tmp_path / "adapter"
    folder.mkdir()
    parts = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight": torch.randn(*shape)
        for layer in range(2)
        for part, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    save_file(parts, folder / "adapter_model.safetensors", {"format": "pt"})
    described = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "somewhere/else", "r": 2,
        "lora_alpha": 4, "target_modules": ["q_proj"],
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def family(toy, adapter, path="base"):
    return {"base": str(toy["base"]), "models": {"a": {"path": path, "adapter": str(adapter)}, "b": str(toy["b"])}}


def test_a_search_over_an_adapter_writes_recipes_that_mergekit_merges_to_the_same_bits(toy, adapter, tmp_path):
    path = tmp_path / "search.yaml"
    settings = toy_settings(toy, tmp_path / "run") | {"family": family(toy, adapter), "study": {"trials": 1}}
    path.write_text(yaml.safe_dump(settings))
    search(path)
    run = Run(tmp_path / "run")
    text = (run.folder("0000") / files.RECIPE).read_text()
    assert f"{toy['base']}+{adapter}" in text and text.splitlines()[0].endswith("--lora-merge-cache DIR")
    result = run.find("0000")
    config = MergeConfiguration.model_validate(yaml.safe_load(text))
    options = MergeOptions(random_seed=result.seed, quiet=True, lora_merge_cache=str(tmp_path / "lora"))
    run_merge(config, str(tmp_path / "by_mergekit"), options)
    assert checkpoint_digest(tmp_path / "by_mergekit") == result.weights_sha256
    list(export_trial(run, "0000", tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- model: base+adapter\n" in card and str(tmp_path) not in card


def test_the_adapter_is_merged_once_and_again_where_it_or_its_base_changes(toy, adapter):
    opened = open_family(family(toy, adapter), None)
    made = opened.folders["a"]
    assert not made.exists(), "nothing is merged before it is needed"
    engine = FamilyEngine(opened, RuntimeConfig())
    assert made.is_dir() and set(engine.tensors) == set(load_file(made / "model.safetensors"))
    key = "model.layers.0.self_attn.q_proj.weight"
    parts = load_file(adapter / "adapter_model.safetensors")
    a, b = (parts[f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight"] for part in "AB")
    expected = load_file(toy["base"] / "model.safetensors")[key].float() + 2.0 * b @ a  # alpha / rank = 2
    assert torch.allclose(load_file(made / "model.safetensors")[key].float(), expected, rtol=1e-2, atol=1e-2)
    assert resolve_config(toy_settings(toy, adapter / "run") | {"family": family(toy, adapter)}).family == opened
    edited = json.loads((adapter / "adapter_config.json").read_text()) | {"lora_alpha": 8}
    (adapter / "adapter_config.json").write_text(json.dumps(edited))
    assert open_family(family(toy, adapter), None).folders["a"] != made
    assert open_family(family(toy, adapter, str(toy["b"])), None).folders["a"] != made


def test_an_adapter_as_a_model_of_other_commands(toy, adapter, tmp_path):
    from nex_merge.inspect.transfer.options import find_model
    from nex_merge.setup.families import donor_folder

    path = tmp_path / "family.yaml"
    path.write_text(yaml.safe_dump({**family(toy, adapter), "config": "a"}))
    assert donor_folder(str(path)) == toy["base"], "the adapter has no tokenizer of its own"
    (adapter / "tokenizer.json").write_bytes((toy["base"] / "tokenizer.json").read_bytes())
    assert donor_folder(str(path)) == adapter
    found = find_model("a", str(path), "--from")
    assert found == open_family(str(path), None).folders["a"] and (found / "model.safetensors").is_file()


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter(toy, adapter, file):
    (adapter / file).unlink()
    with pytest.raises(InputError, match=rf"a: adapter: expected a folder with {file}, got .+adapter, which has none"):
        open_family(family(toy, adapter), None)


def test_an_adapter_that_is_nowhere(toy, tmp_path):
    with pytest.raises(InputError, match=r"a: adapter: expected a folder or a hub id \(owner/name\), got '.+nothing'"):
        open_family(family(toy, tmp_path / "nothing"), None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_modules": ["no_such"]}, "no_such"),
        ({"r": 4}, "size mismatch|shape"),
        ({"peft_type": "NONE_SUCH"}, "NONE_SUCH"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_named(toy, adapter, changes, reason, tmp_path):
    edited = json.loads((adapter / "adapter_config.json").read_text()) | changes
    (adapter / "adapter_config.json").write_text(json.dumps(edited))
    with pytest.raises(InputError, match=rf"^a: the adapter .+ cannot be merged into .+: .*({reason})"):
        FamilyEngine(open_family(family(toy, adapter), None), RuntimeConfig())
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "nothing half made is left"


def test_an_adapter_without_weights_of_its_own(toy, adapter):
    (adapter / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    with pytest.raises(InputError, match=r"a: adapter: .+ PROMPT_TUNING changes no weights, so it cannot be merged"):
        open_family(family(toy, adapter), None)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"a: .+adapter_config\.json"):
        open_family(family(toy, adapter), None)


def test_without_a_cache_folder(toy, adapter, monkeypatch):
    from nex_merge.setup import families

    monkeypatch.setattr(families, "cache_folder", lambda: None)
    with pytest.raises(InputError, match="a merged adapter needs a cache folder; set XDG_CACHE_HOME"):
        open_family(family(toy, adapter), None)
