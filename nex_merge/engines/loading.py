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

from nex_merge.checkpoints.files import as_checkpoint
from nex_merge.checkpoints.tokenizers import check_special_tokens
from nex_merge.errors import InputError
from nex_merge.records import Prompt
from nex_merge.wording import counted, first_line


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises InputError if it has none that transformers can load."""
    check_special_tokens(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a tokenizer class makes of a wrong value
        raise InputError(f"{folder}: cannot load a tokenizer: {first_line(error)}") from None
    if not isinstance(tokenizer.model_max_length, int | float):
        raise InputError(
            f"{folder / 'tokenizer_config.json'}: model_max_length: expected a number, got "
            f"{tokenizer.model_max_length!r}; correct the file"
        )
    return tokenizer


def load_model(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A checkpoint's full weights as transformers loads them, and its report on missing and unexpected tensors.

    See `as_checkpoint` for what is no part of them. Raises InputError if transformers can't load it.
    """
    with tempfile.TemporaryDirectory(prefix="nex-merge-") as name:
        source = as_checkpoint(folder, Path(name))
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, config=config, trust_remote_code=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: transformers cannot load it: {first_line(error)}") from None
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
        f"{named}, has {counted(length, 'token')} and the model's context is {context}. Lower it, or shorten the prompt"
    )


def context_of(config: object) -> int | None:
    """The context length in a model's configuration, in tokens; None if it has none."""
    return getattr(config, "max_position_embeddings", None)
