"""configs/*.yaml -> RunConfig, validated by pydantic; unknown keys are errors.

Knows file lookup and validation; knows nothing of what the settings are for. A loaded configuration is immutable. The
field descriptions are the configuration reference: `--help` and the documentation print them.
"""

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from nex_merge.errors import InputError

PACKAGE = Path(__file__).parents[1]
Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Base of all settings: immutable, no unknown keys, no type coercion ('5' is not 5), no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PromptsConfig(Strict):
    file: str = Field(
        description="prompt file: JSONL with 'prompt' or 'messages', text with one prompt per line, CSV or Parquet"
    )
    column: str | None = Field(
        default=None, description="column (CSV, Parquet) or key (JSONL) that holds the prompt; null: 'prompt'"
    )
    limit: int | None = Field(default=None, ge=1, description="use only the first N prompts; null: all")
    system: str | None = Field(default=None, description="system prompt to prepend to every prompt")
    chat_template: bool = Field(
        default=True, description="apply the tokenizer's chat template; false: pass prompts as plain text"
    )
    thinking: bool = Field(default=True, description="value of enable_thinking in the chat template")


class GenerationConfig(Strict):
    max_new_tokens: int = Field(
        default=512, ge=1, description="maximum tokens per response; responses cut here are marked as truncated"
    )
    temperature: float = Field(default=0.0, ge=0, description="sampling temperature; 0: greedy decoding")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus (top-p) sampling; 1 disables it")
    top_k: int = Field(default=0, ge=0, description="top-k sampling; 0 disables it")
    samples: int = Field(default=1, ge=1, description="responses per prompt")
    batch_tokens: int | Literal["auto"] = Field(
        default="auto", description="prompt and response tokens per batch; auto: what fits 4 GiB of KV cache"
    )
    seed: int = Field(default=0, ge=0, description="seed of the sampling noise, which is the same for every variant")


class ActivationsConfig(Strict):
    score: Literal["logit_contribution", "activation", "magnitude"] = Field(
        default="logit_contribution",
        description="score of an MLP unit at a token: its contribution to the emitted token's logit, its activation, "
        "or the absolute value of its activation",
    )
    slice_tokens: int = Field(default=32, ge=1, description="tokens per row of the activation cache")
    top_k: int = Field(default=500, ge=1, description="number of highest scores kept per row")


class PhasesConfig(Strict):
    rho: float = Field(default=0.95, gt=0, lt=1, description="probability that the HMM stays in its state")
    min_run: int = Field(default=2, ge=1, description="minimum length of a phase, in rows")


class NexConfig(PhasesConfig):
    calibration: Literal["self", "crossfit", "parents", "pool"] = Field(
        default="self",
        description="responses that neuron weights are estimated from: the variant's (self), the variant's to the "
        "other folds of prompts (crossfit), the baselines' (parents), or those of baselines and merges so far (pool)",
    )


class ConsensusConfig(Strict):
    match: str = Field(
        default="auto",
        description="how conclusions are read: auto, number, choice, text or regex:PATTERN; auto: number or choice if "
        "the last line of most responses holds one, else text",
    )


class StudyConfig(Strict):
    trials: int = Field(default=40, ge=0, description="number of merges to try, not counting the baselines")
    sampler: Literal["tpe", "random"] = Field(default="tpe", description="Optuna sampler")
    objective: str = Field(default="nex", description="measure that variants are ranked by; see `nex-merge measures`")
    direction: Literal["auto", "maximize", "minimize"] = Field(
        default="auto", description="direction of optimization; auto: the objective's usual one"
    )
    max_mean_tokens: float | None = Field(
        default=None,
        gt=0,
        description="token budget: merges whose responses are longer on average are infeasible and rank last",
    )
    pruner: Literal["none"] = Field(
        default="none", description="trials are never pruned: NEX is defined only once all prompts are answered"
    )
    seed: int = Field(default=0, ge=0, description="seed of the sampler and of stochastic merge methods")
    storage: str | None = Field(default=None, description="Optuna storage URL; null: study.db in the run folder")
    baselines: bool = Field(default=True, description="score the baselines (base and parents) before the merges")


class RuntimeConfig(Strict):
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="dtype of the forward passes, not of the merged weights; auto: float32 on the CPU, otherwise the "
        "checkpoints' dtype",
    )


class RunConfig(Strict):
    """A whole search, as configs/*.yaml hold one; docs/reference/configuration.md lists every key."""

    family: str | dict[str, Any] = Field(description="family: a name or file in configs/families, or a mapping")
    models: list[str] | None = Field(default=None, description="models of the family to merge; null: all")
    search_space: str | dict[str, Any] = Field(
        description="search space: a name or file in search_spaces, or a mapping"
    )
    prompts: PromptsConfig = Field(description="prompts to answer")
    generation: GenerationConfig = Field(default=GenerationConfig(), description="how responses are generated")
    activations: ActivationsConfig = Field(default=ActivationsConfig(), description="how activations are captured")
    nex: NexConfig = Field(default=NexConfig(), description="how NEX is computed")
    consensus: ConsensusConfig = Field(default=ConsensusConfig(), description="how consensus is computed")
    study: StudyConfig = Field(default=StudyConfig(), description="the search itself")
    runtime: RuntimeConfig = Field(default=RuntimeConfig(), description="device and precision")
    output: str = Field(description="run folder")


def data_roots() -> list[Path]:
    """Search path of files named in configurations: the working directory, then the files bundled with the package."""
    checkout = PACKAGE.parent
    bundled = [PACKAGE] if (PACKAGE / "configs").is_dir() else [checkout, PACKAGE]
    return [Path(), *bundled]


def find_file(name: str, folder: str | None = None, beside: Path | None = None) -> Path | None:
    """The file or folder at path `name` or, for a bare name and a `folder`, `folder/name.yaml`; None if missing.

    Looked up in `beside`, if given, then along `data_roots`.
    """
    candidates = [Path(name).expanduser()]
    if folder is not None and not name.endswith((".yaml", ".yml")):
        candidates = [Path(folder) / f"{name}.yaml"]
    roots = ([beside] if beside is not None else []) + data_roots()
    return next((root / path for path in candidates for root in roots if (root / path).exists()), None)


def known_names(folder: str) -> list[str]:
    """Names of the YAML files in `folder`, along `data_roots`."""
    return sorted({path.stem for root in data_roots() for path in (root / folder).glob("*.yaml")})


def nearest(word: str, known: Sequence[str], kind: str = "") -> str:
    """' Did you mean ...?', where a known word is close, and ' Known {kind}: ...'."""
    close = difflib.get_close_matches(word, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Known{' ' * bool(kind)}{kind}: {', '.join(known)}."


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that rejects duplicate keys, of which YAML would silently keep the last."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a scalar key", key_node.start_mark)
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError if the file is missing, not valid YAML or not a mapping."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of keys to values, got {type(data).__name__}")
    return data


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """`data` as a `model`. Raises InputError with one line per mistake: source, key, expected and actual value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in _explain(model, error.errors()))) from None


def _explain(model: type[BaseModel], errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per key at fault. pydantic reports every member of a union; they become one line."""
    by_key: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for error in errors:
        by_key.setdefault(_keys(error), []).append(error)
    return [_explain_key(model, keys, group) for keys, group in by_key.items()]


def _keys(error: Mapping[str, Any]) -> tuple[str, ...]:
    """The location of an error without the names of union members and validators, which are not keys."""
    *parents, last = (str(part) for part in error["loc"])
    is_member = last in ("int", "float", "str", "bool") and error["type"].startswith(
        (last.replace("str", "string"), "greater", "less", "finite")
    )
    if parents and (is_member or last.startswith(("function-", "literal", "dict["))):
        return tuple(parents)
    return (*parents, last)


def _explain_key(model: type[BaseModel], keys: Sequence[str], errors: Sequence[Mapping[str, Any]]) -> str:
    parent, first = _model_at(model, keys[:-1]), errors[0]
    if first["type"] == "extra_forbidden":
        prefix = f"{'.'.join(keys[:-1])}: " if keys[:-1] else ""
        return f"{prefix}unknown key {keys[-1]!r}.{nearest(keys[-1], list(parent.model_fields), 'keys')}"
    key = ".".join(keys)
    if first["type"] == "missing":
        return f"{key}: missing required key"
    expected = " or ".join(dict.fromkeys(_expected(parent.model_fields.get(keys[-1]), error) for error in errors))
    return f"{key}: expected {expected}" + ("" if ", got " in expected else f", got {first['input']!r}")


_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def _expected(field: FieldInfo | None, error: Mapping[str, Any]) -> str:
    """What pydantic expected where it found an error. `field`: of the key at fault; None inside lists and mappings."""
    kind = error["type"]
    if kind.startswith(("int_", "float_", "greater_", "less_", "finite_")):
        return _number(field, is_integer=kind.startswith("int_"))
    if kind == "literal_error":
        return error["ctx"]["expected"]
    if kind == "string_pattern_mismatch" and field is not None and field.description:
        return field.description
    if kind == "too_short":
        return f"at least {error['ctx']['min_length']} item"
    return _EXPECTED.get(kind) or error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _number(field: FieldInfo | None, is_integer: bool) -> str:
    """A field's number in words, its bounds included: 'a positive integer', 'a number > 0 and < 1'."""
    members = set(_members(field.annotation)) if field is not None else set()
    integer = int in members or (not members and is_integer)
    noun = "number" if float in members or not integer else "integer"
    bounds = {
        sign: getattr(item, name)
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        for item in (field.metadata if field is not None else ())
        if getattr(item, name, None) is not None
    }
    if bounds == {">": 0} or (noun == "integer" and bounds == {">=": 1}):
        return f"a positive {noun}"
    if bounds == {">=": 0}:
        return f"a non-negative {noun}"
    limits = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items())
    return f"{'an' if noun == 'integer' else 'a'} {noun}{' ' * bool(limits)}{limits}"


def _members(annotation: Any) -> Iterable[Any]:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _model_at(model: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    for key in keys:
        field = model.model_fields.get(key)
        if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return model


def merge_mappings(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` updated with `high`, recursively: where both hold a mapping, the two are merged."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        merged[key] = merge_mappings(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def override(settings: Sequence[str]) -> dict[str, Any]:
    """`--set a.b=value` options as a nested mapping; values are parsed as YAML.

    Raises InputError if an option is not key=value or its value is not valid YAML.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise InputError(
                f"--set: expected key=value, got {setting!r}. Example: --set generation.max_new_tokens=256"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--set {key}: expected a YAML value, got {text!r}") from None
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merge_mappings(result, value)
    return result


def read_config(name: str) -> tuple[dict[str, Any], str]:
    """What the configuration file `name` sets, and its path for messages. Raises InputError if there is none."""
    path = find_file(name)
    if path is None or not path.is_file():
        raise InputError(f"{name}: no such file.{nearest(Path(name).stem, known_names('configs'), 'configurations')}")
    return read_yaml(path), str(path)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float; bools do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
