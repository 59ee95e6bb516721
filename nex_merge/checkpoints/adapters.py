"""A member that is a LoRA adapter on a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterMember:
    """An adapter folder and the checkpoint folder that it is merged into."""

    base: Path
    adapter: Path

    @property
    def reference(self) -> str:
        """How mergekit's recipes name it."""
        return f"{self.base}+{self.adapter}"
