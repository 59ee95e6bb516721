"""What export says beside what it writes."""

import json
import os
import re
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner
from mergekit.scripts.run_yaml import main as mergekit_yaml
from transformers import AutoConfig

from nex_merge.checkpoints.adapters import AdapterMember
from nex_merge.engines import saving
from nex_merge.errors import InputError, RunError
from nex_merge.measures.estimates import Objective
from nex_merge.records import MergeRecipe, Verdict
from nex_merge.runs import card, export, proof
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
    assert "`a`, `b`, `base` stand for checkpoints that the search was given as folders.\nWith folders of these" in card
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


@pytest.mark.parametrize(
    ("folders", "adapters", "names"),
    [
        ({"base": "/m/x", "a": "/m/y"}, {}, ["x", "y"]),
        ({"base": "/m/x/checkpoint-500", "a": "/m/y/checkpoint-500", "b": "/m/z"}, {}, ["base", "a", "z"]),
        ({"base": "/m/b", "a": "/x/c", "b": "/y/c"}, {}, ["base", "a", "b"]),  # `b` would be two
        ({"base": "/hub/models--own--it/snapshots/123", "a": "/m/y"}, {}, ["own/it", "y"]),
        ({"base": "/m/x", "a": "/cache/1"}, {"a": ("/m/x", "/m/lora")}, ["x", "lora"]),
        ({"base": "/m/x", "a": "/cache/1"}, {"a": ("/n/x", "/m/lora")}, ["base", "lora", "a-base"]),
    ],
)
def test_every_folder_of_a_recipe_has_one_public_name(folders, adapters, names):
    adapters = {name: AdapterMember(*map(Path, each)) for name, each in adapters.items()}
    family = Family("f", {name: Path(folder) for name, folder in folders.items()}, "base", adapters=adapters)
    assert list(card._places(family).values()) == names
    models = [{"model": reference} for reference in family.references.values()]
    recipe = MergeRecipe("merge", "ties", {"models": models, "base_model": family.references["base"]}, 3, {})
    text = card.public_recipe(family, recipe)
    assert "/m/" not in text and "/cache/" not in text and yaml.safe_load(text)["base_model"] == names[0]
    explained = " ".join(card._explained(family))
    assert all(f"`{name}`" in explained for name in names)
    assert ("`own/it` is the model on the Hugging Face hub, revision `123`." in explained) == ("own/it" in names)
