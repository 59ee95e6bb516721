"""Whether a checkpoint's tensors are the parameters of the model that its config describes.

The model is built without memory (on torch's meta device), so that names and shapes are transformers' own.
"""

import json
import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from functools import lru_cache
from io import StringIO
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from nex_merge.checkpoints.configs import architecture_of
from nex_merge.checkpoints.weights import StoredTensor
from nex_merge.errors import InputError
from nex_merge.wording import counted

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
_EXPERTS = re.compile(r"\.experts\.|\.block_sparse_moe\.|\.shared_experts?\.|\.(mlp|feed_forward)\.(gate|router)\.")
_UNMERGED = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer)\b")
# Buffers that older versions of transformers stored and newer ones compute.
_BUFFERS = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.(masked_bias|attn\.bias)$|position_ids$")


def check_layout(
    folder: Path, config: PreTrainedConfig, tensors: Mapping[str, StoredTensor]
) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors that are the model's parameters, and notes on those that are ignored.

    Raises InputError if the model is no dense decoder with `down_proj` in every layer, if tensors are missing or have
    other shapes, or if the output layer contradicts `tie_word_embeddings`.
    """
    if experts := next((name for name in tensors if _EXPERTS.search(name)), None):
        raise InputError(
            f"{folder}: has mixture-of-experts layers ({experts}), and NEX scores the units of dense MLPs; use a dense "
            "model"
        )
    if unmerged := next((other for other in tensors if _UNMERGED.search(other)), None):
        raise InputError(
            f"{folder}: has a LoRA adapter that was not merged into the weights ({unmerged}) and that transformers "
            "would ignore; merge it first (peft: model.merge_and_unload()) and save the result"
        )
    expected = _parameters(config)
    name = architecture_of(config)
    for layer in range(config.num_hidden_layers):
        if f"model.layers.{layer}.mlp.down_proj.weight" not in expected:
            raise InputError(
                f"{folder}: expected gated MLPs at model.layers[i].mlp.down_proj, got {name}, whose layer {layer} has "
                "none; Qwen, Llama, Mistral and Gemma checkpoints have them"
            )
    notes = _check_head(folder, config, tensors)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{folder}: {_missing(name, missing, tensors)}")
    for tensor, shape in expected.items():
        if tensor == EMBEDDINGS and tensors[tensor].shape[0] != shape[0]:
            raise InputError(
                f"{folder / 'config.json'}: vocab_size: {shape[0]}, and the embeddings have {tensors[tensor].shape[0]} "
                "rows: they were resized without the config; set vocab_size to the number of rows"
            )
        if tensors[tensor].shape != shape:
            raise InputError(
                f"{tensors[tensor].file}: shape of {tensor}: config.json asks for {shape}, got "
                f"{tensors[tensor].shape}; the two are not of one model"
            )
    ignored = sorted(other for other in tensors.keys() - expected.keys() - {HEAD} if not _BUFFERS.search(other))
    if ignored:
        notes.append(
            f"{counted(len(ignored), 'tensor')} ignored that {name} has no parameter for, for example {ignored[0]}"
        )
    return {tensor: tensors[tensor] for tensor in tensors if tensor in expected}, notes


def _missing(name: str, missing: list[str], tensors: Mapping[str, StoredTensor]) -> str:
    begin = f"no tensor {missing[0]} (and {len(missing) - 1} more)" if len(missing) > 1 else f"no tensor {missing[0]}"
    if longer := next((other for other in tensors if other.endswith(f".{missing[0]}")), None):
        prefix = longer.removesuffix(missing[0])
        return (
            f"{begin}: names of tensors begin with {prefix!r}, which a wrapper of the training left and transformers "
            "does not read; save the unwrapped model"
        )
    if missing[0].removeprefix("model.") in tensors:
        return (
            f"{begin}: the checkpoint was saved without its head, as a bare backbone; save it with AutoModelForCausalLM"
        )
    return (
        f"{begin}, which {name} has according to config.json; transformers would fill it with random numbers. Use the "
        "config of these weights, or the whole checkpoint"
    )


def _check_head(folder: Path, config: PreTrainedConfig, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Compare the output layer with `tie_word_embeddings`."""
    if not config.tie_word_embeddings:
        if HEAD not in tensors and EMBEDDINGS in tensors:
            raise InputError(
                f"{folder}: no tensor {HEAD}, though config.json has tie_word_embeddings: false. If the model's output "
                "layer is its embeddings, set tie_word_embeddings: true in the config.json of every member; otherwise "
                "the checkpoint is incomplete"
            )
        return []
    if HEAD not in tensors or EMBEDDINGS not in tensors:
        return []
    head, embeddings = tensors[HEAD].load(HEAD), tensors[EMBEDDINGS].load(EMBEDDINGS)
    if torch.equal(head, embeddings.to(head.dtype)) or torch.equal(head.to(embeddings.dtype), embeddings):
        return []
    raise InputError(
        f"{tensors[HEAD].file}: {HEAD} differs from the embeddings, though config.json has tie_word_embeddings: true. "
        "If the output layer was trained on its own, set tie_word_embeddings: false in the config.json of every member "
        f"(and store {HEAD} in each); otherwise remove {HEAD} from the file"
    )


def _parameters(config: PreTrainedConfig) -> dict[str, list[int]]:
    """Names and shapes of the parameters of the model that a config describes; tied ones once."""
    return _of_json(type(config), config.to_json_string(use_diff=False))


@lru_cache(maxsize=8)
def _of_json(kind: type[PreTrainedConfig], text: str) -> dict[str, list[int]]:
    config = kind.from_dict(json.loads(text))
    try:
        with torch.device("meta"), redirect_stderr(StringIO()):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a model class makes of a wrong value
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"config.json describes no model that transformers can build: {reason}") from None
    return {name: list(parameter.shape) for name, parameter in model.named_parameters()}
