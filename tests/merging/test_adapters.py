"""LoRA adapters as members of a family: merged once, with the bits that mergekit gives for `base+adapter`."""

import json
import shutil
import warnings
from pathlib import Path

import peft
import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nex_merge.checkpoints.adapters import RECORD, AdapterMember, other_base
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError
from nex_merge.merging import adapter_notes, merge_adapters, method_specs
from nex_merge.runs import files
from nex_merge.runs.export import export_trial
from nex_merge.runs.proof import checkpoint_digest
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.setup.resolve import resolve_config
from nex_merge.setup.search_space import load_space
from nex_merge.study import rehearsal
from tests.checkpoints.conftest import edit
from tests.conftest import make_toy, toy_settings
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
    run = RunFolder(tmp_path / "run")
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
    assert made.is_dir() and set(engine.resident.tensors) == set(load_file(made / "model.safetensors"))
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
    from nex_merge.inspect.models import find_model
    from nex_merge.setup.families import donor_folder

    path = tmp_path / "family.yaml"
    path.write_text(yaml.safe_dump({**family(toy, adapter), "config": "a"}))
    assert donor_folder(str(path)) == toy["base"], "the adapter has no tokenizer of its own"
    (adapter / "tokenizer.json").write_bytes((toy["base"] / "tokenizer.json").read_bytes())
    assert donor_folder(str(path)) == adapter
    found = find_model("a", str(path), "--from")
    assert found == open_family(str(path), None).folders["a"] and (found / "model.safetensors").is_file()


LORA = {"r": 2, "lora_alpha": 8}


def trained(base, folder, config, change=lambda key: key):
    """An adapter that peft saved, with other weights than it began with; `change` renames tensors or drops them."""
    torch.manual_seed(7)
    adapted = peft.get_peft_model(load(base), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    kept = {change(key): value for key, value in load_file(path).items() if change(key)}
    save_file(kept, path, {"format": "pt"})
    return folder


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="session")
def untied(tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("untied") / "base", 0, tie_word_embeddings=False)


def merged(base, adapter):
    opened = open_family({"base": str(base), "models": {"a": {"path": "base", "adapter": str(adapter)}}}, None)
    merge_adapters(opened.adapters, opened.folders)
    return opened


@pytest.mark.parametrize(
    ("tied", "config"),
    [
        (True, peft.LoraConfig(**LORA, target_modules=["q_proj", "down_proj"], use_dora=True)),
        (True, peft.LoraConfig(**LORA, target_modules=["q_proj"], use_rslora=True, modules_to_save=["norm"])),
        (True, peft.LoraConfig(**LORA, target_modules=["q_proj", "v_proj"], rank_pattern={"layers.0.+q_proj": 3},
                               alpha_pattern={"v_proj": 32})),
        (True, peft.LoraConfig(**LORA, target_modules=["q_proj"], trainable_token_indices=[100, 101])),
        (True, peft.IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"])),
        (False, peft.LoraConfig(**LORA, target_modules=["embed_tokens", "lm_head"])),
        (False, peft.LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    ],
    ids=["dora", "rslora", "patterns", "tokens", "ia3", "untied", "saved"],
)  # fmt: skip
def test_a_merged_adapter_answers_as_peft_does(toy, untied, tmp_path, tied, config):
    base = toy["base"] if tied else untied
    folder = trained(base, tmp_path / "adapter", config)
    ids = torch.tensor([[100, 5, 17, 101, 33]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = load(base)(ids).logits
        expected = peft.PeftModel.from_pretrained(load(base), folder).eval()(ids).logits
        found = load(merged(base, folder).folders["a"])(ids).logits
    off, moved = ((other - expected).abs().max() for other in (found, before))
    assert off < 0.03 * expected.abs().max() and off < moved / 4, "as far as bfloat16 can hold it"


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, "embed_tokens and lm_head"),
    ],
    ids=["embeddings", "head", "saved", "both"],
)
def test_embeddings_that_the_output_layer_is_tied_to_cannot_be_merged_apart(toy, tmp_path, config, layers):
    folder = trained(toy["base"], tmp_path / "adapter", peft.LoraConfig(**LORA, **config))
    with pytest.raises(InputError, match=rf"^a: the adapter {folder} trains {layers}, and .+ ties .+ Untie every memb"):
        merged(toy["base"], folder)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_way_out_of_tied_embeddings(toy, tmp_path):
    folder = trained(toy["base"], tmp_path / "adapter", peft.LoraConfig(**LORA, target_modules=["embed_tokens"]))
    base = Path(shutil.copytree(toy["base"], tmp_path / "base"))
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    edit(base / "config.json", tie_word_embeddings=False)
    assert FamilyEngine(merged(base, folder), RuntimeConfig())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda key: key.replace("model.layers.1", "model.language_model.layers.1"),
         r"has 4 tensors that find no place in .+: base_model\.model\.model\.language_model\.layers\.1"),
        (lambda key: key.removeprefix("base_model.model."), "has 8 tensors that find no place in"),
        (lambda key: key.replace("layers.1", "layers.7"),
         r"has 4 tensors that find no place in .+layers\.7.+and 1 more"),
        (lambda key: None if "layers.1.mlp.down_proj.lora_B" in key else key,
         r"lacks 1 tensor that its config asks for: base_model\.model\.model\.layers\.1\.mlp\.down_proj\.lora_B"),
    ],
    ids=["part", "all", "layer", "missing"],
)  # fmt: skip
def test_an_adapter_is_merged_in_whole_or_not_at_all(toy, tmp_path, change, reason):
    config = peft.LoraConfig(**LORA, target_modules=["q_proj", "down_proj"])
    folder = trained(toy["base"], tmp_path / "adapter", config, change)
    with pytest.raises(InputError, match=rf"^a: the adapter .+ {reason}.+Merged in part, it would be another model"):
        merged(toy["base"], folder)


def test_an_adapter_with_more_tokens_than_its_base(toy, tmp_path):
    larger = make_toy(tmp_path / "larger", 0, vocab_size=192)
    config = peft.LoraConfig(**LORA, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    folder = trained(larger, tmp_path / "adapter", config)
    with pytest.raises(
        InputError, match=r"was trained with 192 tokens, and .+ has 190 .+resize_token_embeddings\(192\)"
    ):
        merged(toy["base"], folder)


def test_a_checkpoint_that_an_earlier_version_merged_is_held_against_peft(toy, adapter, tmp_path):
    family = merged(toy["base"], adapter)
    made = family.folders["a"]
    (made / RECORD).unlink()
    before = (made / "model.safetensors").read_bytes()
    merged(toy["base"], adapter)
    assert (made / "model.safetensors").read_bytes() == before and (made / RECORD).is_file()
    (made / RECORD).unlink()
    tensors = load_file(toy["base"] / "model.safetensors")
    save_file(tensors, made / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"^a: .+ is another model than the one that peft computes"):
        merged(toy["base"], adapter)


def test_what_peft_warns_of_and_another_base_are_said(toy, adapter):
    edit(adapter / "adapter_config.json", of_tomorrow=1)
    family = merged(toy["base"], adapter)
    warned, other = adapter_notes(family.adapters, family.folders)
    assert warned.startswith("a: adapter: peft: Unexpected keyword arguments ['of_tomorrow']")
    assert other.startswith("a: adapter: trained on somewhere/else (adapter_config.json: base_model_name_or_path)")


@pytest.mark.parametrize(
    ("named", "same"),
    [
        ("{base}", True), ("{a}", False), ("{copy}", True), ("owner/Base", True), ("/gone/base/", True), (None, True),
        ("owner/base-v2", False),
    ],
)  # fmt: skip
def test_which_base_an_adapter_was_trained_on(toy, adapter, tmp_path, named, same):
    places = {**toy, "copy": shutil.copytree(toy["base"], tmp_path / "copied")}
    edit(adapter / "adapter_config.json", base_model_name_or_path=named and named.format(**places))
    assert (other_base(AdapterMember(toy["base"], adapter)) is None) == same


def test_a_member_that_is_not_what_peft_computes_is_refused_in_the_rehearsal(toy, adapter, tmp_path, monkeypatch):
    settings = toy_settings(toy, tmp_path / "run") | {"family": family(toy, adapter)}
    resolved = resolve_config(settings)
    space = load_space(resolved.config.search_space, method_specs(), resolved.family.models)
    engine = FamilyEngine(resolved.family, RuntimeConfig())
    logits = rehearsal.adapter_logits
    notes = rehearsal.rehearse(engine, resolved, space).notes
    assert any("trained on somewhere/else" in note for note in notes)
    monkeypatch.setattr(rehearsal, "adapter_logits", lambda *given: 1.2 * logits(*given))
    monkeypatch.setattr(rehearsal, "read", lambda place: None)
    with pytest.raises(
        InputError, match=rf"^a: would not be scored as what it is: peft gives other logits for {adapter}"
    ):
        rehearsal.rehearse(engine, resolved, space)


def test_a_base_that_mergekit_could_not_load_as_it_is(toy, adapter, tmp_path):
    base = Path(shutil.copytree(toy["base"], tmp_path / "other"))
    edit(base / "config.json", attn_implementation="flash_attention_2", architectures=None)
    edit(base / "generation_config.json", temperature=0.5, do_sample=False)
    (base / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    again, plain = (load_file(merged(of, adapter).folders["a"] / "model.safetensors") for of in (base, toy["base"]))
    assert again.keys() == plain.keys() and all(torch.equal(again[key], plain[key]) for key in plain)


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
