"""What export says beside what it writes."""

import json
import os
import re
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard
from mergekit.common import ModelReference
from mergekit.scripts.run_yaml import main as mergekit_yaml
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from nex_merge.checkpoints.adapters import AdapterMember
from nex_merge.engines import saving
from nex_merge.errors import InputError, RunError
from nex_merge.measures.estimates import Objective
from nex_merge.records import MergeRecipe, Verdict
from nex_merge.runs import card, export, proof, rounding
from nex_merge.runs.run import RunFolder
from nex_merge.setup.families import Family
from tests.conftest import ROOT, toy_settings
from tests.rows import row_of
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
        row_of(trial, "merge" if trial == "7" else "parent", rank=place, values={"nex": -place, "consensus": place})
        for place, trial in enumerate(order, 1)
    ]
    failed = row_of("8", state="failed")
    monkeypatch.setattr(export, "read_rows", lambda run: [*rows, failed])
    run = SimpleNamespace(path=tmp_path, objective=Objective("nex", 1))
    see = f"above trial 7, the best merge; see: nex-merge leaderboard {tmp_path}"
    assert list(export._doubts(run, "7", "nex")) == ([f"note: {told} {see}"] if told else [])
    # By another measure, those that are better by it, here all that come after the merge.
    after = order[order.index("7") + 1 :]
    assert len(list(export._doubts(run, "7", "consensus"))) == bool(after)
    # As an objective says, which need not be a measure's usual direction.
    run.objective = Objective("consensus", 1, (Objective("nex", -1),))
    assert len(list(export._doubts(run, "7", "nex"))) == bool(after)


def test_an_export_by_a_measure_whose_verdict_is_insufficient_says_so(tmp_path, monkeypatch):
    verdict = Verdict("insufficient", ("half of it is noise", "few prompts"), (), {})
    monkeypatch.setattr(export, "read_rows", lambda run: [])
    monkeypatch.setattr(export, "read_reliability", lambda path: SimpleNamespace(of={"nex": verdict}.get))
    run = SimpleNamespace(path=tmp_path, objective=Objective("consensus", 1))
    first = "so that it doesn't recommend trial 7, the first by it"
    said = f"note: the verdict on nex is insufficient, {first}: half of it is noise; few prompts"
    assert list(export._doubts(run, "7", "nex")) == [said] and list(export._doubts(run, "7", "consensus")) == []


@pytest.fixture
def half_run(toy_config, tmp_path):
    """A run that computes in half precision."""
    search(toy_config, runtime={"dtype": "bfloat16"}, study={"trials": 1})
    return RunFolder(tmp_path / "run")


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
    load = saving.AutoModelForCausalLM.from_pretrained

    def damaged(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.norm.weight.data *= 1.1
        return model

    monkeypatch.setattr(saving.AutoModelForCausalLM, "from_pretrained", damaged)
    with pytest.raises(RunError, match=r"the stored response to prompt \d has a mean log-probability that is off by"):
        list(export.export_trial(half_run, "a", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_in_float32_stored_answers_are_held_against_the_export_token_by_token(toy_run, tmp_path, monkeypatch):
    lines = list(export.export_trial(RunFolder(toy_run), "a", tmp_path / "out"))
    assert any(line.endswith("it gives the first 4 stored responses again, token by token") for line in lines)
    load = saving.AutoModelForCausalLM.from_pretrained

    def damaged(*args, **kwargs):
        model = load(*args, **kwargs)
        model.model.norm.weight.data *= -1
        return model

    monkeypatch.setattr(saving.AutoModelForCausalLM, "from_pretrained", damaged)
    with pytest.raises(RunError, match="the stored response to prompt 1 would give another token"):
        list(export.export_trial(RunFolder(toy_run), "a", tmp_path / "other"))


def test_a_config_that_changed_since_the_run_is_named_before_anything_is_merged(toy, toy_settings_copy, tmp_path):
    folders, settings = toy_settings_copy
    search(settings)
    path = folders["b"] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 0.5}))
    with pytest.raises(InputError, match=r"^b: config.json in .+ changed since the run was started"):
        next(export.export_trial(RunFolder(tmp_path / "run"), "a", tmp_path / "out"))
    with pytest.raises(InputError, match=r"config\.json"):
        search(settings, study={"trials": 3})


@pytest.fixture
def toy_settings_copy(toy, tmp_path):
    folders = {name: shutil.copytree(folder, tmp_path / name) for name, folder in toy.items()}
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(toy_settings(folders, tmp_path / "run") | {"study": {"trials": 1}}))
    return folders, path


def test_two_exports_of_a_run_and_what_lies_beside_them(toy_run, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").write_text("mine")
    run = RunFolder(toy_run)
    first = export.export_trial(run, "a", tmp_path / "out")
    assert "read back from disk" in [next(first), next(first)][1]
    with pytest.raises(RunError, match=r"^--out: another process is writing .+out; wait for it"):
        next(export.export_trial(RunFolder(toy_run), "b", tmp_path / "out"))
    other = list(export.export_trial(RunFolder(toy_run), "b", tmp_path / "other"))
    (tmp_path / "out").mkdir()  # by somebody, who puts nothing in it
    assert list(first)[-1].startswith(f"done: {tmp_path}/out") and other[-1].startswith(f"done: {tmp_path}/other")
    for name, trial in (("out", "a"), ("other", "b")):
        assert proof.checkpoint_digest(tmp_path / name) == run.find(trial).weights_sha256
    assert (tmp_path / "out.partial" / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "out.partial"]


def test_an_export_that_is_not_what_was_scored_is_kept_where_the_message_says(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "checkpoint_digest", lambda folder: "0" * 64)
    with pytest.raises(RunError, match="not those that were scored; the folder is kept for inspection") as raised:
        list(export.export_trial(RunFolder(toy_run), "a", tmp_path / "out"))
    kept = Path(str(raised.value).partition(": its tensors")[0])
    monkeypatch.undo()
    list(export.export_trial(RunFolder(toy_run), "a", tmp_path / "out"))
    assert (kept / "model.safetensors").is_file() and kept.is_relative_to(tmp_path)


def rewrite(path, **changes):
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.fixture(scope="module")
def travelling(toy, tmp_path_factory):
    """A run of members as transformers 4 writes them, with a trace of where they were trained."""
    root = tmp_path_factory.mktemp("travelling")
    folders = {name: shutil.copytree(folder, root / name) for name, folder in toy.items()}
    for folder in folders.values():
        rope = {"rope_theta": 20000.0, "rope_parameters": None, "dtype": None, "torch_dtype": "bfloat16"}
        rewrite(folder / "config.json", **rope, trained_on=str(root))
        rewrite(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", backend=None)
    tokenizer = folders["base"] / "tokenizer.json"
    tokenizer.rename(root / "blob")
    tokenizer.symlink_to(root / "blob")
    path = root / "search.yaml"
    path.write_text(yaml.safe_dump(toy_settings(folders, root / "run") | {"study": {"trials": 1}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        search(path)
    return folders, RunFolder(root / "run")


def test_an_export_travels(travelling, tmp_path, monkeypatch):
    folders, run = travelling
    before = os.umask(0o027)
    try:
        lines = list(export.export_trial(run, "0", tmp_path / "best"))
    finally:
        os.umask(before)
    best = tmp_path / "best"
    assert lines[-2] == "note: config.json: trained_on left out: a path of this machine"
    assert re.fullmatch(rf"done: {best} \(nex 0\.\d{{4}}\)", lines[-1])
    # The tokenizer is the donor's, byte for byte; links are files.
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (best / name).read_bytes() == (folders["base"] / name).read_bytes()
        assert not (best / name).is_symlink()
    # Both versions of transformers read the config.
    written = json.loads((best / "config.json").read_text())
    assert written["rope_theta"] == 20000.0 and written["torch_dtype"] == written["dtype"] == "bfloat16"
    assert AutoConfig.from_pretrained(best).rope_parameters == {"rope_theta": 20000.0, "rope_type": "default"}
    # Permissions are those of the umask, and nothing tells where it was made.
    assert {stat.S_IMODE(path.stat().st_mode) for path in best.iterdir()} == {0o640}
    assert stat.S_IMODE(best.stat().st_mode) == 0o750
    for path in best.iterdir():
        assert not any(str(place).encode() in path.read_bytes() for place in (tmp_path, run.path.parent)), path
    # The card says what the recipe's names are, and what it says works.
    card, text = (best / "README.md").read_text(), (best / "mergekit_config.yml").read_text()
    assert text.rstrip() in card and text.startswith(
        "# The same tensors: mergekit-yaml mergekit_config.yml OUT --random"
    )
    assert (
        "With folders of these names in the working directory (`base`, `a`, `b`), the command in the recipe's" in card
    )
    assert "Needs transformers" not in card
    monkeypatch.chdir(run.path.parent)
    shutil.copy(best / "mergekit_config.yml", ".")
    words = text.splitlines()[0].partition("mergekit-yaml ")[2].replace("OUT", str(tmp_path / "again")).split()
    done = CliRunner().invoke(mergekit_yaml, [*words, "--quiet"])
    assert done.exit_code == 0, done.exception
    assert proof.checkpoint_digest(tmp_path / "again") == run.find("0").weights_sha256


def test_an_export_whose_tokenizer_files_would_be_another_tokenizer(travelling, tmp_path, monkeypatch):
    _, run = travelling
    load = saving.load_tokenizer
    monkeypatch.setattr(saving, "load_tokenizer", lambda folder: load(next(iter(Path(tmp_path / "other").glob("*")))))
    tokenizer = load(run.family().folders["base"])
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(tmp_path / "other" / "tokenizer")
    lines = list(export.export_trial(run, "a", tmp_path / "out"))
    assert re.search(
        r"^note: the tokenizer's files are written by transformers 5\..+: those of base would give", lines[-3]
    )
    assert lines[-1].endswith("; needs transformers 5 or newer: transformers 5 wrote its tokenizer")
    assert (
        "Needs transformers 5 or newer: transformers 5 wrote its tokenizer." in (tmp_path / "out/README.md").read_text()
    )
    assert load(tmp_path / "out").get_vocab() == load(run.family().folders["base"]).get_vocab()


HUB = "/hub/models--own--it/snapshots"


@pytest.mark.parametrize(
    ("folders", "adapters", "names"),
    [
        ({"base": "/m/x", "a": "/m/y"}, {}, ["x", "y"]),
        ({"base": "/m/x/checkpoint-500", "a": "/m/y/checkpoint-500", "b": "/m/z"}, {}, ["base", "a", "z"]),
        ({"base": "/m/b", "a": "/x/c", "b": "/y/c"}, {}, ["base", "a", "b"]),  # `b` would be two
        ({"base": f"{HUB}/123", "a": "/m/y"}, {}, ["own/it@123", "y"]),
        ({"base": f"{HUB}/123", "a": f"{HUB}/456"}, {}, ["own/it@123", "own/it@456"]),
        ({"base": "/m/models--\u202e--x/snapshots/1", "a": "/m/y"}, {}, ["1", "y"]),  # no id that the hub would give
        ({"base": f"{HUB}/123", "a": "/cache/1"}, {"a": (f"{HUB}/123", f"{HUB}/9")}, ["own/it@123", "own/it@9"]),
        ({"base": "/m/x", "a": "/cache/1"}, {"a": ("/m/x", "/m/lora")}, ["x", "lora"]),
        ({"base": "/m/x", "a": "/cache/1"}, {"a": ("/n/x", "/m/lora")}, ["base", "lora", "a-base"]),
    ],
)
def test_every_folder_of_a_recipe_has_one_public_name(folders, adapters, names):
    adapters = {name: AdapterMember(*map(Path, each)) for name, each in adapters.items()}
    family = Family("f", {name: Path(folder) for name, folder in folders.items()}, "base", adapters=adapters)
    sources = card.sources_of(family)
    assert [source.name for source in sources] == names
    models = [{"model": reference} for reference in family.references.values()]
    recipe = MergeRecipe("merge", "ties", {"models": models, "base_model": family.references["base"]}, 3, {})
    text = card.public_recipe(family, recipe)
    assert not re.search("/m/|/cache/|/hub/", text) and yaml.safe_load(text)["base_model"] == names[0]
    read = [str(ModelReference.model_validate(item["model"])) for item in yaml.safe_load(text)["models"]]
    assert {name for model in read for name in model.split("+")} <= {*names} and len(read) == len(folders)
    explained = "\n".join(card._members(sources))
    for source in sources:
        where = "on the Hugging Face hub" if "own/it" in source.name else "a folder"
        assert f"| `{source.name}` | {source.label}, {where} | unknown |" in explained


def hub_member(root, owner, licence):
    folder = root / f"models--{owner}--m" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n" if licence else "# nothing said")
    return folder


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        (["mit", "mit"], r"All members name the licence mit\. Check whether"),
        (["mit", "x | <y>"], r"The members name different licences: mit, x \\\| \\<y\\>\. Check whether they allow"),
        (["mit", None], r"The licence named is mit; that of other members is not known\. Check"),
        ([None, None], r"No member's licence is known\. Check whether"),
    ],
)
def test_a_card_names_hub_ids_revisions_and_licences_and_no_path(tmp_path, licences, told):
    folders = {
        name: hub_member(tmp_path, f"own-{name}", one) for name, one in zip(("base", "a"), licences, strict=True)
    }
    resident = SimpleNamespace(family=Family("f", folders, "base"), out_dtype="bfloat16", dtype=torch.float32)
    config = {"models": [{"model": str(folders["a"])}], "base_model": str(folders["base"])}
    text = card.model_card(resident, MergeRecipe("merge", "ties", config, 3, {}), "A merge", [], None)
    front = ModelCard(text).data
    assert front.base_model == ["own-a/m", "own-base/m"] and front.base_model_relation == "merge"
    assert front.license is None and front.library_name == "transformers"
    assert str(tmp_path) not in text and "- {model: own-a/m@c0ffee}" in text and re.search(told, text)
    assert f"transformers {transformers.__version__}, torch {torch.__version__}" in text


def test_in_a_wider_dtype_the_values_are_those_that_were_scored(toy_run, tmp_path):
    run, out = RunFolder(toy_run), tmp_path / "out"
    scored = run.find("0").weights_sha256
    said = list(export.export_trial(run, "0", out, dtype="float32", max_shard_size="20KB"))
    sizes = [path.stat().st_size for path in out.glob("*.safetensors")]
    assert len(sizes) > 1 and not list(out.glob("*.rounded"))
    assert sorted(sizes)[-2] < 22_000, "but for the embeddings, and with a header, as large as it was asked for"
    config, identity = (json.loads((out / name).read_text()) for name in ("config.json", "nex_merge.json"))
    assert config["dtype"] == config["torch_dtype"] == "float32" and identity["rounded_from_sha256"] == scored
    assert identity["weights_sha256"] == proof.checkpoint_digest(out) != scored
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32
    card, told = (out / "README.md").read_text(), "stored in float32, with the values of the tensors that were scored"
    assert told in card and any(told in line for line in said)
    assert "# The tensors that were scored: mergekit-yaml mergekit_config.yml" in card
    for path in out.glob("*.safetensors"):  # back to what was scored, without loss
        save_file({n: t.bfloat16() for n, t in proof.read_tensors(path).items()}, tmp_path / path.name)
    for path in out.glob("*.safetensors"):
        shutil.move(tmp_path / path.name, path)
    assert proof.checkpoint_digest(out) == scored


def test_rounding_changes_only_what_it_says(toy, tmp_path):
    folder = shutil.copytree(toy["a"], tmp_path / "a")
    (path,) = folder.glob("*.safetensors")
    before = proof.read_tensors(path)
    before["model.norm.weight"][:3] = 1e-9  # nothing, in float16
    before = {name: tensor.clone() for name, tensor in before.items()}
    save_file(before, path, {"format": "pt"})
    found = rounding.round_weights(folder, "bfloat16", "float16")
    after = proof.read_tensors(path)
    assert {tensor.dtype for tensor in after.values()} == {torch.float16} and after.keys() == before.keys()
    unlike = {name: int((after[name].float() != before[name].float()).sum()) for name in after}
    assert found.changed == sum(unlike.values()) >= 3 == unlike["model.norm.weight"]
    assert found.values == sum(tensor.numel() for tensor in before.values())
    resident = SimpleNamespace(
        family=Family("f", {"base": tmp_path}, "base"), out_dtype="bfloat16", dtype=torch.float32
    )
    recipe = MergeRecipe("merge", "ties", {"base_model": str(tmp_path)}, 3, {})
    text = card.model_card(resident, recipe, "A merge", [], "5c0", rounded=found)
    said = "Weights are stored in float16: not the tensors that were scored, in bfloat16, but rounded from them"
    assert f"{said} ({found.changed} of {found.values} values changed)" in text and "sha256 of the tensors here" in text


def test_weights_beyond_the_range_of_a_dtype_and_a_file_that_changes_are_refused(toy, tmp_path, monkeypatch):
    folder = shutil.copytree(toy["a"], tmp_path / "a")
    (path,) = folder.glob("*.safetensors")
    tensors = proof.read_tensors(path)
    name = next(iter(tensors))
    tensors[name] = tensors[name] * 0 + 1e30
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError, match=rf"^--dtype: expected one that has room .+ got float16: {name} has values"):
        rounding.round_weights(folder, "bfloat16", "float16")
    save = rounding.save_file
    monkeypatch.setattr(rounding, "save_file", lambda kept, *rest: save({n: t * 2 for n, t in kept.items()}, *rest))
    with pytest.raises(RunError, match="read back, its tensors are not those that were rounded"):
        rounding.round_weights(folder, "bfloat16", "float32")


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5KB", 1500)])
def test_a_size_is_read(text, size):
    assert export.size_in_bytes(text, "--max-shard-size") == size
    for wrong in ("5", "GB", "-1GB", "0GB", "5 GiB", "٥GB"):
        with pytest.raises(InputError, match=r"^--max-shard-size: expected a size such as 5GB or 500MB, got "):
            export.size_in_bytes(wrong, "--max-shard-size")
