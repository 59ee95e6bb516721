"""How a recipe names the checkpoints that it merges."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.configs import architecture_of, mended_config
from nex_merge.checkpoints.files import read_json


def mergekit_config(config: Mapping[str, Any], merged: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """A recipe as mergekit can read it: members that it would misread are spelled out.

    mergekit takes `@` and `+` in a path for a revision and an adapter, and the architecture from config.json, which may
    lack it. `merged`: the checkpoints to put in place of references with an adapter, `base+adapter`.
    """
    places = {reference: str(folder) for reference, folder in (merged or {}).items()}
    return map_models(config, lambda model: _reference(model, places))


def map_models(config: Mapping[str, Any], rename: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy of a recipe with every reference to a model replaced: in `models`, `slices` and `modules`."""
    mapped = copy.deepcopy(dict(config))
    for part in (mapped, *(mapped.get("modules") or {}).values()):
        slices = part.get("slices") or ()
        for item in (part, *slices):
            if item.get("base_model") is not None:
                item["base_model"] = rename(item["base_model"])
        sources = [source for item in slices for source in item["sources"]]
        for model in (*(part.get("models") or ()), *sources):
            model["model"] = rename(model["model"])
    return mapped


def _reference(model: Any, places: Mapping[str, str]) -> Any:
    if isinstance(model, str):
        model = places.get(model, model)
    if not isinstance(model, str) or not (folder := Path(model)).is_dir():
        return model
    architecture = _mended_architecture(folder)
    if architecture is None and not set("@+") & set(model):
        return model
    return {"model": {"path": model}, **({"override_architecture": architecture} if architecture else {})}


def _mended_architecture(folder: Path) -> str | None:
    """The architecture of a checkpoint if its config.json does not name it (see `mended_config`), otherwise None."""
    if not (folder / "config.json").is_file():
        return None
    listed = read_json(folder / "config.json").get("architectures")
    config, _ = mended_config(folder, {})
    return architecture_of(config) if listed != config.architectures else None
