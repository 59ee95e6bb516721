"""A member that is a LoRA adapter on a checkpoint."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import hub_id, read_json, weights_of
from nex_merge.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What a merged checkpoint keeps of how it was made; without it, it was not held against peft's model.
RECORD = "merged_adapter.json"

# Kinds of peft that change no weights, and so cannot be merged into them.
_VIRTUAL_TOKENS = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
}  # fmt: skip


def check_adapter(folder: Path) -> None:
    """Raise InputError if a folder holds no adapter that can be merged into weights."""
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(f"adapter: expected a folder with {file}, got {folder}, which has none")
    kind = read_json(folder / CONFIG).get("peft_type")
    if kind in _VIRTUAL_TOKENS:
        raise InputError(f"adapter: {folder / CONFIG}: {kind} changes no weights, so it cannot be merged; use a LoRA")


@dataclass(frozen=True)
class AdapterMember:
    """An adapter folder and the checkpoint folder that it is merged into."""

    base: Path
    adapter: Path

    @property
    def reference(self) -> str:
        """How mergekit's recipes name it."""
        return f"{self.base}+{self.adapter}"

    @property
    def config(self) -> dict[str, Any]:
        """The adapter's configuration. Raises InputError if it can't be read."""
        return read_json(self.adapter / CONFIG)


def kept_notes(merged: Path) -> list[str]:
    """What was said when an adapter was merged into this checkpoint."""
    try:
        return list(json.loads((merged / RECORD).read_text(encoding="utf-8"))["notes"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def other_base(member: AdapterMember) -> str | None:
    """What to say of an adapter whose configuration names another base than it is merged into; None if it doesn't.

    A folder that is there counts by its weights, everything else by its name, wherever it lies.
    """
    named = member.config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None
    if (folder := Path(named).expanduser()).is_dir():
        same = folder.resolve() == member.base.resolve() or _samples(folder) == _samples(member.base)
    else:
        same = _name(Path(named)) == _name(member.base)
    if same:
        return None
    return (
        f"adapter: trained on {named} ({CONFIG}: base_model_name_or_path), merged into {member.base}: on another "
        "checkpoint than its own, an adapter is noise"
    )


def _samples(folder: Path) -> list[tuple[int, bytes]]:
    """Size and middle of every weight file: training changes nearly every weight."""
    found = []
    for path in weights_of(folder):
        with open(path, "rb") as file:
            size = path.stat().st_size
            file.seek(size // 2)
            found.append((size, file.read(1 << 12)))
    return found


def _name(path: Path) -> str:
    """The name of a checkpoint: of the hub's, also in its cache, without owner."""
    name = (hub_id(path) or path.name).rpartition("/")[2]
    return re.sub(r"[-_. ]", "", name).lower()
