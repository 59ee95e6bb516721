"""How a recipe names the checkpoints that it merges."""

import copy
from collections.abc import Mapping
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
    spelled = copy.deepcopy(dict(config))
    if "base_model" in spelled:
        spelled["base_model"] = _reference(spelled["base_model"], places)
    for model in spelled.get("models") or ():
        model["model"] = _reference(model["model"], places)
    return spelled


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
