"""The options of `nex-merge transfer` as models, settings and problems. Loads no weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nex_merge.engines.engine import ObserveSettings
from nex_merge.errors import InputError
from nex_merge.inspect.models import ModelConfig
from nex_merge.inspect.transfer.experiment import Problems
from nex_merge.labels.items import builtin_items, load_items
from nex_merge.merging import merge_adapters
from nex_merge.setup.config import PhasesConfig, PromptsConfig, merge_mappings, nearest, parse
from nex_merge.setup.families import Location, family_defaults, locate, open_family, read_family

BUILTIN = "builtin"
BUILTIN_LIMIT = 64


def find_model(name: str, family: str | None, option: str) -> Path:
    """The folder of a checkpoint: a folder, a hub id or a member of the family. Raises InputError naming `option`."""
    if family is not None and not Path(name).exists() and "/" not in name:
        config, known = read_family(family)
        members = {"base": config.base, **config.models}
        if name not in members:
            raise InputError(
                f"{option}: unknown member {name!r} of family {known}.{nearest(name, list(members), 'members')}"
            )
        if members[name].adapter is not None:
            opened = open_family(family, None)
            merge_adapters(opened.adapters, opened.folders)
            return opened.folders[name]
        return locate(members[name], f"family {known}: {name}")
    return locate(Location(path=name), option)


def read_settings(
    prompts: str, family: str | None, overrides: Mapping[str, Any], rho: float, min_run: int
) -> tuple[ModelConfig, ObserveSettings]:
    """The settings of both models, which start from the family's defaults and are updated with `overrides`.

    And how they answer and are scored by these.
    """
    defaults = {} if family is None else family_defaults(family)
    config = parse(ModelConfig, merge_mappings({**defaults, "prompts": {"file": prompts}}, overrides), "--set")
    phases = parse(PhasesConfig, {"rho": rho, "min_run": min_run}, "transfer")
    return config, ObserveSettings(config.generation, config.activations, phases)


def read_problems(data: str, match: str, limit: int | None, family: str | None, prompts: PromptsConfig) -> Problems:
    """The first `limit` labelled problems of a file, or `limit` held-out problems of each kind of qwen3-tiny."""
    if data == BUILTIN:
        if family is None:
            raise InputError("--data: 'builtin' requires --family, the family whose problems to use")
        items = builtin_items(read_family(family)[1], limit or BUILTIN_LIMIT, "--data builtin")
        return Problems(items, PromptsConfig(file=""))
    return Problems(load_items(Path(data), match)[:limit], prompts)
