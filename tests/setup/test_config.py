"""Every mistake in a configuration gives one line with file, key, what was expected and what was got."""

import fnmatch
import json
import shutil

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.merging import method_specs
from nex_merge.setup.config import override, parse
from nex_merge.setup.families import Location, locate, open_family, read_family
from nex_merge.setup.resolve import resolve_config
from nex_merge.setup.search_space import load_space
from nex_merge.setup.yaml_files import read_yaml

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
            "generation: unknown key 'max_new_token'. Did you mean 'max_new_tokens'? Known keys: max_new_tokens, temp",
        ),
        ("studdy", {}, "yaml: unknown key 'studdy'. Did you mean 'study'? Known keys: family, "),
        ("generation.max_new_tokens", "many", "generation.max_new_tokens: expected a positive integer, got 'many'"),
        ("generation.max_new_tokens", 0, "generation.max_new_tokens: expected a positive integer, got 0"),
        ("generation.seed", -1, "generation.seed: expected a non-negative integer, got -1"),
        ("generation.batch_tokens", "all", "generation.batch_tokens: expected an integer or 'auto', got 'all'"),
        ("generation.top_p", 2, "generation.top_p: expected a number > 0 and <= 1, got 2"),
        ("study.baselines", 1, "study.baselines: expected true or false, got 1"),
        ("study", 5, "study: expected a mapping, got 5"),
        ("family", 5, "family: expected a family's name, a file or a mapping, got 5"),
        ("search_space", 5, "search_space: expected a string or a mapping, got 5"),
        ("models", "a", "models: expected a list, got 'a'"),
        ("generation.temperature", True, "generation.temperature: expected a non-negative number, got true"),
        ("nex.rho", 1.5, "nex.rho: expected a number > 0 and < 1, got 1.5"),
        ("nex.calibration", "none", "nex.calibration: expected 'self', 'crossfit', 'parents' or 'pool', got 'none'"),
        ("activations.score", "logits", "expected 'logit_contribution', 'activation' or 'magnitude', got 'logits'"),
        ("runtime.device", "gpu", "runtime.device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("prompts", None, "prompts: missing required key"),
        ("output", None, "output: missing required key"),
        ("prompts.file", "nowhere.jsonl", "'nowhere.jsonl'"),
        ("family", "qwen3-tiney", "family: unknown family 'qwen3-tiney'. Did you mean 'qwen3-tiny'? Known families: "),
        ("models", ["a", "c"], "models.1: expected a model of family custom, got 'c'. Known models: a, b."),
        ("models", [], "models: expected one or more distinct models of family custom, got []"),
    ],
)
def test_configuration_mistakes(toy_config, key, value, message):
    edit(toy_config, (key, value))
    with pytest.raises(InputError) as error:
        resolve_config(str(toy_config), {})
    assert message in str(error.value)
    if not key.startswith(("family", "models")):
        assert str(toy_config) in str(error.value)


def test_pool_needs_baselines(toy_config):
    edit(toy_config, ("nex.calibration", "pool"), ("study.baselines", False))
    with pytest.raises(InputError, match=r"study\.baselines"):
        resolve_config(str(toy_config), {})


def test_a_missing_configuration_names_the_nearest():
    with pytest.raises(InputError, match=r"configs/qwen3_tie\.yaml: no such file\. Did you mean 'qwen3_ties'\?"):
        resolve_config("configs/qwen3_tie.yaml", {})


def test_files_that_are_no_mapping(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    for name, message in (
        ("list", "expected a mapping of keys to values, got a list"),
        ("broken", "not valid YAML"),
        ("twice", "duplicate key 'a'"),
    ):
        with pytest.raises(InputError, match=message):
            read_yaml(tmp_path / f"{name}.yaml")


def test_set_options():
    assert override(["a.b=1", "a.c=[x]", "d=null"]) == {"a": {"b": 1, "c": ["x"]}, "d": None}
    with pytest.raises(InputError, match="--set: expected key=value, got 'nothing'"):
        override(["nothing"])


def test_family_defaults_come_below_the_file_and_options_above(toy_config):
    data = yaml.safe_load(toy_config.read_text())
    data["family"]["defaults"] = {"generation": {"max_new_tokens": 7, "samples": 3}}
    toy_config.write_text(yaml.safe_dump(data))
    config = resolve_config(str(toy_config), {"generation": {"seed": 9}}).config
    assert (config.generation.max_new_tokens, config.generation.samples, config.generation.seed) == (24, 3, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": {}}, "family: models: expected at least one model besides the base, got {}"),
        ({"models": {"7": "x/y"}}, "start with a letter and consist of letters, digits, '-' and '_', got '7'"),
        ({"models": {"int": 5}}, "family: models.int: expected a mapping, got 5"),
        ({"bse": "x"}, "unknown key 'bse'. Did you mean 'base'?"),
        ({"config": "c"}, "config: expected 'base' or a model of the family, got 'c'. Known members: base, a."),
        ({"defaults": {"nex": {}}}, "defaults: unknown key 'nex'. Known keys: generation, activations."),
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
    with pytest.raises(InputError, match=r"family custom: a: .+/empty: expected .+, got one without config\.json"):
        open_family(family(tmp_path / "empty"), None)
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected a checkpoint folder with model\.safetensors, got no weights"):
        open_family(family(tmp_path / "empty"), None)
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"got only pickled weights \(\*\.bin\), which are never loaded; conv"):
        open_family(family(tmp_path / "empty"), None)
    with pytest.raises(
        InputError, match=r"expected a checkpoint folder or a hub id \(owner/name\), got '/no/such/folder'"
    ):
        open_family(family("/no/such/folder"), None)


def test_an_unavailable_hub_model_points_to_the_bundled_family(toy):
    with pytest.raises(InputError, match=r"could not be downloaded from the hub \(.+or the bundled family qwen3-tiny"):
        open_family({"base": str(toy["base"]), "models": {"a": "nobody/nothing"}}, None)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"methods": ["tise"]}, "methods.0: unknown merge method 'tise'. Did you mean 'ties'?"),
        ({"methods": []}, "methods: expected at least 1 item, got []"),
        ({"methods": ["passthrough"]}, "methods.0: unknown merge method 'passthrough'"),
        ({"methods": ["ties"]}, "parameters.weight: missing, but required by ties. Example: weight: {low: 0.0"),
        (
            {"methods": ["ties"], "parameters": {"wieght": 1.0}},
            "wieght: unknown parameter of ties. Did you mean 'weight'?",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 1.0, "high": 0.0}}},
            "parameters.t: expected low < high, got low 1.0 and high 0.0",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": "half"}},
            "parameters.t: expected a number, {low, high} or {choices: [...]}, got 'half'",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": True}},
            "parameters.t: expected a number, {low, high} or {choices: [...]}, got true",
        ),
        ({"methods": ["slerp"], "parameters": {"t": {"low": 0.0}}}, "parameters.t: high: missing required key"),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "hihg": 1}}},
            "parameters.t: unknown key 'hihg'. Did you mean 'high'?",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0, "log": True}}},
            "expected low > 0 and no step with log: true",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"choices": []}}},
            "expected {choices: [...]} with at least one value, got {choices: []}",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"choices": [0.5, 0.5]}}},
            "t.choices: expected distinct values, got [0.5, 0.5]",
        ),
        (
            {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0, "step": 2.0}}},
            "t.step: expected at most high - low = 1.0, got 2.0",
        ),
        (
            {"methods": ["karcher"], "parameters": {"max_iter": 1.5}},
            "max_iter: expected an integer, {low, high} or {choices: [...]}, got 1.5",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0, "normalize": {"low": 0, "high": 1}}},
            "normalize: expected true, false or {choices: [true, false]}, got a range",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0, "density": 1.5}},
            "density: expected values from 0 to 1, got 1.5",
        ),
        ({"methods": ["slerp"], "parameters": {"t": float("inf")}}, "parameters.t: expected a finite number, got .inf"),
        (
            {"methods": ["della"], "parameters": {"weight": 1.0, "density": 0.9, "epsilon": 0.2}},
            "parameters.density: della: expected density - epsilon > 0 and density + epsilon < 1, got density from 0.9",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "models": {"c": {}}},
            "models: expected one of the models to merge, got 'c'. Known models: a, b.",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "models": {"a": {"lambda": 1.0}}},
            "models.a.lambda: lambda cannot differ between models; move it to `parameters`",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "filters": ["mlp", "mlp"]},
            "filters: expected distinct parts of tensor names other than '*' and 'rest', got [mlp, mlp]",
        ),
        (
            {"methods": ["ties"], "parameters": {"weight": 1.0}, "layer_groups": 0},
            "layer_groups: expected a positive integer, got 0",
        ),
        (
            {"methods": ["ties", "ties"], "parameters": {"weight": 1.0}},
            "methods: expected distinct methods, got [ties, ties]",
        ),
    ],
)
def test_search_space_mistakes(space, message):
    with pytest.raises(InputError) as error:
        load_space(space, SPECS, ["a", "b"])
    assert message in str(error.value)


def test_a_method_with_too_few_models():
    with pytest.raises(InputError, match="model_stock: expected at least 2 models besides the base, got 1"):
        load_space({"methods": ["model_stock"]}, SPECS, ["a"])


def test_an_unknown_space():
    with pytest.raises(InputError, match=r"search_space: unknown search space 'tie'\. Did you mean 'ties'"):
        load_space("tie", SPECS, ["a", "b"])


def test_all_mistakes_are_reported_at_once():
    from nex_merge.setup.config import GenerationConfig

    with pytest.raises(InputError) as error:
        parse(GenerationConfig, {"samples": 0, "seed": -1}, "file")
    assert str(error.value).splitlines() == [
        "file: samples: expected a positive integer, got 0",
        "file: seed: expected a non-negative integer, got -1",
    ]


def test_no_number_is_described_without_its_bounds():
    """Ranges of search spaces: several types, and bounds on one of them."""
    from nex_merge.setup.search_space import RangeConfig

    with pytest.raises(InputError) as error:
        parse(RangeConfig, {"low": "a", "high": True, "step": 0}, "t")
    assert str(error.value).splitlines() == [
        "t: low: expected a number, got 'a'",
        "t: high: expected a number, got true",
        "t: step: expected a positive number, got 0",
    ]


def test_every_setting_has_a_description():
    """Descriptions are the configuration reference and the help."""
    from pydantic import BaseModel

    from nex_merge.setup.config import RunConfig
    from nex_merge.setup.families import FamilyConfig, Location
    from nex_merge.setup.search_space import RangeConfig, SpaceConfig

    sections = [RunConfig, FamilyConfig, Location, SpaceConfig, RangeConfig]
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, (section, name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                sections.append(field.annotation)


def test_the_resolved_configuration_is_plain_yaml(toy_config):
    plan = resolve_config(str(toy_config), {})
    assert json.loads(json.dumps(plan.resolved)) == plan.resolved


def test_a_checkpoint_gets_the_defaults_of_its_family(toy):
    from nex_merge.setup.families import defaults_of

    defaults, family = defaults_of("nex_merge/families/qwen3_tiny/weights/signs")
    assert family == "qwen3-tiny" and defaults["activations"] == {"slice_tokens": 5, "top_k": 64}
    assert defaults_of(str(toy["a"])) == ({}, None)
    assert defaults_of("nobody/nothing") == ({}, None)


def test_a_family_says_what_merged_weights_are_stored_in_and_whether_it_names_a_donor(toy):
    inline = {"base": str(toy["base"]), "models": {"a": str(toy["a"])}}
    plain = open_family(inline, None)
    assert (plain.donor, plain.donor_named, plain.dtype) == ("base", False, None)
    named = open_family({**inline, "config": "base", "dtype": "float32"}, None)
    assert (named.donor, named.donor_named, named.dtype) == ("base", True, "float32")
    with pytest.raises(InputError, match=r"family: dtype: .+'int8'"):
        read_family({**inline, "dtype": "int8"})


def test_a_lora_adapter_is_told_how_to_be_written(toy, tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "you/base"}')
    for path, way in (
        (tmp_path / "lora", rf"got a LoRA adapter .+: \{{path: you/base, adapter: {tmp_path}/lora\}}"),
        (
            f"{toy['base']}+{tmp_path}/lora",
            rf"no such folder\. A LoRA .+: \{{path: .+/base, adapter: {tmp_path}/lora\}}",
        ),
    ):
        with pytest.raises(InputError, match=f"family custom: a: .+{way}"):
            open_family({"base": str(toy["base"]), "models": {"a": str(path)}}, None)


@pytest.mark.parametrize("folder", ["c++/a", "a@main", "with space/a"])
def test_marks_in_a_path_are_part_of_it(toy, tmp_path, folder):
    copied = shutil.copytree(toy["a"], tmp_path / folder)
    assert open_family({"base": str(toy["base"]), "models": {"a": str(copied)}}, None).folders["a"] == copied


def test_of_a_hub_checkpoint_only_the_weights_that_are_read_are_downloaded(toy, tmp_path, monkeypatch):
    import huggingface_hub

    sharded = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    files = ["config.json", "model.safetensors.index.json", *sharded["weight_map"].values(), "consolidated.safetensors"]
    asked = []

    def snapshot_download(repo, revision, allow_patterns, **options):
        asked.append(allow_patterns)
        for name in files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / name).write_text(json.dumps(sharded) if name.endswith("index.json") else "{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    location = Location(path="you/model", revision="main")
    assert locate(location, "family x: a", weights=False) == tmp_path
    assert not list(tmp_path.glob("*.safetensors")) and len(asked) == 1
    assert locate(location, "family x: a") == tmp_path
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == sorted(sharded["weight_map"].values())
    files.remove("config.json")
    (tmp_path / "config.json").unlink()
    with pytest.raises(
        InputError, match=r"family x: a: you/model: .+: expected a checkpoint folder, got one without conf"
    ):
        locate(location, "family x: a")
