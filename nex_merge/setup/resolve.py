"""A configuration with everything it names at hand. Imports nothing heavy, so that mistakes are told at once."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.setup.config import RunConfig, find_file, load_config, read_yaml
from nex_merge.setup.families import Family, family_defaults, open_family, read_family

_LIBRARIES = ("nex-merge", "mergekit", "torch", "transformers", "optuna", "scikit-learn", "hmmlearn")
_SAMPLES, _BLOCK = 64, 4096


@dataclass(frozen=True)
class Plan:
    """A configuration with everything it names at hand."""

    config: RunConfig
    family: Family
    source: str
    # The family and search space as read, checksums of checkpoints and prompts, library versions.
    resolved: Mapping[str, Any]

    @property
    def run(self) -> Path:
        return Path(self.config.output)


def make_plan(name: str, overrides: Mapping[str, Any]) -> Plan:
    """Load a configuration and what it names. Raises InputError for whatever is wrong with it."""
    config, source = load_config(name, overrides, family_defaults)
    if config.nex.calibration in ("parents", "pool") and not config.study.baselines:
        raise InputError(
            f"{source}: nex.calibration: found {config.nex.calibration!r}, which takes its weights from base and "
            "parents; study.baselines: true, or calibration: self, would do"
        )
    family = open_family(config.family, config.models)
    prompts = find_file(config.prompts.file)
    if prompts is None:
        raise InputError(f"{source}: prompts.file: found no file {config.prompts.file!r}; a path that exists would do")
    space = config.search_space
    if isinstance(space, str):
        path = find_file(space, "search_spaces")
        space = read_yaml(path) if path is not None else {}
    resolved = {
        "family": read_family(config.family)[0].model_dump(exclude_none=True),
        "search_space": space,
        "checkpoints": {name: fingerprint(folder) for name, folder in family.folders.items()},
        "prompts_sha256": hashlib.sha256(prompts.read_bytes()).hexdigest() if prompts.is_file() else None,
        "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
    }
    return Plan(config, family, source, resolved)


def fingerprint(folder: Path) -> str:
    """sha256 over the sizes of a checkpoint's weight files and 64 evenly spaced blocks of each.

    Training changes nearly every weight, so samples tell, and a checkpoint of many gigabytes is not read through.
    """
    content = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        content.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for i in range(_SAMPLES):
                file.seek(i * size // _SAMPLES)
                content.update(file.read(_BLOCK))
    return content.hexdigest()
