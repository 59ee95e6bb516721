"""Configurations around mergekit files: what was given is one of the merges; what can't be carried over is said."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from optuna.trial import FixedTrial
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.merging import method_specs
from nex_merge.merging.mergekit_plan import planned
from nex_merge.merging.references import map_models
from nex_merge.setup.config import RunConfig, known_names, parse
from nex_merge.setup.families import FamilyConfig, open_family
from nex_merge.setup.schema import BESIDE, schema_of, schema_text
from nex_merge.setup.search_space import SpaceConfig, load_space
from nex_merge.study.guesses import check_guesses
from nex_merge.study.proposal import propose
from tests.pages import ROOT, arguments, blocks

WEIGHTS = "nex_merge/families/qwen3_tiny/weights"
BASE, PAIRS, SIGNS, LONG = (f"{WEIGHTS}/{name}" for name in ("base", "pairs", "signs", "overthinker"))
PROMPTS = ["--prompts", "configs/prompts/qwen3_tiny.jsonl", "--set", "prompts.limit=4"]
SPECS = method_specs()
# By method, what its recipes need beside weights; a value outside the package's ranges wherever there is one.
SHARED = {
    "slerp": {"t": [{"filter": "mlp", "value": [0, 0.5, 1]}, {"value": 0.3}]},
    "nearswap": {"t": 0.004},
    "sce": {"select_topk": 0.05},
    "linear": {"normalize": False},
    "ties": {"lambda": 0.8, "int8_mask": True},
    "karcher": {"max_iter": 5},
}
BASELESS = ("linear", "karcher")
OWN = {"weight": (0.4, [-0.3, 1.3]), "density": (0.53, 0.1), "gamma": (0.02, 0.2)}


def recipe_of(method: str) -> dict:
    """A recipe that takes what the method has, over qwen3-tiny."""
    spec = SPECS[method]
    models = [BASE, PAIRS] if spec.pairs and not spec.names_base else [PAIRS, SIGNS]
    own = {name: values for name, values in OWN.items() if name in spec.parameters}
    if "epsilon" in spec.parameters and "density" in own:
        own["density"] = (0.53, 0.2)
    listed = [
        {"model": model, "parameters": {name: values[place] for name, values in own.items()}}
        for place, model in enumerate(models)
    ]
    found = {"merge_method": method, "models": listed, "dtype": "float32", "out_dtype": "bfloat16"}
    found |= {} if method in BASELESS else {"base_model": BASE}
    return found | ({"parameters": SHARED[method]} if method in SHARED else {})


def init(tmp_path: Path, content, *words: str, name="mine.yml"):
    """(what the command printed and its exit code, the file that it wrote)."""
    (tmp_path / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    out = tmp_path / "search.yaml"
    return CliRunner().invoke(app, ["init", str(tmp_path / name), *PROMPTS, "--out", str(out), *words]), out


def written(tmp_path: Path, content, *words: str) -> dict:
    done, out = init(tmp_path, content, *words)
    assert done.exit_code == 0, done.output
    return yaml.safe_load(out.read_text())


@pytest.mark.parametrize("method", sorted(SPECS))
def test_the_merge_that_was_given_is_the_first_guess_after_equal_weights(method, tmp_path):
    """It is planned by mergekit as the recipe is, tensor by tensor, whatever the method."""
    recipe = recipe_of(method)
    config = written(tmp_path, recipe, *(["--base", BASE] if method in BASELESS else []))
    family = open_family(config["family"], None)
    space = load_space(config["search_space"], SPECS, family.models)
    guesses = config["study"].get("guesses", [])
    check_guesses(space, family.models, guesses)
    assert bool(guesses) == (method in known_names("search_spaces")), "else there is nothing to search"
    proposed = propose(space, family.references, "bfloat16", FixedTrial(guesses[0] if guesses else {}), 0)
    named = {str(folder.relative_to(Path.cwd())): str(folder) for folder in family.folders.values()}
    assert plan(proposed.config) == plan(map_models(recipe, named.__getitem__))


def plan(config: dict) -> dict:
    """What mergekit will compute, by tensor: the method, the models in order, and their parameters there."""
    found = {}
    for weight, task in planned(config, {})[0]._tensors:
        inputs = {model: rounded(values) for model, values in task.input_parameters.items()}
        own = {model: values for model, values in inputs.items() if model != task.base_model}
        order = [model for model in task.model_order if model != task.base_model]
        found[weight.name] = (task.method_name, task.base_model, order, own, rounded(task.parameters))
    return found


def rounded(values) -> dict:
    """Without the last digits of what mergekit interpolates."""
    return {name: round(value, 12) for name, value in values.items()}


def test_the_file_is_one_that_validate_accepts_and_schema_and_reader_agree_on(tmp_path):
    recipe = recipe_of("ties") | {"base_model": f"./{BASE}", "name": "mine", "dtype": "bfloat16"}
    recipe["models"][0]["parameters"] |= {"wieght": 1}
    config = written(tmp_path, recipe, "--trials", "7")
    lines = (tmp_path / "search.yaml").read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={BESIDE}"
    assert "# - parameters: wieght: ties has no such parameter; mergekit ignores it, too" in lines
    assert "# - name: no key of a recipe; mergekit ignores it, too" in lines
    assert config["search_space"]["models"]["signs"] == {
        "weight": {"low": -0.9, "high": 1.9}, "density": {"low": 0.05, "high": 1.0, "step": 0.05},
    }  # fmt: skip
    assert config["study"]["trials"] == 7 and config["generation"]["max_new_tokens"] == 832
    schema = json.loads((tmp_path / BESIDE).read_text())
    jsonschema.validate(config, schema)
    parse(RunConfig, config, "search.yaml")
    for wrong in ({"studdy": {}}, {"study": {"trials": -1}}, {"family": {"base": "a"}}, {"search_space": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(config | wrong, schema)
    done = CliRunner().invoke(app, ["validate", str(tmp_path / "search.yaml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output


def test_slices_become_points_over_depth_and_stacked_layers_are_said(tmp_path):
    def sources(start, end, **parameters):
        return {"sources": [{"model": m, "layer_range": [start, end]} for m in (PAIRS, SIGNS)], **parameters}

    slices = [sources(0, 2, parameters={"t": 0.2}), sources(1, 4, parameters={"t": 0.7})]
    recipe = {"merge_method": "slerp", "base_model": SIGNS, "slices": slices, "tokenizer_source": "union"}
    done, out = init(tmp_path, recipe, "--base", BASE)
    config = yaml.safe_load(out.read_text())
    assert list(config["family"]["models"]) == ["signs", "pairs"], "t is still the way from signs to pairs"
    assert config["search_space"]["layer_groups"] == 2
    assert config["study"]["guesses"] == [{"t.0": 0.2, "t.1": 0.7}]
    assert "not carried over: slices: the layers 0-2, 1-4 of 4 are not each layer once" in done.stderr
    assert "not carried over: tokenizer_source: 'union' is of all members" in done.stderr


@pytest.mark.parametrize(("end", "counted"), [(4, False), (9, True), (3, True)])
def test_gradients_within_slices_and_missing_layers_are_said(end, counted, tmp_path):
    """mergekit runs through a gradient in every slice: the four layers get t = 0, 1, 0, 1."""
    taken = [(0, 2), (2, end)]
    slices = [{"sources": [{"model": m, "layer_range": list(one)} for m in (PAIRS, SIGNS)]} for one in taken]
    recipe = {"merge_method": "slerp", "base_model": SIGNS, "slices": slices, "parameters": {"t": [0, 0.3, 1]}}
    done, out = init(tmp_path, recipe, "--base", BASE)
    assert "guesses" not in yaml.safe_load(out.read_text())["study"] and "given: 0, 0.3, 1" in out.read_text()
    assert "not carried over: parameters: t: [0.0, 0.3, 1.0] runs over the layers of a slice" in done.stderr
    assert (f"slices: the layers 0-2, 2-{end} of 4 are not each layer once" in done.stderr) == counted


def test_a_number_of_trials_wins_over_a_setting(tmp_path):
    config = written(tmp_path, recipe_of("ties"), "--trials", "5", "--set", "study.trials=9")
    assert config["study"]["trials"] == 5


def test_a_genome_becomes_a_space(tmp_path):
    genome = {
        "models": [PAIRS, {"model": {"path": SIGNS}}], "base_model": BASE, "merge_method": "task_arithmetic",
        "layer_granularity": 2, "filters": ["mlp"], "allow_negative_weights": True, "normalize": True,
    }  # fmt: skip
    content = {"genome": genome, "tasks": ["gsm8k"], "limit": 10, "apply_chat_template": False}
    done, out = init(tmp_path, content)
    config = yaml.safe_load(out.read_text())
    assert config["search_space"] == {
        "methods": ["task_arithmetic"], "parameters": {"normalize": True, "weight": {"low": -1.2, "high": 1.2}},
        "layer_groups": 2, "filters": ["mlp"],
    }  # fmt: skip
    assert config["prompts"]["chat_template"] is False and "guesses" not in config["study"]
    assert "not carried over: tasks: gsm8k:" in done.stderr and "not carried over: limit:" in done.stderr


def test_the_page_shows_what_is_written(tmp_path, monkeypatch):
    genome, shown, made = (block.text for block in blocks(ROOT / "docs" / "coming-from-mergekit-evolve.md")[:3])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "prompts").mkdir(parents=True)
    (tmp_path / "configs" / "prompts" / "qwen3_tiny.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "evolve.yml").write_text(genome)
    command, said = shown.split("\n", 1)
    done = CliRunner().invoke(app, arguments(command.removeprefix("$ "))[0])
    assert done.stderr == said and (tmp_path / "search.yaml").read_text() == made


def test_without_a_file_every_answer_is_an_option_and_the_context_is_kept(tmp_path):
    member = tmp_path / "small"
    member.mkdir()
    (member / "config.json").write_text(json.dumps({"max_position_embeddings": 600}))
    out = tmp_path / "search.yaml"
    words = ["init", "--base", str(member), "--model", "mine=owner/name", "--method", "della", *PROMPTS]
    done = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    config = yaml.safe_load(out.read_text())
    assert config["family"] == {"base": str(member), "models": {"mine": "owner/name"}}
    assert config["generation"]["max_new_tokens"] == 300 and config["prompts"]["chat_template"] is False
    again = CliRunner().invoke(app, [*words, "--out", str(out)])
    assert isinstance(again.exception, InputError) and "nothing is overwritten" in str(again.exception)


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("merge_method: passthrough\nmodels: [{model: a/b}]", [], "passthrough copies layers"),
        ("base_model: a/b\nexperts: []", [], "mergekit-moe"),
        ("a: 1\n---\nb: 1", [], "a file of its own"),
        ("merge_method: linear\nmodels: [{model: a/b, parameters: {weight: 1}}]", [], "--base MODEL"),
        ("merge_method: ties\nbase_model: a/b\nmodels: [{model: ./no}]", [], "no: expected a checkpoint folder"),
        ("merge_method: ties\nbase_model: a/b\nmodels: [{model: c/d}]", ["--base", "e/f"], "--base: expected none"),
        ("merge_method: ties\nbase_model: a/b\nmodels: [{model: c/d}]", ["--model", "x=e/f"], "--model: expected none"),
        ("merge_method: tise\nmodels: [{model: a/b}]", [], "mergekit can't read it"),
        ("genome: {models: [a/b], merge_method: della}", [], "genome.merge_method: expected"),
        *((f"genome: {{models: [a/b], merge_method: linear, {given}}}", ["--base", BASE], f"mine.yml: genome.{said}")
          for given, said in (
              ("layer_granularity: two", "layer_granularity: expected an integer, got 'two'"),
              ("layer_granularity: 3", "layer_granularity: expected a divisor of the models' 4 layers"),
              ("normalize: maybe", "normalize: expected true or false, got 'maybe'"),
              ("allow_negative_weights: perhaps", "allow_negative_weights: expected true or false, got 'perhaps'"),
              ("filters: self_attn", "filters: expected a list, got 'self_attn'"),
          )),
        *((f"merge_method: ties\nbase_model: a/b\nparameters: {{{given}}}\nmodels: [{{model: c/d}}]", [],
           f"mine.yml: parameters: {said}")
          for given, said in (
              ("weight: abc", "weight: expected a finite number, got 'abc'"),
              ("lambda: x", "lambda: expected a finite number, got 'x'"),
              ("weight: [1, a, 2]", "weight: expected a finite number, got [1, a, 2]"),
              ("weight: [{filter: mlp, value: .nan}, {value: 1}]", "weight: expected a finite number, got .nan"),
              ("density: .inf", "density: expected a finite number, got .inf"),
              ("normalize: maybe", "normalize: expected true or false, got 'maybe'"),
          )),
        ("merge_method: ties\nbase_model: a/b\nmodels: [{model: c/d}, {model: c/d}]", [],
         "mine.yml: model: expected every model once, as mergekit does, got 'c/d' twice"),
        (yaml.safe_dump(recipe_of("ties")), ["--set", "study.objective=nosuch"], "study.objective: unknown measure"),
        ("family: qwen3-tiny", [], "a configuration of nex-merge already"),
    ],
)  # fmt: skip
def test_what_no_search_can_do_is_refused(content, words, message, tmp_path):
    done, out = init(tmp_path, content, *words)
    assert isinstance(done.exception, InputError) and message in str(done.exception) and not out.exists()


@pytest.mark.parametrize(("words", "missing"), [([], "--base"), (["--base", "a/b"], "--model")])
def test_without_a_terminal_nothing_is_asked(words, missing, tmp_path):
    done = CliRunner().invoke(app, ["init", *words, "--out", str(tmp_path / "search.yaml")])
    assert isinstance(done.exception, InputError) and str(done.exception).startswith(f"{missing}: missing")


def test_shipped_files_name_the_schema_that_they_follow():
    places = {"configs": RunConfig, "configs/families": FamilyConfig, "search_spaces": SpaceConfig}
    for folder, model in places.items():
        for path in Path(folder).glob("*.yaml"):
            first, text = path.read_text().split("\n", 1)
            named = path.parent / first.removeprefix("# yaml-language-server: $schema=")
            assert named.read_text() == schema_text(model), path
            jsonschema.validate(yaml.safe_load(text), schema_of(model))
