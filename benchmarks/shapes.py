"""Families with random weights, made on the spot: a base and two experts that differ from it a little, in bfloat16."""

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from toy.tokenizer import make_tokenizer

# 0.6B parameters; a seventh of it: as wide, with a seventh of the layers and of the vocabulary; and Qwen3-4B.
SHAPES = {
    "0.6B": {"num_hidden_layers": 28, "vocab_size": 151_936},
    "seventh": {"num_hidden_layers": 4, "vocab_size": 21_705},
    "4B": {
        "num_hidden_layers": 36, "vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728,
        "num_attention_heads": 32,
    },
}  # fmt: skip
WIDE = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 128, "tie_word_embeddings": True, "max_position_embeddings": 4096, "bos_token_id": None,
}  # fmt: skip


def make_family(shape: str, root: Path, device: str = "cpu") -> dict[str, Path]:
    """Folders of base, a and b; they are made, on a device, where they are not there yet."""
    folders = {name: (root / shape / name).resolve() for name in ("base", "a", "b")}
    if all((folder / "done").exists() for folder in folders.values()):
        return folders
    torch.manual_seed(0)
    config = Qwen3Config(**{**WIDE, **SHAPES[shape]})  # pyright: ignore[reportArgumentType]
    with torch.device(device):
        base: Any = Qwen3ForCausalLM(config)
    base = base.to(torch.bfloat16)
    sound = {name: tensor.clone() for name, tensor in base.named_parameters()}
    with torch.no_grad():
        for number, folder in enumerate(folders.values()):
            generator = torch.Generator(device).manual_seed(number)
            for key, parameter in base.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator, device=device) if number else 0.0
                parameter.copy_(sound[key].float() + 0.002 * noise)
            base.save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
            (folder / "done").touch()
    return folders
