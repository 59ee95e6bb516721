"""A configuration with everything it names at hand: from a file, a mapping or a RunConfig; overrides and refusals."""

import copy
import hashlib
import shutil

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.setup.config import RunConfig
from nex_merge.setup.fingerprints import fingerprint
from nex_merge.setup.resolve import resolve_config
from tests.conftest import ROOT, toy_settings


@pytest.fixture
def settings(toy, tmp_path):
    return toy_settings(toy, tmp_path / "run")


def test_a_file_a_mapping_and_a_configuration_are_the_same(settings, toy_config, tmp_path):
    found = [resolve_config(form) for form in (toy_config, str(toy_config), settings, RunConfig(**settings))]
    assert [item.source for item in found] == [str(toy_config)] * 2 + ["configuration"] * 2
    for item in found:
        assert item.config == found[0].config and item.resolved == found[0].resolved
        assert item.family == found[0].family
    assert found[0].run == tmp_path / "run" and found[0].config.study.trials == 4


def test_what_is_given_is_left_as_it_is(settings):
    before = copy.deepcopy(settings)
    resolve_config(settings, {"study": {"trials": 9}, "prompts": {"limit": 1}}, "qwen3-tiny")
    assert settings == before


def test_overrides_replace_single_keys(settings):
    config = resolve_config(settings, {"study": {"seed": 3}, "prompts": {"limit": 2}}).config
    assert (config.study.seed, config.study.trials) == (3, 4)
    assert (config.prompts.limit, config.prompts.file) == (2, settings["prompts"]["file"])


def test_another_family_replaces_the_whole_one(settings, toy):
    """By name, with the defaults of that family below what the configuration sets; or as a mapping."""
    named = resolve_config(settings, family="qwen3-tiny")
    assert named.family.name == "qwen3-tiny" and named.config.family == "qwen3-tiny"
    assert "a" not in named.family.models and named.config.activations.top_k == 8
    given = resolve_config(settings, family={"base": str(toy["base"]), "models": {"other": str(toy["b"])}})
    assert given.family.models == ("other",) and given.family.name == "custom"
    assert set(given.resolved["checkpoints"]) == {"base", "other"}


@pytest.mark.parametrize("form", [dict, lambda item: RunConfig(**item)], ids=["mapping", "RunConfig"])
def test_the_familys_defaults_come_below_what_is_set(settings, form):
    settings["family"]["defaults"] = {"generation": {"max_new_tokens": 7, "samples": 3}}
    generation = resolve_config(form(settings), {"generation": {"seed": 9}}).config.generation
    assert (generation.max_new_tokens, generation.samples, generation.seed) == (24, 3, 9)


def test_what_names_stood_for_is_recorded(settings, toy, tmp_path):
    (tmp_path / "p.txt").write_text("pairs\n")
    found = resolve_config(settings | {"search_space": "ties", "prompts": {"file": str(tmp_path / "p.txt")}}).resolved
    assert found["prompts_sha256"] == hashlib.sha256(b"pairs\n").hexdigest()
    assert found["search_space"] == yaml.safe_load((ROOT / "search_spaces" / "ties.yaml").read_text())
    assert found["family"]["base"] == {"path": str(toy["base"])}
    assert found["checkpoints"] == {name: fingerprint(folder) for name, folder in toy.items()}
    assert set(found["versions"]) >= {"nex-merge", "mergekit", "torch", "optuna"}


def test_a_fingerprint_tells_weights_apart(toy, tmp_path):
    copied = shutil.copytree(toy["a"], tmp_path / "copy")
    assert fingerprint(copied) == fingerprint(toy["a"]) != fingerprint(toy["b"])
    (copied / "config.json").write_text("{}")
    assert fingerprint(copied) == fingerprint(toy["a"]), "of the weights alone"
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(copied) != fingerprint(toy["a"])
    weights.write_bytes((toy["a"] / "model.safetensors").read_bytes())
    weights.rename(copied / "other.safetensors")
    assert fingerprint(copied) != fingerprint(toy["a"])


@pytest.mark.parametrize("calibration", ["parents", "pool"])
def test_weights_from_baselines_need_baselines(settings, calibration):
    with pytest.raises(InputError, match=rf"nex\.calibration: '{calibration}' takes its weights from base and parents"):
        resolve_config(settings, {"nex": {"calibration": calibration}, "study": {"baselines": False}})


def test_consensus_as_the_objective_needs_baselines(settings):
    without = {"study": {"objective": "consensus", "baselines": False}}
    with pytest.raises(InputError, match=r"configuration: study\.objective: consensus compares with base and parents"):
        resolve_config(settings, without)
    assert resolve_config(settings, {"study": {"objective": "consensus"}}).config.study.objective == "consensus"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consensus": {"match": "numbr"}}, r"configuration: consensus\.match: .*'numbr'"),
        ({"consensus": {"match": "regex:("}}, r"configuration: consensus\.match: "),
        ({"prompts": {"file": "nowhere.jsonl"}}, r"configuration: prompts\.file: no such file: 'nowhere\.jsonl'"),
        ({"models": ["a", "c"]}, r"models\.1: expected a model of family custom, got 'c'"),
        ({"studdy": {}}, r"configuration: unknown key 'studdy'\. Did you mean 'study'"),
    ],
)
def test_refusals(settings, change, message):
    with pytest.raises(InputError, match=message):
        resolve_config(settings, change)


def test_a_mapping_without_family(settings):
    del settings["family"]
    with pytest.raises(InputError, match="configuration: family: missing required key"):
        resolve_config(settings)
    assert resolve_config(settings, family="qwen3-tiny").family.name == "qwen3-tiny"
