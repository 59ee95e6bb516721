"""Model families: a base and fine-tunes of it, as named in configs/families/*.yaml, and where their files are.

Only folders and hub ids are handled here; what the weights hold is the business of merging.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from nex_merge.errors import InputError
from nex_merge.setup.config import Strict, find_file, known_names, nearest, parse, read_yaml

ALWAYS_WORKS = "qwen3-tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# What a checkpoint is made of. Pickled weights and code are never fetched.
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]


class Location(Strict):
    path: str = Field(description="a folder or a hub id")
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")


class FamilyConfig(Strict):
    base: Location
    models: dict[str, Location]
    config: str | None = Field(default=None, description="whose config and tokenizer the merges take; null: the base's")
    defaults: dict[str, Any] = Field(default_factory=dict, description="of generation and activations, for its runs")

    @field_validator("base", mode="before")
    @classmethod
    def _short_base(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("models", mode="before")
    @classmethod
    def _short_models(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: {"path": item} if isinstance(item, str) else item for key, item in value.items()}

    @field_validator("models")
    @classmethod
    def _named(cls, value: dict[str, Location]) -> dict[str, Location]:
        if not value:
            raise ValueError("at least one model besides the base")
        for name in value:
            if name == "base" or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(f"names of letters, digits, - and _ that begin with a letter (found {name!r})")
        return value


@dataclass(frozen=True)
class Family:
    """A family whose files are at hand. `folders` maps 'base' and every model's name to its checkpoint."""

    name: str
    folders: Mapping[str, Path]
    donor: str  # whose config and tokenizer the merges take: 'base' or a model's name

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for name in self.folders if name != "base")


def read_family(entry: str | Mapping[str, Any]) -> tuple[FamilyConfig, str]:
    """The family that a configuration names or holds, and its name."""
    if not isinstance(entry, str):
        if not isinstance(entry, Mapping):
            raise InputError(f"family: found {entry!r}; a family's name, its file or the mapping itself would do")
        return _checked(parse(FamilyConfig, entry, "family"), "family"), "custom"
    path = find_file(entry, "configs/families")
    if path is None:
        raise InputError(
            f"family: found {entry!r}, which is no family.{nearest(entry, known_names('configs/families'))}"
        )
    return _checked(parse(FamilyConfig, read_yaml(path), str(path)), str(path)), path.stem


def _checked(config: FamilyConfig, source: str) -> FamilyConfig:
    if config.config is not None and config.config not in {"base", *config.models}:
        raise InputError(
            f"{source}: config: found {config.config!r}.{nearest(config.config, ['base', *config.models])}"
        )
    for key in config.defaults:
        if key not in ("generation", "activations"):
            raise InputError(f"{source}: defaults.{key}: unknown key.{nearest(key, ['generation', 'activations'])}")
    return config


def family_defaults(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings a family brings to its runs."""
    return read_family(entry)[0].defaults


def defaults_of(model: str) -> tuple[dict[str, Any], str | None]:
    """The settings that a checkpoint's family brings, and its name: of the known families, the one that it is of."""
    own = find_file(model)
    for name in known_names("configs/families"):
        config, _ = read_family(name)
        for location in (config.base, *config.models.values()):
            found = find_file(location.path)
            if location.path == model or (own is not None and found is not None and own.resolve() == found.resolve()):
                return config.defaults, name
    return {}, None


def open_family(entry: str | Mapping[str, Any], models: list[str] | None) -> Family:
    """The family with its checkpoints at hand: local folders as they are, hub ids fetched.

    `models` narrows it. Raises InputError where a model can't be had.
    """
    config, name = read_family(entry)
    chosen = list(config.models) if models is None else models
    for index, model in enumerate(chosen):
        if model not in config.models:
            raise InputError(
                f"models.{index}: found {model!r}, not in family {name}.{nearest(model, list(config.models))}"
            )
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"models: found {chosen}; one or more different models of family {name} would do")
    donor = config.config or "base"
    if donor not in ("base", *chosen):
        raise InputError(f"models: family {name} takes its config from {donor!r}, which has to be among them")
    locations = {"base": config.base, **{model: config.models[model] for model in chosen}}
    return Family(name, {key: locate(value, f"family {name}: {key}") for key, value in locations.items()}, donor)


def locate(location: Location, source: str) -> Path:
    """The folder of a checkpoint. Raises InputError where it is missing, incomplete or can't be fetched."""
    folder = find_file(location.path)
    if folder is None:
        if not _HUB_ID.fullmatch(location.path):
            raise InputError(f"{source}: found no folder {location.path!r}, and it is no hub id (owner/name) either")
        return _fetch(location, source)
    if not (folder / "config.json").is_file():
        raise InputError(f"{source}: {folder} has no config.json; a checkpoint folder would do")
    if not any(folder.glob("*.safetensors")):
        found = "pickled weights only (.bin)" if any(folder.glob("*.bin")) else "no weights"
        raise InputError(f"{source}: {folder} has {found}; a folder with *.safetensors would do")
    return folder.resolve()


def _fetch(location: Location, source: str) -> Path:
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            location.path, revision=location.revision, allow_patterns=_FILES, etag_timeout=5, max_workers=4
        )
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.HFValidationError,
        httpx2.HTTPError,
        OSError,
    ) as error:
        at = f" at revision {location.revision}" if location.revision else ""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{source}: {location.path}{at} is no folder here and can't be had from the hub ({reason}). "
            f"Without a network give a local folder, or use the family that always works: {ALWAYS_WORKS}"
        ) from None
    if not any(Path(folder).glob("*.safetensors")):
        raise InputError(f"{source}: {location.path} offers no *.safetensors; pickled weights are never loaded")
    return Path(folder)
