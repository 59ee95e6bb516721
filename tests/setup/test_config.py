"""Every mistake in a configuration is one message that names file, key, what was found and what would do."""

import json

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.merging import method_specs
from nex_merge.setup.config import load_config, override, parse, read_yaml
from nex_merge.setup.families import family_defaults, open_family, read_family
from nex_merge.setup.resolve import make_plan
from nex_merge.setup.search_space import load_space

SPECS = method_specs()


def edit(path, *changes):
    """The configuration file with nested keys set, or removed where the value is None."""
    data = yaml.safe_load(path.read_text())
    for key, value in changes:
        *parents, last = key.split(".")
        at = data
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "generation.max_new_token",
            5,
            "generation.max_new_token: unknown key. Did you mean 'max_new_tokens'? Known: ",
        ),
        ("studdy", {}, "studdy: unknown key. Did you mean 'study'?"),
        ("generation.max_new_tokens", "many", "generation.max_new_tokens: found 'many'; a valid integer would do"),
        ("generation.max_new_tokens", 0, "generation.max_new_tokens: found 0; greater than or equal to 1 would do"),
        ("generation.temperature", True, "generation.temperature: found True; a valid number would do"),
        ("nex.rho", 1.5, "nex.rho: found 1.5; less than 1 would do"),
        ("nex.calibration", "none", "nex.calibration: found 'none'; 'self', 'crossfit', 'parents' or 'pool' would do"),
        ("activations.score", "logits", "found 'logits'; 'logit_contribution', 'activation' or 'magnitude' would do"),
        ("runtime.device", "gpu", "runtime.device: found 'gpu'"),
        ("prompts", None, "prompts: missing; it has to be given"),
        ("output", None, "output: missing; it has to be given"),
        ("prompts.file", "nowhere.jsonl", "prompts.file: found no file 'nowhere.jsonl'"),
        ("family", "qwen3-tiney", "found 'qwen3-tiney', which is no family. Did you mean 'qwen3-tiny'?"),
        ("models", ["a", "c"], "models.1: found 'c', not in family custom."),
        ("models", [], "one or more different models of family custom would do"),
    ],
)
def test_configuration_mistakes(toy_config, key, value, message):
    edit(toy_config, (key, value))
    with pytest.raises(InputError) as error:
        make_plan(str(toy_config), {})
    assert message in str(error.value)
    if not key.startswith(("family", "models")):
        assert str(toy_config) in str(error.value)


def test_pool_needs_baselines(toy_config):
    edit(toy_config, ("nex.calibration", "pool"), ("study.baselines", False))
    with pytest.raises(InputError, match="takes its weights from base and parents"):
        make_plan(str(toy_config), {})


def test_a_missing_configuration_names_the_nearest():
    with pytest.raises(InputError, match=r"configs/qwen3_tie\.yaml: no such file\. Did you mean 'qwen3_ties'\?"):
        make_plan("configs/qwen3_tie.yaml", {})


def test_files_that_are_no_mapping(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    for name, message in (
        ("list", "found list"),
        ("broken", "not valid YAML"),
        ("twice", "the key 'a' is given twice"),
    ):
        with pytest.raises(InputError, match=message):
            read_yaml(tmp_path / f"{name}.yaml")


def test_set_options():
    assert override(["a.b=1", "a.c=[x]", "d=null"]) == {"a": {"b": 1, "c": ["x"]}, "d": None}
    with pytest.raises(InputError, match="found no key=value"):
        override(["nothing"])


def test_family_defaults_come_below_the_file_and_options_above(toy_config):
    data = yaml.safe_load(toy_config.read_text())
    data["family"]["defaults"] = {"generation": {"max_new_tokens": 7, "samples": 3}}
    toy_config.write_text(yaml.safe_dump(data))
    config, _ = load_config(str(toy_config), {"generation": {"seed": 9}}, family_defaults)
    assert (config.generation.max_new_tokens, config.generation.samples, config.generation.seed) == (24, 3, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "at least one model besides the base"),
        ({"models": {"7": "x/y"}}, "names of letters"),
        ({"bse": "x"}, "bse: unknown key. Did you mean 'base'?"),
        ({"config": "c"}, "config: found 'c'"),
        ({"defaults": {"nex": {}}}, "defaults.nex: unknown key"),
    ],
)
def test_family_mistakes(change, message):
    with pytest.raises(InputError) as error:
        read_family({"base": "o/base", "models": {"a": "o/a"}, **change})
    assert message in str(error.value)


def test_folders_without_weights(toy, tmp_path):
    def family(path):
        return {"base": str(toy["base"]), "models": {"a": str(path)}}

    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no config\.json; a checkpoint folder would do"):
        open_family(family(tmp_path / "empty"), None)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"has no weights; a folder with \*\.safetensors would do"):
        open_family(family(tmp_path / "empty"), None)
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled weights only"):
        open_family(family(tmp_path / "empty"), None)
    with pytest.raises(InputError, match="found no folder '/no/such/folder', and it is no hub id"):
        open_family(family("/no/such/folder"), None)


def test_a_hub_model_that_can_not_be_had_names_the_family_that_works(toy):
    with pytest.raises(InputError, match=r"can't be had from the hub \(.+use the family that always works: qwen3-tiny"):
        open_family({"base": str(toy["base"]), "models": {"a": "nobody/nothing"}}, None)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"methods": ["tise"]}, "methods.0: unknown merge method 'tise'. Did you mean 'ties'?"),
        ({"methods": []}, "methods: found []; "),
        ({"methods": ["passthrough"]}, "methods.0: unknown merge method 'passthrough'"),
        ({"methods": ["ties"]}, "parameters.weight: missing; ties requires it"),
        (
            {"methods": ["ties"], "parameters": {"wieght": 1.0}},
            "wieght: unknown parameter of ties. Did you mean 'weight'?",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 1.0, "high": 0.0}}},
            "parameters.t: low 1.0 is not below high 0.0",
        ),
        ({"methods": ["slerp"], "parameters": {"t": "half"}}, "parameters.t: found 'half'; a float"),
        ({"methods": ["slerp"], "parameters": {"t": True}}, "parameters.t: found True; a float"),
        ({"methods": ["slerp"], "parameters": {"t": {"low": 0.0}}}, "high: missing"),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "hihg": 1}}},
            "hihg: unknown key. Did you mean 'high'?",
        ),
        ({"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0, "log": True}}}, "log needs low above 0"),
        ({"methods": ["slerp"], "parameters": {"t": {"choices": []}}}, "at least one value would do"),
        ({"methods": ["slerp"], "parameters": {"t": {"choices": [0.5, 0.5]}}}, "each choice once would do"),
        ({"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0, "step": 2.0}}}, "wider than the range"),
        ({"methods": ["karcher"], "parameters": {"max_iter": 1.5}}, "max_iter: found 1.5; a int"),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0, "normalize": {"low": 0, "high": 1}}},
            "normalize: found a range; true, false",
        ),
        ({"methods": ["ties"], "parameters": {"weight": 1.0, "density": 1.5}}, "density between 0 and 1 would do"),
        (
            {"methods": ["della"], "parameters": {"weight": 1.0, "density": 0.9, "epsilon": 0.2}},
            "needs density - epsilon and density + epsilon inside (0, 1)",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "models": {"c": {}}},
            "models.c: not among the models merged",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "models": {"a": {"lambda": 1.0}}},
            "lambda is one value for all models; put it under parameters",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "filters": ["mlp", "mlp"]},
            "different parts of tensor names",
        ),
        ({"methods": ["ties"], "parameters": {"weight": 1.0}, "layer_groups": 0}, "layer_groups: found 0"),
        ({"methods": ["ties", "ties"], "parameters": {"weight": 1.0}}, "each method once would do"),
    ],
)
def test_search_space_mistakes(space, message):
    with pytest.raises(InputError) as error:
        load_space(space, SPECS, ["a", "b"])
    assert message in str(error.value)


def test_a_method_with_too_few_models():
    with pytest.raises(InputError, match="model_stock needs 2 models besides the base, found 1"):
        load_space({"methods": ["model_stock"]}, SPECS, ["a"])


def test_an_unknown_space():
    with pytest.raises(InputError, match=r"found 'tie', which is no search space\. Did you mean 'ties'"):
        load_space("tie", SPECS, ["a", "b"])


def test_all_mistakes_are_told_at_once():
    from nex_merge.setup.config import GenerationConfig

    with pytest.raises(InputError) as error:
        parse(GenerationConfig, {"samples": 0, "seed": -1}, "file")
    assert len(str(error.value).splitlines()) == 2


def test_the_resolved_configuration_is_plain_yaml(toy_config):
    plan = make_plan(str(toy_config), {})
    assert json.loads(json.dumps(plan.resolved)) == plan.resolved


def test_a_checkpoint_brings_its_familys_defaults(toy):
    from nex_merge.setup.families import defaults_of

    defaults, family = defaults_of("nex_merge/families/qwen3_tiny/weights/signs")
    assert family == "qwen3-tiny" and defaults["activations"] == {"slice_tokens": 5, "top_k": 64}
    assert defaults_of(str(toy["a"])) == ({}, None)
    assert defaults_of("nobody/nothing") == ({}, None)
