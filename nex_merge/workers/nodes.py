"""A node of a cluster as a worker finds it: its libraries, its processor, and the family's checkpoints on it.

A worker on another machine may have other code, or another checkpoint in a folder of the same name. Either would change
the leaderboard without a word, so both are held against the search's own.
"""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from nex_merge.engines.contracts import Engine
from nex_merge.errors import InputError
from nex_merge.setup.config import PACKAGE, RuntimeConfig, find_file
from nex_merge.setup.families import Family, checkpoints_of, open_family, plain_folders
from nex_merge.setup.fingerprints import settings_of
from nex_merge.setup.resolve import vllm_version
from nex_merge.workers.node_orders import hold_orders

# What merged tensors, tokens and activations are computed by: another version may give other bits.
_DECISIVE = ("nex-merge", "mergekit", "torch", "transformers")
# What carries values from one to the other. Another version is more likely to fail than to give another value.
_CARRIERS = ("numpy", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Facts:
    """What a worker says of itself before anything else."""

    node: str
    place: str  # the node and, where it has one, its GPU
    versions: Mapping[str, str]
    kind: str  # of processor or GPU, as far as results may depend on it


def facts(node: str, gpu: str | None = None) -> Facts:
    """Those of this process. `gpu`: what the node calls the one that it has for itself."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in (*_DECISIVE, *_CARRIERS)}
    versions["nex-merge"] += f", code {_code()}"
    versions["python"] = platform.python_version()
    if (vllm := vllm_version()) is not None:
        versions["vllm"] = vllm
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    if gpu is not None:
        kind += f", {torch.cuda.get_device_name()}"
    return Facts(node, node if gpu is None else f"{node}, GPU {gpu}", versions, kind)


def held_against(own: Mapping[str, str], other: Facts) -> Iterator[str]:
    """What is to be said of a node's versions beside those of the search.

    Raises InputError if one differs that results depend on.
    """
    differing = {name: other.versions.get(name) for name in own if own[name] != other.versions.get(name)}
    for name, version in differing.items():
        if name in _DECISIVE:
            raise InputError(
                f"runtime.cluster: {other.node} has {name} {version}, the search has {own[name]}; merged weights and "
                "answers depend on it, so every node needs the same. Install it there, or use one environment for all"
            )
        yield f"{other.node} has {name} {version}, the search has {own[name]}"


@cache
def _code() -> str:
    """A digest of the package's own code, as two checkouts may bear the same version."""
    content = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return content.hexdigest()[:12]


@dataclass(frozen=True)
class Members:
    """A family as the search has it, to be found again on a node."""

    entry: Mapping[str, Any]  # as `families.read_family` takes it
    models: tuple[str, ...]
    places: Mapping[str, str]  # the folders in the entry by what they are there called
    references: Mapping[str, str]  # how recipes name the members
    checkpoints: Mapping[str, str]  # fingerprints of weights
    settings: Mapping[str, Mapping[str, str]]


def members(family: Family, resolved: Mapping[str, Any]) -> Members:
    """`resolved`: as `ResolvedConfig` has it, with the family as it was read."""
    entry = {**resolved["family"], "models": dict(resolved["family"]["models"])}
    places: dict[str, str] = {}
    for name in family.folders:
        location = dict(entry["base"] if name == "base" else entry["models"][name])
        named = "base" if "adapter" in location else None  # the family's own base, not a folder
        written = [location[key] for key in ("path", "adapter") if location.get(key, named) != named]
        places |= {path: str(folder.resolve()) for path in written if (folder := find_file(path)) is not None}
        if location["path"] not in places and family.folders[name].parent.name == "snapshots":
            location["revision"] = family.folders[name].name  # the branch may have moved since
        if name == "base":
            entry["base"] = location
        else:
            entry["models"][name] = location
    return Members(
        entry, family.models, places, family.references, resolved["checkpoints"], resolved["settings"]
    )  # fmt: skip


def family_here(sought: Members) -> Family:
    """The family on this node, by the folders of the search or by hub id; recipes name its members as before.

    Raises InputError, naming node, member and folder, if a member is missing or is another one.
    """
    node = platform.node()
    entry = {
        "base": _placed(sought.entry["base"], sought.places),
        **{key: value for key, value in sought.entry.items() if key not in ("base", "models")},
        "models": {name: _placed(value, sought.places) for name, value in sought.entry["models"].items()},
    }
    try:
        family = open_family(entry, list(sought.models))
        found = checkpoints_of(family)
        settings = {name: settings_of(folder) for name, folder in plain_folders(family).items()}
    except InputError as error:
        raise InputError(
            f"runtime.cluster: {node}: {error}. Every node needs the search's checkpoints: in a shared folder, as "
            "copies in the same place, or by hub id"
        ) from None
    for name, folder in family.folders.items():
        if found[name] == sought.checkpoints[name] and settings.get(name) == sought.settings.get(name):
            continue
        other = "other weights" if found[name] != sought.checkpoints[name] else "another config or tokenizer"
        raise InputError(
            f"runtime.cluster: {node}: {name}: {folder} has {other} than the search has by that name. Copy the "
            "search's checkpoint there, or use a shared folder"
        )
    elsewhere = {
        theirs: family.folders[name]
        for name, theirs in sought.references.items()
        if theirs != family.references[name]
    }  # fmt: skip
    return replace(family, elsewhere=elsewhere)


def _placed(location: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """A location with the search's folders, but for those that the node has elsewhere, as part of the package."""
    found = dict(location)
    for key in ("path", "adapter"):
        folder = places.get(found.get(key, ""))
        if folder is not None and (os.path.exists(folder) or find_file(found[key]) is None):
            found[key] = folder
    return found


@dataclass(frozen=True)
class OnNode:
    """What makes a worker's engine on its node. Raises what `make` raises."""

    make: Callable[[], Engine]
    search: str  # a name that no other has, for what its workers on one node share

    def __call__(self) -> Engine:
        engine = self.make()
        if engine.family_weights is not None:
            engine.family_weights.keep_ranks(hold_orders(self.search))
        return engine


def family_engine(sought: Members, runtime: RuntimeConfig) -> Engine:
    """The engine of a family on this node. Raises InputError as `family_here` does."""
    from nex_merge.engines.choice import engine_for

    # Ray names the GPU of an actor there, and `ray_actors` nothing if it has none. With `auto`, a node whose driver is
    # broken would compute on the processor, and give other bits.
    device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"
    return engine_for(family_here(sought), runtime.model_copy(update={"device": device}))
