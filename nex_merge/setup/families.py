"""Model families (a base and its fine-tunes) as defined in configs/families/*.yaml, and where their files are.

Resolves folders and hub ids; knows nothing of what the checkpoints hold.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from nex_merge.checkpoints import hub
from nex_merge.checkpoints.adapters import WEIGHTS as ADAPTER_WEIGHTS
from nex_merge.checkpoints.adapters import AdapterMember, check_adapter
from nex_merge.checkpoints.files import INDEX, WEIGHTS, about, check_folder, weight_map
from nex_merge.errors import InputError
from nex_merge.setup.cache import cache_folder
from nex_merge.setup.config import find_file, known_names, parse
from nex_merge.setup.explain import nearest
from nex_merge.setup.fingerprints import fingerprint, settings_of
from nex_merge.setup.paths import PathName, expand_for
from nex_merge.setup.strict import Strict
from nex_merge.setup.yaml_files import as_yaml, read_yaml

# Works without a network: its weights are part of the package.
BUNDLED_FAMILY = "qwen3-tiny"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# The small files of a checkpoint that are downloaded: never pickled weights or code.
_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]


class Location(Strict):
    path: PathName = Field(description="checkpoint folder or Hugging Face hub id (owner/name)")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub; null: the default branch")
    adapter: PathName | None = Field(
        default=None,
        description="folder or hub id of a LoRA adapter, to be merged into the checkpoint at `path` (`base`: the "
        "family's base)",
    )


class FamilyConfig(Strict):
    base: Location = Field(description="the base model")
    models: dict[str, Location] = Field(description="fine-tunes of the base, by name")
    config: str | None = Field(
        default=None, description="model whose config and tokenizer the merges get; null: the base"
    )
    dtype: Literal["bfloat16", "float16", "float32"] | None = Field(
        default=None, description="dtype that merged weights are stored in; null: that of most of the base's parameters"
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="default values of `generation` and `activations` in runs of this family"
    )

    @field_validator("base", mode="before", json_schema_input_type=str | Location)
    @classmethod
    def _short_base(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("models", mode="before", json_schema_input_type=dict[str, str | Location])
    @classmethod
    def _short_models(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: {"path": item} if isinstance(item, str) else item for key, item in value.items()}

    @field_validator("models")
    @classmethod
    def _valid_names(cls, value: dict[str, Location]) -> dict[str, Location]:
        if not value:
            raise ValueError("at least one model besides the base")
        for name in value:
            if name == "base" or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    "model names other than 'base' that start with a letter and consist of letters, digits, '-' and "
                    f"'_', got {name!r}"
                )
        return value


class NoFolder(InputError):
    """A checkpoint is not where a family says."""


@dataclass(frozen=True)
class Family:
    """A family whose files are on disk. `folders` maps 'base' and every model's name to its checkpoint folder.

    The folder of a member in `adapters` is in the cache, and made by `merging.merge_adapters`.
    """

    name: str
    folders: Mapping[str, Path]
    donor: str  # the member whose config and tokenizer the merges get: 'base' or a model's name
    donor_named: bool = False  # whether the family names it (`config: base` does); only then may configs differ
    dtype: str | None = None  # dtype that merged weights are stored in; None: that of most of the base's parameters
    adapters: Mapping[str, AdapterMember] = field(default_factory=dict)
    # Folders by what recipes call them that were made on a machine which has them in other places.
    elsewhere: Mapping[str, Path] = field(default_factory=dict)

    @property
    def merged(self) -> Mapping[str, Path]:
        """The checkpoints that recipes name otherwise than by their folders: those of adapters, merged, above all."""
        return {**self.elsewhere, **{member.reference: self.folders[name] for name, member in self.adapters.items()}}

    @property
    def references(self) -> Mapping[str, str]:
        """How recipes name the members: by folder, or `base+adapter`."""
        return {name: str(folder) for name, folder in self.folders.items()} | {
            name: member.reference for name, member in self.adapters.items()
        }

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for name in self.folders if name != "base")


def read_family(entry: str | Mapping[str, Any]) -> tuple[FamilyConfig, str]:
    """A run's `family` entry (name, file or inline mapping) as the family and its name ('custom' if inline).

    Raises InputError if the name is unknown or the family holds a mistake.
    """
    if not isinstance(entry, str):
        if not isinstance(entry, Mapping):
            raise InputError(f"family: expected a family's name, a file or a mapping, got {as_yaml(entry)}")
        return _checked(parse(FamilyConfig, entry, "family"), "family"), "custom"
    path = find_file(expand_for(entry, "family"), "configs/families")
    if path is None:
        if entry.endswith((".yaml", ".yml")):
            raise InputError(
                f"family: no such file: {entry!r}. Write one that names base and models, or name a known family: "
                f"{', '.join(known_names('configs/families'))}"
            )
        raise InputError(
            f"family: unknown family {entry!r}.{nearest(entry, known_names('configs/families'), 'families')}"
        )
    return _checked(parse(FamilyConfig, read_yaml(path), str(path)), str(path)), path.stem


def _checked(config: FamilyConfig, source: str) -> FamilyConfig:
    if config.config is not None and config.config not in {"base", *config.models}:
        members = ["base", *config.models]
        raise InputError(
            f"{source}: config: expected 'base' or a model of the family, got {config.config!r}."
            f"{nearest(config.config, members, 'members')}"
        )
    for key in config.defaults:
        if key not in ("generation", "activations"):
            known = ["generation", "activations"]
            raise InputError(f"{source}: defaults: unknown key {key!r}.{nearest(key, known, 'keys')}")
    return config


def family_defaults(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    """The default settings that a family defines for its runs; see `read_family`."""
    return read_family(entry)[0].defaults


def defaults_of(model: str) -> tuple[dict[str, Any], str | None]:
    """The default settings and the name of the known family that a checkpoint (folder or hub id) belongs to.

    Empty settings and None if it belongs to none.
    """
    folder = find_file(model)
    for name in known_names("configs/families"):
        config, _ = read_family(name)
        for location in (config.base, *config.models.values()):
            known = find_file(location.path)
            if location.path == model or (folder and known and folder.resolve() == known.resolve()):
                return config.defaults, name
    return {}, None


def open_family(entry: str | Mapping[str, Any], models: list[str] | None) -> Family:
    """The family with its checkpoints on disk: local folders are used in place, hub ids are downloaded.

    `models` selects some of its models; None: all. Raises InputError if a model is unknown or unavailable.
    """
    config, name = read_family(entry)
    chosen = list(config.models) if models is None else models
    for index, model in enumerate(chosen):
        if model not in config.models:
            raise InputError(
                f"models.{index}: expected a model of family {name}, got {model!r}."
                f"{nearest(model, list(config.models), 'models')}"
            )
    if not chosen or len(set(chosen)) != len(chosen):
        raise InputError(f"models: expected one or more distinct models of family {name}, got {as_yaml(chosen)}")
    donor = config.config or "base"
    if donor not in ("base", *chosen):
        raise InputError(
            f"models: expected {donor!r} among them, because family {name} takes its config from it, got "
            f"{as_yaml(chosen)}"
        )
    locations = {"base": config.base, **{model: config.models[model] for model in chosen}}
    folders: dict[str, Path] = {}
    adapters: dict[str, AdapterMember] = {}
    for key, location in locations.items():
        source = f"family {name}: {key}"
        if location.adapter is None:
            folders[key] = locate(location, source)
        else:
            under = folders["base"] if location.path == "base" else locate(location, source)
            adapters[key] = AdapterMember(under, locate_adapter(location.adapter, source))
            folders[key] = merged_folder(adapters[key], source)
    return Family(name, folders, donor, config.config is not None, config.dtype, adapters)


def donor_folder(entry: str | Mapping[str, Any]) -> Path:
    """The folder with the tokenizer that merges take; of a hub checkpoint, no weights are downloaded.

    Raises InputError if it is missing or cannot be downloaded.
    """
    config, name = read_family(entry)
    donor = config.config or "base"
    location = {"base": config.base, **config.models}[donor]
    if location.adapter is not None:
        adapter = locate_adapter(location.adapter, f"family {name}: {donor}")
        if (adapter / "tokenizer.json").is_file():
            return adapter
        location = config.base if location.path == "base" else location
    return locate(location, f"family {name}: {donor}", weights=False)


def locate(location: Location, source: str, weights: bool = True) -> Path:
    """The folder of a checkpoint, downloaded if need be. `source` begins the messages.

    `weights`: False where config and tokenizer are enough. Raises InputError if the checkpoint is missing, incomplete
    or cannot be downloaded.
    """
    check_place(location.path, source)
    folder = find_file(location.path)
    if folder is None:
        return _fetch(location, source, weights)
    with about(source):
        check_folder(folder, weights)
    return folder.resolve()


def check_place(path: str, source: str) -> None:
    """Raise InputError unless a path is that of a folder or file, or can be a hub id."""
    if find_file(path) is None and not _HUB_ID.fullmatch(path):
        raise NoFolder(
            f"{source}: expected a checkpoint folder or a hub id (owner/name), got {path!r}, and there is no such "
            f"folder{_as_adapter(path)}"
        )


def _as_adapter(path: str) -> str:
    """How `BASE+ADAPTER`, mergekit's spelling of a LoRA adapter, is written in a family; empty if it is none."""
    base, plus, adapter = path.partition("+")
    if not plus or (find_file(base) is None and not _HUB_ID.fullmatch(base)):
        return ""
    return f". A LoRA adapter is named apart from its checkpoint: {{path: {base}, adapter: {adapter}}}"


def _fetch(location: Location, source: str, weights: bool) -> Path:
    """The snapshot of a hub checkpoint: the small files, then the weights that its index or `model.safetensors` names.

    Copies of the weights in other formats are never downloaded.
    """
    folder = _snapshot(location, source, _FILES)
    if weights:
        index = folder / INDEX
        with about(source):
            shards = sorted(set(weight_map(index).values())) if index.is_symlink() or index.exists() else []
        folder = _snapshot(location, source, [*_FILES, WEIGHTS, *shards])
        hub.fetch_card(location.path, folder)
    with about(f"{source}: {location.path}"):
        check_folder(folder, weights)
    return folder


def _snapshot(location: Location, source: str, patterns: list[str]) -> Path:
    try:
        return hub.fetch(location.path, location.revision, patterns)
    except hub.HubError as error:
        at = f" at revision {location.revision}" if location.revision else ""
        raise InputError(
            f"{source}: {location.path}{at} is not a local folder and could not be downloaded from the hub ({error}). "
            f"Without a network, use a local folder or the bundled family {BUNDLED_FAMILY}"
        ) from None


def plain_folders(family: Family) -> dict[str, Path]:
    """The folders of the members that are no adapters."""
    return {name: folder for name, folder in family.folders.items() if name not in family.adapters}


def checkpoints_of(family: Family) -> dict[str, str]:
    """The fingerprint of every member's weights; of an adapter, that of all that its merged checkpoint depends on."""
    plain = {}
    for name, folder in plain_folders(family).items():
        with about(name):
            plain[name] = fingerprint(folder)
    return {**plain, **{name: family.folders[name].name for name in family.adapters}}


def locate_adapter(adapter: str, source: str) -> Path:
    """The folder of a LoRA adapter. Raises InputError if it is missing or holds none."""
    folder = find_file(adapter)
    if folder is None:
        if not _HUB_ID.fullmatch(adapter):
            raise NoFolder(f"{source}: adapter: expected a folder or a hub id (owner/name), got {adapter!r}")
        folder = _snapshot(Location(path=adapter), f"{source}: adapter", [*_FILES, ADAPTER_WEIGHTS])
        hub.fetch_card(adapter, folder)
    with about(source):
        check_adapter(folder)
    return folder.resolve()


def merged_folder(member: AdapterMember, source: str) -> Path:
    """Where an adapter's merged checkpoint is kept, by the content of both. Raises InputError if there is no place."""
    for path in (member.base, member.adapter):
        if any(mark in str(path) for mark in "@+"):
            raise InputError(
                f"{source}: expected folders without '@' and '+', which mergekit parses as revision and adapter, got "
                f"{path}; rename the folder"
            )
    cache = cache_folder()
    if cache is None:
        raise InputError(f"{source}: a merged adapter needs a cache folder; set XDG_CACHE_HOME to one that exists")
    content = [fingerprint(member.base), settings_of(member.base), fingerprint(member.adapter)]
    content.append(settings_of(member.adapter))
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache / "adapters" / key[:32]
