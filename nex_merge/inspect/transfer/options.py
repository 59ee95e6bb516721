"""What a transfer's options name: models, settings, problems. Files and families; loads no weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.inspect.score import ScoreConfig
from nex_merge.inspect.transfer.experiment import Problems, Settings
from nex_merge.labels.benchmark import FAMILY, builtin_items, load_items
from nex_merge.setup.config import PromptsConfig, RuntimeConfig, merge_mappings, nearest, parse
from nex_merge.setup.families import Location, family_defaults, locate, read_family

BUILTIN = "builtin"
BUILTIN_LIMIT = 64


def find_model(name: str, family: str | None, option: str) -> Path:
    """The folder of a checkpoint: a folder, a hub id, or a member of the family. Raises InputError naming `option`."""
    if family is not None and not Path(name).exists() and "/" not in name:
        config, known = read_family(family)
        members = {"base": config.base, **config.models}
        if name not in members:
            raise InputError(f"{option}: found {name!r}, not in family {known}.{nearest(name, list(members))}")
        return locate(members[name], f"family {known}: {name}")
    return locate(Location(path=name), option)


def read_settings(
    prompts: str, family: str | None, overrides: Mapping[str, Any], rho: float, min_run: int
) -> tuple[Settings, RuntimeConfig]:
    """How answers are made and scored, and where: a family's defaults, which `overrides` override."""
    defaults = {} if family is None else family_defaults(family)
    given = merge_mappings({**defaults, "prompts": {"file": prompts}}, overrides)
    config = parse(ScoreConfig, given, "--set")
    return Settings(config.prompts, config.generation, config.activations, rho, min_run), config.runtime


def read_problems(data: str, match: str, limit: int | None, family: str | None, prompts: PromptsConfig) -> Problems:
    """Labelled problems from a file, the first `limit`, or qwen3-tiny's held-out ones, `limit` of each kind."""
    if data == BUILTIN:
        if family is None or read_family(family)[1] != FAMILY:
            raise InputError(f"--data builtin: only family {FAMILY} brings problems; --family {FAMILY} would do")
        return Problems(builtin_items(limit or BUILTIN_LIMIT), PromptsConfig(file=""))
    return Problems(load_items(Path(data), match)[:limit], prompts)
