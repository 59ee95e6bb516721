"""What is shown before the first trial: members are what transformers loads, methods merge, exports read back."""

import json
import shutil
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nex_merge.engines import family as family_module
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError, RunError
from nex_merge.merging import method_specs
from nex_merge.runs.leaderboard import best_merge
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.setup.search_space import load_space
from nex_merge.study import rehearsal
from nex_merge.study import rehearsal_cache as rehearsed_module
from nex_merge.study.estimate import estimate
from nex_merge.study.rehearsal import rehearse
from tests.conftest import make_toy, toy_settings
from tests.searches import search


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def family(toy, tmp_path):
    """Fine-tunes of one base that may be changed, and the settings of a search over them."""
    folders = {name: shutil.copytree(toy["base"], tmp_path / name) for name in toy}
    for seed, name in enumerate(["a", "b"]):
        weights(folders[name], partial(move, seed=seed))
    return folders, toy_settings(folders, tmp_path / "run")


def rehearsed(settings):
    resolved = resolve_config(settings)
    space = load_space(resolved.config.search_space, method_specs(), resolved.family.models)
    return rehearse(FamilyEngine(resolved.family, resolved.config.runtime), resolved, space)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def move(state, seed):
    torch.manual_seed(seed)
    for value in state.values():
        value += 0.03 * torch.randn(value.shape)


def test_a_sound_family_is_rehearsed_once(family, monkeypatch):
    _, settings = family
    first = rehearsed(settings)
    assert first.notes == () and first.logits_off <= 1e-5 and not first.known
    monkeypatch.setattr(rehearsal, "_check_member", None)  # would fail if it were called
    again = rehearsed(settings)
    assert again.known and (again.logits_off, again.seconds) == (first.logits_off, first.seconds)
    assert "shown before" in again.summary() and "shown before" not in first.summary()


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_a_changed_file_is_rehearsed_again(family, file):
    folders, settings = family
    rehearsed(settings)
    edit(folders["a"] / file, note="changed")
    assert not rehearsed(settings).known


def test_a_damaged_record_is_rehearsed_again(family):
    _, settings = family
    rehearsed(settings)
    for record in (rehearsed_module.cache_folder() / "rehearsals").glob("*.json"):
        record.write_text("{")
    assert not rehearsed(settings).known


def test_a_member_whose_resident_logits_are_others_is_refused_with_the_cause(family, monkeypatch):
    _, settings = family
    load = family_module.load_model

    def scaled(folder, config, dtype):
        model, info = load(folder, config, dtype)
        if folder.name == "b":
            model.model.layers[1].mlp.up_proj.weight.data *= 2
        return model, info

    monkeypatch.setattr(family_module, "load_model", scaled)
    with pytest.raises(
        InputError, match=r"^b: would not be scored as what it is.+other weights: model.layers.1.mlp.up"
    ):
        rehearsed(settings)


SLOW = {"rms_norm_eps": 0.5}


def test_a_baseline_is_scored_under_its_own_config(toy, tmp_path):
    """Not under that of the member whose config the merges get."""
    from transformers import AutoModelForCausalLM

    window = {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["sliding_attention"] * 2}
    base = make_toy(tmp_path / "base", 0, **SLOW, max_window_layers=0, **window)
    settings = toy_settings({**toy, "base": base}, tmp_path / "run")
    settings["family"]["config"] = "a"
    settings["study"]["trials"] = 1
    notes = [note for note in rehearsed(settings).notes if "config" in note]
    assert len(notes) == 1 and notes[0].startswith("base: scored under its own config, merges under that of a: ")
    assert "rms_norm_eps 0.5 (a: 1e-06)" in notes[0] and "sliding_window 4" in notes[0]
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(settings))
    search(path)
    for name, folder in (("base", base), ("a", toy["a"])):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for response in RunFolder(tmp_path / "run").responses(name):
            ids = torch.tensor([response.prompt_ids])
            own = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=2)[0, ids.shape[1] :].tolist()
            assert own == list(response.token_ids), name


def test_a_config_that_makes_another_model_requires_a_choice(toy, tmp_path):
    other = make_toy(tmp_path / "other", 5, attention_bias=False, rms_norm_eps=0.1)
    settings = toy_settings({**toy, "a": other}, tmp_path / "run")
    with pytest.raises(InputError, match=r"^a: .*rms_norm_eps.+`config: a`"):
        list(estimate(resolve_config(settings)))
    settings["family"]["config"] = "base"
    (note,) = (note for note in rehearsed(settings).notes if "config" in note)
    assert note.startswith("a: scored under its own config, merges under that of base: rms_norm_eps 0.1")


def test_a_config_key_without_effect_is_only_shown(family):
    folders, settings = family
    edit(folders["a"] / "config.json", sliding_window=4096, use_sliding_window=True, max_window_layers=0)
    settings["family"]["config"] = "base"
    (note,) = rehearsed(settings).notes
    assert note.startswith(
        "a: its config differs, without changing its logits for the first, longest and shortest prompts: "
    )
    assert "sliding_window 4096 (base: None)" in note


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.0, 6.0, 10.0, 14.0],
    "factor": 10.0, "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "long"),
    [("first", "b: " + "5 " * 70), ("last", "b: " + "5 " * 70), ("first", "b: 6")],
    ids=["long", "short", "none"],
)
def test_logits_are_compared_on_both_sides_of_a_boundary(toy, tmp_path, kept, long):
    """A parent whose long factors are others is another model for long prompts alone, and the reverse."""
    other = {**LONGROPE, **({"long_factor": [3.0] * 4} if kept == "first" else {"short_factor": [3.0] * 4})}
    members = {name: make_toy(tmp_path / name, seed, rope_parameters=LONGROPE) for seed, name in enumerate(toy)}
    members["a"] = make_toy(tmp_path / "a", 1, rope_parameters=other)
    settings = toy_settings(members, tmp_path / "run")
    settings["family"]["config"] = "base"
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (long, "a: 1", "c: 3")))
    settings["prompts"] = {"file": str(file)}
    (note,) = (note for note in rehearsed(settings).notes if "config" in note)
    same = "without changing its logits for the first, longest and shortest prompts" in note
    assert same == (long == "b: 6") and ("a: scored under its own config" in note) == (not same)


def test_a_method_that_cannot_merge_the_members_is_refused(family):
    _, settings = family
    settings["search_space"] = {"methods": ["linear"], "parameters": {"weight": 0.0}}
    with pytest.raises(InputError, match=r"^search_space: linear cannot merge a, b: .+not finite"):
        rehearsed(settings)


def spoil(monkeypatch, change):
    """Change what an export writes beside its weights."""
    write = rehearsal.write_settings

    def spoilt(engine, recipe, folder):
        write(engine, recipe, folder)
        change(folder)

    monkeypatch.setattr(rehearsal, "write_settings", spoilt)


def test_an_export_that_would_decode_otherwise_is_refused(family, monkeypatch):
    _, settings = family
    spoil(monkeypatch, lambda folder: edit(folder / "generation_config.json", repetition_penalty=50.0))
    with pytest.raises(InputError, match="decode greedily otherwise than the search"):
        rehearsed(settings)


def test_an_export_with_another_template_is_refused(family, monkeypatch):
    _, settings = family
    template = "{% for m in messages %}a{{ m['content'] }}{% endfor %}"
    spoil(monkeypatch, lambda folder: (folder / "chat_template.jinja").write_text(template))
    with pytest.raises(InputError, match="tokenizer would encode the first prompt differently"):
        rehearsed(settings)


def test_search_and_validate_say_the_same_before_any_work(family, monkeypatch):
    folders, settings = family
    weights(folders["b"], lambda state: state["model.norm.weight"].fill_(float("nan")))
    said = []
    for attempt in (
        lambda: list(estimate(resolve_config(settings))),
        lambda: search_settings(settings, folders["a"].parent),
    ):
        with pytest.raises(InputError) as error:
            attempt()
        said.append(str(error.value))
    assert said[0] == said[1] and "b" in said[0] and "model.norm.weight" in said[0]
    assert not (folders["a"].parent / "run").exists()


def search_settings(settings, folder):
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(settings))
    return search(path)


def test_a_search_whose_merges_all_failed_says_why_and_has_nothing_to_export(family, tmp_path, monkeypatch):
    """Equal weights merge, so that only the trials themselves fail."""
    from nex_merge.errors import TrialError

    _, settings = family
    begin = FamilyEngine.begin

    def failing(self, recipe):
        if recipe.kind == "merge" and (tmp_path / "run" / "trials").exists():
            raise TrialError("no room")
        return begin(self, recipe)

    monkeypatch.setattr(FamilyEngine, "begin", failing)
    with pytest.raises(RunError, match=r"all 4 merges failed, so there is nothing to rank or export: no room$"):
        search_settings(settings, tmp_path)
    with pytest.raises(InputError):
        best_merge(RunFolder(tmp_path / "run"))
