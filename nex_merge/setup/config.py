"""configs/*.yaml -> RunConfig, validated by pydantic; unknown keys are errors.

Knows file lookup and validation; knows nothing of what the settings are for. A loaded configuration is immutable. The
field descriptions are the configuration reference: `--help` and the documentation print them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator

from nex_merge.errors import InputError
from nex_merge.passwords import without_password
from nex_merge.setup.explain import explain, nearest
from nex_merge.setup.paths import DatabaseName, PathName, expand_for
from nex_merge.setup.prompts_config import PromptsConfig
from nex_merge.setup.strict import Strict
from nex_merge.setup.study_config import StudyConfig
from nex_merge.setup.yaml_files import as_yaml, parse_value, read_yaml

PACKAGE = Path(__file__).parents[1]
Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]
# Keys of a run folder's config.yaml that are not part of the configuration.
SAVED_BESIDES = ("schema", "study_name", "votes", "resolved")


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


def kept_merges(keep: str) -> int | None:
    """Merges that `all`, `top:K` or `none` keeps; None: all. Raises ValueError, in words that follow "expected"."""
    if keep in ("all", "none"):
        return {"all": None, "none": 0}[keep]
    top = re.fullmatch("top:([1-9][0-9]{0,8})", keep)
    if top is None:
        raise ValueError("all, none or top:K with a number of merges from 1, such as top:3")
    return int(top[1])


class CaptureConfig(ActivationsConfig):
    """The activations of a search."""

    capture: Literal["all", "final", "none"] = Field(
        default="all",
        description="final: only who reaches the final, for objectives that are read from answers; none: nobody; NEX "
        "and the other columns that need a second pass over the responses stay empty for the others, and `nex-merge "
        "rescore --capture` fills them",
    )
    keep: str = Field(
        default="all",
        description="merges whose activations stay in the run folder, row by row, by far its largest part: all, top:K "
        "(the K that lead by the objective, of those tried so far) or none; base and the parents keep theirs. Of the "
        "others stays what they are scored, pooled and ranked by, and `nex-merge rescore --capture` reads them again",
    )

    @field_validator("keep")
    @classmethod
    def _keeps(cls, keep: str) -> str:
        kept_merges(keep)
        return keep

    @property
    def kept_merges(self) -> int | None:
        """Merges whose rows stay; None: all."""
        return kept_merges(self.keep)


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


def _positive(workers: int | str | None) -> int | str | None:
    if isinstance(workers, int) and workers < 1:
        raise ValueError(f"a positive integer or 'auto', got {workers}")
    return workers


def _devices(names: list[str] | str) -> list[str] | str:
    if isinstance(names, list) and not (names and all(re.fullmatch(r"cpu|cuda(:\d+)?", name) for name in names)):
        raise ValueError(f"'auto' or devices such as [cuda:0, cuda:1], got {as_yaml(names)}")
    return names


class RuntimeConfig(Strict):
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="what answers the prompts; vllm: vLLM, in an environment of its own (docs/vllm.md); weights are "
        "merged and activations captured as ever",
    )
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="dtype of the forward passes, not of the merged weights; auto: float32 on the CPU, otherwise the "
        "checkpoints' dtype",
    )
    workers: Annotated[int | Literal["auto"] | None, AfterValidator(_positive)] = Field(
        default=None,
        description="processes that do trials, each with a model of its own, at most study.parallel; auto: one per "
        "GPU, without any per core; null: one, or one for each of devices, or with cluster as auto",
    )
    devices: Annotated[list[str] | Literal["auto"], AfterValidator(_devices)] = Field(
        default="auto", description="devices that workers share out, such as [cuda:0, cuda:1]; auto: all GPUs, else cpu"
    )
    cluster: str | None = Field(
        default=None,
        pattern=r"^(ray|auto|[^\s/]+:\d+)$",
        description="Ray cluster whose nodes do the trials: ray starts one on this machine, auto joins the one that "
        "this machine is a node of, as HOST:PORT does; null: none. workers is then the number of its actors, each "
        "with a GPU, or a share of the CPUs, of its own",
    )


class TrackingConfig(Strict):
    trackio: str | None = Field(
        default=None,
        pattern=r"\S",
        description="project of trackio, in the folder or the place that trackio's own variables name",
    )
    mlflow: DatabaseName | None = Field(
        default=None,
        pattern=r"^(databricks|[A-Za-z][\w+.-]*:.+)$",
        description="tracking URI of MLflow, such as sqlite:///mlflow.db or http://HOST:5000",
    )


class RunConfig(Strict):
    """A whole search, as configs/*.yaml hold one; docs/reference/configuration.md lists every key."""

    family: PathName | dict[str, Any] = Field(description="family: a name or file in configs/families, or a mapping")
    models: list[str] | None = Field(default=None, description="models of the family to merge; null: all")
    search_space: PathName | dict[str, Any] | None = Field(
        default=None,
        description="search space: a name or file in search_spaces, or a mapping; required without study.recipes",
    )
    prompts: PromptsConfig = Field(description="prompts to answer")
    generation: GenerationConfig = Field(default=GenerationConfig(), description="how responses are generated")
    activations: CaptureConfig = Field(default=CaptureConfig(), description="how activations are captured")
    nex: NexConfig = Field(default=NexConfig(), description="how NEX is computed")
    consensus: ConsensusConfig = Field(default=ConsensusConfig(), description="how consensus is computed")
    study: StudyConfig = Field(default=StudyConfig(), description="the search itself")
    runtime: RuntimeConfig = Field(default=RuntimeConfig(), description="device and precision")
    tracking: TrackingConfig = Field(
        default=TrackingConfig(), description="experiment trackers that are told of the search"
    )
    output: PathName = Field(description="run folder")


def data_roots() -> list[Path]:
    """Search path of files named in configurations: the working directory, then the files bundled with the package."""
    checkout = PACKAGE.parent
    bundled = [PACKAGE] if (PACKAGE / "configs").is_dir() else [checkout, PACKAGE]
    return [Path(), *bundled]


def find_file(name: str, folder: str | None = None, beside: Path | None = None) -> Path | None:
    """The file or folder at path `name` or, for a bare name and a `folder`, `folder/name.yaml`; None if missing.

    Looked up in `beside`, if given, then along `data_roots`.
    """
    candidates = [Path(name)]
    if folder is not None and not name.endswith((".yaml", ".yml")):
        candidates = [Path(folder) / f"{name}.yaml"]
    roots = ([beside] if beside is not None else []) + data_roots()
    return next((root / path for path in candidates for root in roots if os.path.exists(root / path)), None)


def known_names(folder: str) -> list[str]:
    """Names of the YAML files in `folder`, along `data_roots`."""
    return sorted({path.stem for root in data_roots() for path in (root / folder).glob("*.yaml")})


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """`data` as a `model`. Raises InputError with one line per mistake: source, key, expected and actual value."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(f"{source}: {line}" for line in explain(model, error.errors()))) from None


def without_secrets(config: RunConfig) -> RunConfig:
    """A configuration as it is kept, compared and shown: without passwords in `study.storage` and `tracking.mlflow`."""
    kept = {}
    for section, key in (("study", "storage"), ("tracking", "mlflow")):
        settings = getattr(config, section)
        url = getattr(settings, key)
        if url is not None:
            kept[section] = settings.model_copy(update={key: without_password(url)})
    return config.model_copy(update=kept)


def merge_mappings(low: Mapping[str, Any], high: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """`low` updated with `high`, recursively: where both hold a mapping, the two are merged.

    Within a section, an empty mapping takes the place of another, as in `study.constraints: {}`.
    """
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and (value or not section):
            merged[key] = merge_mappings(old, value, f"{section}{key}.")
        else:
            merged[key] = value
    return merged


def override(settings: Sequence[str]) -> dict[str, Any]:
    """`--set a.b=value` options as a nested mapping; see `parse_value`. Raises InputError if one is not key=value."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise InputError(
                f"--set: expected key=value, got {setting!r}. Example: --set generation.max_new_tokens=256"
            )
        try:
            value = parse_value(text)
        except ValueError as error:
            raise InputError(f"--set {key}: expected {error}") from None
        for part in reversed(parts):
            value = {part: value}
        result = merge_mappings(result, value)
    return result


def read_config(name: str) -> tuple[dict[str, Any], str]:
    """What the configuration file `name` sets, and its path for messages. Raises InputError if there is none.

    The config.yaml of a run folder is that run's configuration, with the folder as its output.
    """
    path = find_file(expand_for(name, "CONFIG"))
    if path is None:
        raise InputError(f"{name}: no such file.{nearest(Path(name).stem, known_names('configs'), 'configurations')}")
    if path.is_dir():
        hint = f"; give {path / 'config.yaml'}" if (path / "config.yaml").is_file() else ""
        raise InputError(f"{name}: expected a configuration file, got a folder{hint}")
    given = read_yaml(path)
    if "resolved" in given:
        given = {key: value for key, value in given.items() if key not in SAVED_BESIDES}
        given["output"] = str(path.parent)
    return given, str(path)
