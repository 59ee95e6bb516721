"""A member that is a LoRA adapter on a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from nex_merge.checkpoints.files import read_json
from nex_merge.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


# Kinds of peft that change no weights, and so cannot be merged into them.
_VIRTUAL_TOKENS = {
    "ADAPTION_PROMPT", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
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
