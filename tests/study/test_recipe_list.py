"""Fixed lists of recipes: what is read, what is ranked, that files are watched, and what is refused by name."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge import open_run
from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.merging import mergekit_config
from nex_merge.merging.streamer import Streamer
from nex_merge.records import MergeRecipe
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.preflight import check
from tests.conftest import toy_settings
from tests.engines.fakes import FakeEngine
from tests.searches import search

TIES = """
merge_method: ties
base_model: base
models:
  - {model: a, parameters: {weight: 0.7, density: 0.5}}
  - {model: b, parameters: {weight: 3e-1, density: 0.5}}   # text in YAML 1.1, which mergekit reads as a number
dtype: float32
"""
LINEAR = """
merge_method: linear
models:
  - {model: a, parameters: {weight: 2}}
  - {model: b, parameters: {weight: 2}}
dtype: bfloat16
"""
SLERP = """
merge_method: slerp
base_model: a
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [0, 2]}
parameters:
  t: [{filter: self_attn, value: [0, 1]}, {value: 0.25}]
"""


@pytest.fixture
def config(toy, tmp_path):
    """A configuration file that ranks three recipes: a folder with two, and a file."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "b.yml").write_text(LINEAR)
    (folder / "a.yaml").write_text(TIES)
    (folder / "notes.txt").write_text("none")
    (tmp_path / "slerp.yml").write_text(SLERP)
    settings = toy_settings(toy, tmp_path / "run")
    del settings["search_space"], settings["study"]["trials"]
    settings["study"]["recipes"] = [str(folder), str(tmp_path / "slerp.yml")]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def adopted(config):
    return check(resolve_config(str(config)), engine=FakeEngine()).recipes


def test_every_recipe_is_a_trial_in_order(config, tmp_path):
    rows, recorder = search(config)
    assert recorder.ended == ["base", "a", "b", "0000", "0001", "0002"]
    assert {row["trial"]: row.get("p.recipe") for row in rows} == {
        "base": None, "a": None, "b": None, "0000": "a.yaml", "0001": "b.yml", "0002": "slerp.yml",
    }  # fmt: skip
    assert {row["state"] for row in rows} == {"complete"}
    assert [row["trial"] for row in rows if row["reference"]] == ["0001"], "2 and 2 are equal, as linear divides"
    run = RunFolder(tmp_path / "run")
    assert [run.find(str(i)).method for i in range(3)] == ["ties", "linear", "slerp"]
    assert run.config.study.trials == 3
    again, recorder = search(tmp_path / "run" / "config.yaml")
    assert again == rows and recorder.ended == []


def test_without_equal_weights_nothing_is_the_reference(config, tmp_path):
    (tmp_path / "recipes" / "b.yml").write_text(LINEAR.replace("weight: 2", "weight: 1", 1))
    rows, _ = search(config, engine=FakeEngine())
    assert not any(row["reference"] or row["beats_equal"] for row in rows)


def test_fewer_trials_take_the_first_recipes(config):
    rows, recorder = search(config, engine=FakeEngine(), study={"trials": 2})
    assert [row.get("p.recipe") for row in rows if row["kind"] == "merge"] != [] and len(rows) == 5
    assert recorder.ended[-1] == "0001" and "study.trials: the first 2 of 3 recipes are tried" in recorder.notes
    assert search(config, engine=FakeEngine(), study={"trials": 9})[1].ended == ["0002"]


def test_the_same_tensors_as_mergekit_gives(config, toy):
    """Of the recipe as written, with the folders for the names."""
    for text, recipe in zip((TIES, LINEAR, SLERP), adopted(config).values(), strict=True):
        plain = yaml.safe_load(text)
        if "base_model" in plain:
            plain["base_model"] = str(toy[plain["base_model"]])
        for model in plain.get("models") or plain["slices"][0]["sources"]:
            model["model"] = str(toy[model["model"]])
        plain["out_dtype"] = "bfloat16"
        found, expected = (
            dict(Streamer().tensors(MergeRecipe("merge", "", given, 0)))
            for given in (recipe.config, mergekit_config(plain))
        )
        assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in found)
        assert {tensor.dtype for tensor in found.values()} == {tensor.dtype for tensor in expected.values()}


def test_models_may_be_named_as_the_family_does(config, toy, tmp_path):
    named = adopted(config)["a.yaml"].config
    text = TIES.replace("base_model: base", f"base_model: {toy['base']}").replace("model: a,", f"model: {toy['a']}/.,")
    (tmp_path / "recipes" / "a.yaml").write_text(text)
    assert adopted(config)["a.yaml"].config == named
    assert named["base_model"] == str(toy["base"])


@pytest.mark.parametrize("source", ["base", "{base}"])
def test_a_tokenizer_that_merges_take_anyway_may_be_named(config, toy, tmp_path, source):
    before = adopted(config)
    named = f"dtype: float32\ntokenizer_source: {source.format(base=toy['base'])}\n"
    (tmp_path / "recipes" / "a.yaml").write_text(TIES.replace("dtype: float32", named))
    assert adopted(config) == before


def test_a_changed_file_is_noticed(config, tmp_path):
    search(config, engine=FakeEngine(), study={"trials": 1})
    (tmp_path / "recipes" / "b.yml").write_text(LINEAR.replace("2", "1"))
    (tmp_path / "recipes" / "c.yml").write_text(LINEAR)
    with pytest.raises(InputError) as error:
        search(config, engine=FakeEngine())
    lines = str(error.value).splitlines()
    assert "  study.recipes: b.yml has changed since the run was started" in lines
    assert "  study.recipes: c.yml was added since the run was started" in lines


def test_files_of_one_name_are_told_apart_by_their_paths(config, tmp_path):
    (tmp_path / "a.yaml").write_text(LINEAR)
    recipes = [str(tmp_path / "a.yaml"), str(tmp_path / "recipes")]
    found = resolve_config(str(config), {"study": {"recipes": recipes}}).resolved["recipes"]
    assert list(found) == [str(tmp_path / "a.yaml"), str(tmp_path / "recipes" / "a.yaml"), "b.yml"]


def test_the_recipe_on_disk_is_mergekits(config, tmp_path):
    search(config, engine=FakeEngine())
    recipe = files.read_recipe(tmp_path / "run", "0002")
    assert recipe["slices"][0]["sources"][0]["layer_range"] == [0, 2] and "models" not in recipe
    assert json.loads((tmp_path / "run" / "leaderboard.json").read_text())[0]["trial"]


def test_validate_counts_them(config):
    lines = CliRunner().invoke(app, ["validate", str(config)]).output.splitlines()
    assert "methods        ties, linear, slerp" in lines and "recipes        3" in lines
    assert "trials         3 merges and 3 baselines" in lines


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: a", "model: c", r"by name \(base, a, b\) or as the family names their files, got 'c'"),
        ("ties", "tise", "mergekit can't read it: Unimplemented merge method tise"),
        ("models:", "model:", "mergekit can't read it: Exactly one of 'models', 'slices', or 'modules'"),
        ("merge_method: ties", "", "mergekit can't read it: merge_method: Field required"),
        ("density: 0.5", "density: dense", "mergekit can't plan it: Input should be a valid number.*, got 'dense'"),
        ("weight: 0.7, ", "", "mergekit can't plan it: .*weight"),
        ("dtype: float32", "tokenizer_source: a", "tokenizer_source: expected none, got 'a'.* remove the key"),
        ("dtype: float32", "tokenizer_source: union", "tokenizer_source: expected none, got 'union'.* remove the key"),
        ("dtype: float32", "tokenizer: {source: base}", "tokenizer: expected none"),
        ("dtype: float32", "chat_template: auto", "chat_template: expected none"),
        ("dtype: float32", "dtype: int8", "dtype: expected float32, bfloat16 or float16, got 'int8'"),
        (
            "dtype: float32",
            "out_dtype: float32",
            "out_dtype: expected bfloat16, in which the family's merges are stored",
        ),
    ],
)
def test_a_recipe_is_refused_with_its_files_name(config, tmp_path, old, new, message):
    assert old in TIES
    (tmp_path / "recipes" / "a.yaml").write_text(TIES.replace(old, new))
    with pytest.raises(InputError, match=rf"^study\.recipes: a\.yaml: .*{message}"):
        search(config, engine=FakeEngine())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layers", ["[0, 1]", "[1, 2]"])
def test_other_layers_are_refused(config, tmp_path, layers):
    (tmp_path / "slerp.yml").write_text(SLERP.replace("[0, 2]", layers))
    with pytest.raises(InputError, match=r"slerp\.yml: the merge would lack model\.layers\.1.*cover each layer once"):
        search(config, engine=FakeEngine())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"a\.yaml line 1: not valid YAML"),
        ("- a", r"a\.yaml: expected a mergekit configuration, a mapping"),
        ("a: 1\n---\nb: 2", r"not valid YAML: .*; give every recipe a file of its own"),
    ],
)
def test_files_that_hold_no_recipe(config, tmp_path, text, message):
    (tmp_path / "recipes" / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        resolve_config(str(config))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"study": {"recipes": ["nowhere.yml"]}}, r"study\.recipes\.0: no such file: 'nowhere\.yml'"),
        ({"study": {"recipes": ["docs"]}}, r"study\.recipes\.0: expected a folder with mergekit configurations"),
        ({"study": {"recipes": []}}, r"study\.recipes: expected at least 1 item"),
        ({"study": {"recipes": ["configs/qwen3_ties.yaml"] * 2}}, r"expected every recipe once, got .+ 2 times"),
        ({"search_space": "ties"}, r"study\.recipes: expected no search_space beside a list of recipes"),
        ({"study": {"recipes": None}}, r"search_space: missing; name one .+, or give study\.recipes"),
    ],
    ids=str,
)
def test_lists_that_are_refused(config, overrides, message):
    with pytest.raises(InputError, match=message):
        resolve_config(str(config), overrides)


def test_a_warm_start_is_refused(config):
    with pytest.raises(InputError, match=r"study\.warm_start: expected none with study\.recipes"):
        search(config, engine=FakeEngine(), study={"warm_start": "results/other"})


def test_a_recipe_exports_what_was_scored(config, tmp_path):
    search(config)
    out = open_run(tmp_path / "run").export(tmp_path / "out", trial=2)
    assert (out / "model.safetensors").is_file()
