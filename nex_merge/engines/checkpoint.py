"""One checkpoint, loaded: for the commands that look at a single model. Composes families and transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from nex_merge.activations.capture import gated_mlps
from nex_merge.errors import InputError
from nex_merge.study.trial import load_tokenizer, resolve_device
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.families import Location, locate


class Checkpoint(NamedTuple):
    """A model ready to answer and to be captured, with its tokenizer."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_checkpoint(model: str, runtime: RuntimeConfig, source: str = "--model") -> Checkpoint:
    """A checkpoint folder or hub id, loaded. Raises InputError, naming `source`, where it can't be had or scored."""
    folder = locate(Location(path=model), source)
    tokenizer = load_tokenizer(folder)
    device, dtype = resolve_device(runtime.device), runtime.dtype
    chosen = (torch.float32 if device == "cpu" else "auto") if dtype == "auto" else getattr(torch, dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=chosen, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{source}: {folder} can't be loaded: {str(error).splitlines()[0]}") from None
    loaded.to(device).eval()
    gated_mlps(loaded)
    return Checkpoint(folder, loaded, tokenizer)
