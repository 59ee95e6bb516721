"""configs/*.yaml -> RunConfig. Unknown keys are refused with the nearest known one named.

Knows file lookup and validation; knows nothing of what the settings are for. A configuration never changes once loaded.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nex_merge.errors import InputError

PACKAGE = Path(__file__).parents[1]
Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PromptsConfig(Strict):
    file: str = Field(description="JSONL (prompt or messages), text (one a line), CSV or Parquet")
    column: str | None = Field(default=None, description="column of a CSV or Parquet file; 'prompt' unless named")
    limit: int | None = Field(default=None, ge=1, description="use the first so many prompts")
    system: str | None = Field(default=None, description="system prompt put before every prompt")
    chat_template: bool = Field(default=True, description="wrap prompts in the tokenizer's chat template")
    thinking: bool = Field(default=True, description="the template's enable_thinking")


class GenerationConfig(Strict):
    max_new_tokens: int = Field(default=512, ge=1, description="responses cut here are marked as truncated")
    temperature: float = Field(default=0.0, ge=0, description="0: greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus sampling; 1: off")
    top_k: int = Field(default=0, ge=0, description="sample from so many best tokens; 0: off")
    samples: int = Field(default=1, ge=1, description="responses per prompt")
    batch_tokens: int | Literal["auto"] = Field(
        default="auto", description="prompt and response tokens held at once; auto: about 4 GiB of keys and values"
    )
    seed: int = Field(default=0, ge=0, description="sampling noise; the same for every variant")


class ActivationsConfig(Strict):
    score: Literal["logit_contribution", "activation", "magnitude"] = Field(
        default="logit_contribution", description="what a unit scores at a token"
    )
    slice_tokens: int = Field(default=32, ge=1, description="tokens per row")
    top_k: int = Field(default=500, ge=1, description="highest scores kept per row")


class PhasesConfig(Strict):
    rho: float = Field(default=0.95, gt=0, lt=1, description="probability of staying in a phase")
    min_run: int = Field(default=2, ge=1, description="shortest phase, in rows")


class NexConfig(PhasesConfig):
    calibration: Literal["self", "crossfit", "parents", "pool"] = Field(
        default="self",
        description="whose credit the neuron weights come from: the variant's own, that of its other folds of prompts, "
        "base's and parents', or all variants'",
    )


class StudyConfig(Strict):
    trials: int = Field(default=40, ge=0, description="merges to try, baselines not counted")
    sampler: Literal["tpe", "random"] = Field(default="tpe", description="Optuna's sampler")
    objective: Literal[
        "nex", "mean_tokens", "entropy", "entropy_spread", "self_certainty", "perplexity", "utilization", "novelty",
        "explore_share", "cycles_per_response",
    ] = Field(default="nex", description="what variants are ranked by")  # fmt: skip
    direction: Literal["auto", "maximize", "minimize"] = Field(
        default="auto", description="auto: as the objective is usually read"
    )
    max_mean_tokens: float | None = Field(
        default=None, gt=0, description="token budget: merges with longer responses rank below all others"
    )
    pruner: Literal["none"] = Field(default="none", description="NEX is known only when all prompts are answered")
    seed: int = Field(default=0, ge=0, description="of the sampler and of stochastic merges")
    storage: str | None = Field(default=None, description="Optuna storage URL; null: study.db in the run folder")
    baselines: bool = Field(default=True, description="score base and parents first")


class RuntimeConfig(Strict):
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="of computing, not of the merged weights; auto: float32 on the CPU, else the model's own",
    )


class RunConfig(Strict):
    family: str | dict[str, Any] = Field(description="a name or file of configs/families, or the mapping itself")
    models: list[str] | None = Field(default=None, description="which of the family's models to merge; null: all")
    search_space: str | dict[str, Any] = Field(description="a name or file of search_spaces, or the mapping itself")
    prompts: PromptsConfig
    generation: GenerationConfig = GenerationConfig()
    activations: ActivationsConfig = ActivationsConfig()
    nex: NexConfig = NexConfig()
    study: StudyConfig = StudyConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    output: str = Field(description="the run folder")


def data_roots() -> list[Path]:
    """Where files named in configurations are looked for: the working directory, then what the package carries."""
    checkout = PACKAGE.parent
    carried = [PACKAGE] if (PACKAGE / "configs").is_dir() else [checkout, PACKAGE]
    return [Path(), *carried]


def find_file(name: str, folder: str | None = None, beside: Path | None = None) -> Path | None:
    """The file or folder called `name`: as a path, or for a bare name `folder/name.yaml`. None if there is none."""
    candidates = [Path(name).expanduser()]
    if folder is not None and not name.endswith((".yaml", ".yml")):
        candidates = [Path(folder) / f"{name}.yaml"]
    roots = ([beside] if beside is not None else []) + data_roots()
    return next((root / path for path in candidates for root in roots if (root / path).exists()), None)


def known_names(folder: str) -> list[str]:
    """Names of the YAML files in `folder`, wherever it is looked for."""
    return sorted({path.stem for root in data_roots() for path in (root / folder).glob("*.yaml")})


def nearest(word: str, known: Sequence[str]) -> str:
    """' Did you mean ...?' and the known words."""
    close = difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known: {', '.join(known)}."


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a mapping with the same key twice, of which YAML would silently keep the last."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key has to be a word", key_node.start_mark)
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError where there is no such file or it is no mapping."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {type(data).__name__}, a mapping of keys to values would do")
    return data


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """`data` as a `model`. Raises InputError that names file, key, what was found and what would do."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise InputError("\n".join(f"{source}: {line}" for line in lines)) from None


def _explain(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    # Members of a union appear in the location as type names, which are not keys.
    keys = [str(part) for part in item["loc"] if not str(part).startswith(("function-", "literal", "dict["))]
    key, found = ".".join(keys), item["input"]
    if item["type"] == "extra_forbidden":
        known = list(_model_at(model, keys[:-1]).model_fields)
        return f"{key}: unknown key.{nearest(keys[-1], known)}"
    if item["type"] == "missing":
        return f"{key}: missing; it has to be given"
    wanted = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{key}: found {found!r}; {wanted} would do"


def _model_at(model: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    for key in keys:
        field = model.model_fields.get(key)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return model


def merge_mappings(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` overlaid by `high`, mapping by mapping."""
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        merged[key] = (
            merge_mappings(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def override(settings: Sequence[str]) -> dict[str, Any]:
    """`--set a.b=value` options as a nested mapping; values are read as YAML."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError(f"--set {setting}: found no key=value; for example --set generation.max_new_tokens=256")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {setting}: {text!r} is not valid YAML") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merge_mappings(result, value)
    return result


def load_config(name: str, overrides: Mapping[str, Any], family_defaults: Any) -> tuple[RunConfig, str]:
    """The configuration in file `name` and the name of its source for messages.

    `family_defaults` maps the `family` entry to that family's own defaults, which the file overrides, as `overrides`
    (from the command line) override the file.
    """
    path = find_file(name)
    if path is None or not path.is_file():
        raise InputError(f"{name}: no such file.{nearest(Path(name).stem, known_names('configs'))}")
    given = merge_mappings(read_yaml(path), overrides)
    if "family" in given:
        given = merge_mappings(family_defaults(given["family"]), given)
    return parse(RunConfig, given, str(path)), str(path)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float (a bool is neither)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
