"""Checkpoints as people bring them: refused alike by `validate` and `search` before any work, or used to the end.

Used means: the search runs, the merges are mergekit's, and an export loads and answers as what was scored.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from nex_merge.errors import InputError
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import best_merge
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.estimate import estimate
from tests.checkpoints.conftest import edit, rewrite, shard, write_index
from tests.conftest import toy_settings
from tests.searches import search
from toy.tokenizer import make_tokenizer

MEMBERS = ("base", "a", "b")


@pytest.fixture
def folders(toy, tmp_path) -> dict[str, Path]:
    """A base and two fine-tunes of it, near to it in weights, to be changed."""
    found = {name: Path(shutil.copytree(toy["base"], tmp_path / name)) for name in MEMBERS}
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        rewrite(found[name], lambda tensors: {key: value + 0.05 * torch.randn(()) for key, value in tensors.items()})
    return found


def settings_of(folders, **changes):
    return toy_settings(folders, folders["base"].parent / "run") | {"study": {"trials": 2}} | changes


def replaced(tensor, value):
    return lambda tensors: {**tensors, tensor: value(tensors[tensor])}


def every(folders, change, *names):
    for name in names or MEMBERS:
        change(folders[name])


DOWN, HEAD, EMBEDDINGS = "model.layers.1.mlp.down_proj.weight", "lm_head.weight", "model.embed_tokens.weight"


def _nan(folders):
    rewrite(folders["a"], replaced(DOWN, lambda weight: weight.index_fill(0, torch.tensor([0]), float("nan"))))


def _own_head(folders):
    rewrite(folders["a"], lambda tensors: {**tensors, HEAD: tensors[EMBEDDINGS] * 2})


def _linked(folders):
    shutil.rmtree(folders["b"])
    folders["b"].symlink_to(folders["a"])


def _fp8(folders):
    every(folders, lambda folder: rewrite(folder, replaced(DOWN, lambda weight: weight.to(torch.float8_e4m3fn))))


def _awq(folders):
    def pack(tensors):
        stem, rest = DOWN.removesuffix(".weight"), {name: part for name, part in tensors.items() if name != DOWN}
        return {**rest, f"{stem}.qweight": torch.zeros(4, 2, dtype=torch.int32), f"{stem}.scales": torch.ones(2)}

    every(folders, lambda folder: rewrite(folder, pack))


def _experts(folders):
    config = Qwen3MoeConfig(
        vocab_size=190, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8,
        mlp_only_layers=[0],
    )  # fmt: skip
    for name in MEMBERS:
        shutil.rmtree(folders[name])
        Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folders[name])
        make_tokenizer().save_pretrained(folders[name])


def _vision(folders):
    edit(folders["b"] / "config.json", model_type="qwen2_vl", vision_config={"depth": 1}, text_config={})


def _unused_token(folder, number=190):
    data = json.loads((folder / "tokenizer.json").read_text())
    added = {"id": number, "content": "<start>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"].append({**added, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(data))


def _tokens_beyond(folders):
    every(folders, _unused_token)
    template = "<start>{% for m in messages %}{{ m['content'] }}{% endfor %}"
    every(folders, lambda folder: (folder / "chat_template.jinja").write_text(template))


def _bare_adapter(folders):
    for path in folders["a"].iterdir():
        path.unlink()
    (folders["a"] / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, folders["a"] / "adapter_model.safetensors")


def _missing_shard(folders):
    shard(folders["a"])
    (folders["a"] / "model-00002-of-00002.safetensors").unlink()


def _wrong_index(folders):
    write_index(folders["a"], shard(folders["a"]) | {DOWN: "model-00001-of-00002.safetensors"})


def _wide(folders):
    def narrow(tensors):
        return {name: tensor.half() for name, tensor in tensors.items()}

    rewrite(folders["base"], narrow)
    rewrite(folders["a"], replaced(DOWN, lambda weight: weight * 1e6))


def _classifier(folders):
    edit(folders["a"] / "config.json", architectures=["Qwen3ForSequenceClassification"])


def _dangling(folders):
    weights = folders["a"] / "model.safetensors"
    weights.unlink()
    weights.symlink_to(folders["a"] / "gone")


REFUSED = {
    "a NaN in a parent": (_nan, r"^a: .+model\.safetensors: model\.layers\.1\.mlp\.down_proj\.weight has .+ NaN"),
    "an untied head under a tied config": (_own_head, r"^a: .+lm_head\.weight differs from the embeddings"),
    "one checkpoint under two names": (_linked, r"^b: the same folder as a .+ name every checkpoint once"),
    "fp8 codes": (_fp8, r"^base: .+ quantized .+ codes cannot be merged"),
    "AWQ codes": (_awq, r"^base: .+ quantized .+ codes cannot be merged"),
    "experts after a dense layer": (_experts, r"^base: .+ mixture-of-experts"),
    "a vision-language expert": (_vision, r"^b: .+ a model of more than text"),
    "a token beyond the embeddings": (_tokens_beyond, r"prompt 1: token '<start>' has id 190, and the embeddings"),
    "a bare adapter": (_bare_adapter, r"a: .+ LoRA adapter.+adapter: "),
    "a missing shard": (_missing_shard, r"a: .+model-00002-of-00002\.safetensors: no such file"),
    "an index that names the wrong shard": (_wrong_index, r"^a: .+model-00001-of-00002\.safetensors"),
    "values beyond float16": (_wide, r"^a: .+ beyond the range of float16 .+`dtype: bfloat16`"),
    "a classifier": (_classifier, r"^a: .+ a classifier or reward model"),
    "a link to nothing": (_dangling, r"a: .+model\.safetensors: a link whose target is gone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_validate_and_search_alike_before_any_work(folders, tmp_path, case):
    change, message = REFUSED[case]
    change(folders)
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(settings_of(folders)))
    said = []
    for attempt in (lambda: list(estimate(resolve_config(str(path)))), lambda: search(path)):
        with pytest.raises(InputError, match=message) as error:
            attempt()
        said.append(str(error.value))
    assert said[0] == said[1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["model_stock", "nuslerp"])
def test_the_base_named_as_an_expert_where_a_method_cannot_merge_it(folders, tmp_path, method):
    shutil.rmtree(folders["b"])
    folders["b"].symlink_to(folders["base"])
    space = {"methods": [method], "parameters": {"weight": {"low": 0.1, "high": 1.0}} if method == "nuslerp" else {}}
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(settings_of(folders, search_space=space)))
    for attempt in (lambda: list(estimate(resolve_config(str(path)))), lambda: search(path)):
        with pytest.raises(InputError, match=rf"b: the same folder as base .+ {method} needs at least"):
            attempt()


# Where what is brought works: what is said of it.


def _generation_config(folders):
    sampling = {"do_sample": False, "temperature": 0.9, "top_p": 0.6}
    every(folders, lambda folder: edit(folder / "generation_config.json", **sampling))


def _left_over_adapter(folders):
    (folders["a"] / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})
    )
    parts = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight": torch.randn(*shape)
        for layer in range(2)
        for part, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    save_file(parts, folders["a"] / "adapter_model.safetensors", {"format": "pt"})


def _consolidated(folders):
    save_file({"tok_embeddings.weight": torch.zeros(2, 2)}, folders["a"] / "consolidated.safetensors")


def _mixed_precision(folders):
    rewrite(folders["base"], lambda tensors: {name: tensor.float() for name, tensor in tensors.items()})
    rewrite(folders["a"], lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})


def _same_names(folders):
    for name in ("a", "b"):
        place = folders[name].parent / f"of_{name}" / "checkpoint-500"
        shutil.move(folders[name], place)
        folders[name] = place


USED = {
    "sampling values without do_sample": (_generation_config, "base: generation_config.json: temperature: 0.9 dropped"),
    "a left-over quantization_config": (
        lambda folders: edit(
            folders["a"] / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
        ),
        "a: config.json: quantization_config (bitsandbytes) dropped",
    ),
    "weights under a vendor's names as well": (_consolidated, "a: consolidated.safetensors ignored"),
    "a left-over adapter": (_left_over_adapter, "a: adapter_"),
    "no architectures": (
        lambda folders: edit(folders["a"] / "config.json", architectures=...),
        "a: config.json: architectures missing: Qwen3ForCausalLM taken from model_type",
    ),
    "a backbone's name": (
        lambda folders: edit(folders["b"] / "config.json", architectures=["Qwen3Model"]),
        "b: config.json: architectures: [Qwen3ForCausalLM] used instead of ['Qwen3Model']",
    ),
    "three precisions": (_mixed_precision, ""),
    "folders of one name": (_same_names, ""),
}


@pytest.mark.parametrize("case", USED)
def test_used_to_the_end(folders, tmp_path, case):
    change, note = USED[case]
    change(folders)
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(settings_of(folders)))
    _, recorder = search(path)
    assert any(line.startswith(note) for line in recorder.notes)
    run = RunFolder(tmp_path / "run")
    lines = list(export_trial(run, None, tmp_path / "best"))
    assert any("stored responses again, token by token" in line for line in lines)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "best", dtype=torch.float32)
    response = run.responses(best_merge(run).trial)[0]
    ids = torch.tensor([response.prompt_ids])
    made = model.generate(ids, max_new_tokens=len(response.token_ids), do_sample=False)[0, ids.shape[1] :].tolist()
    assert made == list(response.token_ids)
    if case == "folders of one name":
        card = (tmp_path / "best" / "README.md").read_text()
        assert "| `a` | a, a folder |" in card and "| `b` | b, a folder |" in card and "checkpoint-500" not in card


@pytest.mark.parametrize("case", ["no architectures", "three precisions"])
def test_such_merges_are_mergekits(folders, tmp_path, case):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    USED[case][0](folders)
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(settings_of(folders)))
    search(path)
    run = RunFolder(tmp_path / "run")
    result = run.find("1")
    list(export_trial(run, "1", tmp_path / "out"))
    recipe = yaml.safe_load((run.folder(result.trial) / "recipe.yaml").read_text())
    config = MergeConfiguration.model_validate(recipe)
    run_merge(config, str(tmp_path / "by"), MergeOptions(random_seed=result.seed, quiet=True))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "by"))
    theirs.pop(HEAD, None)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
