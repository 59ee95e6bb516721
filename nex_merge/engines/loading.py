"""Tokenizer, device, dtype and context length of a checkpoint."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from nex_merge.checkpoints.adapters import CONFIG as ADAPTER
from nex_merge.errors import InputError
from nex_merge.records import Prompt


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises InputError if it has none."""
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot load a tokenizer: {str(error).splitlines()[0]}") from None


def load_model(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A checkpoint's full weights as transformers loads them, and its report on missing and unexpected tensors.

    An adapter left beside them, which transformers would load on top, is no part of the checkpoint. Raises InputError
    if transformers can't load it.
    """
    with tempfile.TemporaryDirectory(prefix="nex-merge-") as name:
        source = folder
        if (folder / ADAPTER).is_file():
            source = Path(name)
            for path in folder.iterdir():
                if not path.name.startswith("adapter_"):
                    (source / path.name).symlink_to(path.resolve())
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, config=config, trust_remote_code=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: transformers cannot load it: {str(error).splitlines()[0]}") from None
    model, report = loaded
    return model.eval(), report


def resolve_device(wanted: str) -> str:
    """The torch device for `runtime.device`. Raises InputError if this machine doesn't have it."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise InputError(
            f"runtime.device: expected a device of this machine, got {wanted!r}; it has {torch.cuda.device_count()} "
            "CUDA devices"
        )
    return wanted


def resolve_dtype(wanted: str, device: str, stored: str) -> torch.dtype:
    """The dtype to compute in for `runtime.dtype`; `stored` is the dtype of the checkpoint's weights.

    auto: float32 on the CPU, which is exact for bfloat16 weights and makes results independent of batches; elsewhere
    `stored`.
    """
    return getattr(torch, ("float32" if device == "cpu" else stored) if wanted == "auto" else wanted)


def check_context(
    prompt_ids: Sequence[Sequence[int]], max_new_tokens: int, context: int | None, prompts: Sequence[Prompt] = ()
) -> None:
    """Raise InputError if the longest prompt and a response of `max_new_tokens` exceed the model's context.

    `prompts`: what the ids encode, for the message.
    """
    if context is None or not prompt_ids:
        return
    longest = max(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
    length = len(prompt_ids[longest])
    if length + max_new_tokens <= context:
        return
    place = prompts[longest].where if prompts else ""
    named = f"prompt {longest + 1}" + (f" ({place})" if place else "")
    if length >= context:
        raise InputError(
            f"{named}: expected fewer than {context} tokens, the model's context, got {length}. Shorten or remove it"
        )
    raise InputError(
        f"generation.max_new_tokens: expected at most {context - length}, got {max_new_tokens}: the longest prompt, "
        f"{named}, has {length} tokens and the model's context is {context}. Lower it, or shorten the prompt"
    )


def context_of(config: object) -> int | None:
    """The context length in a model's configuration, in tokens; None if it has none."""
    return getattr(config, "max_position_embeddings", None)
