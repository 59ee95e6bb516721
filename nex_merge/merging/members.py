"""The family's checkpoints on disk: configs, tensor headers, and whether they can be merged at all."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from nex_merge.errors import InputError

# safetensors' names of the dtypes that can be merged, and torch's.
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
# Config keys that must agree for tensors to be averaged at all.
_STRUCTURE = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "tie_word_embeddings", "attention_bias",
)  # fmt: skip
# Config keys that affect the forward pass. Merges take them from one member: all agree, or the family names that one.
_BEHAVIOUR = ("rope_parameters", "rope_scaling", "rms_norm_eps", "sliding_window", "use_sliding_window")


def member_configs(folders: Mapping[str, Path]) -> dict[str, PreTrainedConfig]:
    """The transformers config of every member. Raises InputError if one cannot be read."""
    configs = {}
    for name, folder in folders.items():
        if any(mark in str(folder) for mark in "@+"):
            raise InputError(
                f"{name}: expected a folder without '@' and '+', which mergekit parses as revision and adapter, "
                f"got {folder}; rename the folder"
            )
        try:
            configs[name] = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except (ValueError, OSError, KeyError, json.JSONDecodeError) as error:
            raise InputError(f"{name}: {folder}/config.json cannot be read: {first_line(error)}") from None
    return configs


def preflight(folders: Mapping[str, Path], donor: str) -> dict[str, tuple[str, list[int]]]:
    """Check that the members can be merged. Returns the base's tensors: name -> (safetensors dtype, shape).

    `donor`: the member whose config the merges get. Raises InputError if configs, vocabularies or tensors differ.
    """
    configs = member_configs(folders)
    for name, config in configs.items():
        for key in _STRUCTURE:
            ours, theirs = getattr(configs["base"], key, None), getattr(config, key, None)
            if ours != theirs:
                raise InputError(f"{name}: cannot be merged with base: {key}: expected {ours!r}, got {theirs!r}")
        for key in _BEHAVIOUR:
            ours, theirs = getattr(configs[donor], key, None), getattr(config, key, None)
            if ours != theirs and donor == "base":
                raise InputError(
                    f"{name}: {key}: expected {ours!r} as in base, got {theirs!r}. Merges can use only one of the two; "
                    f"choose the member in the family, for example `config: {name}`"
                )
    vocabularies = {name: _vocabulary(folder) for name, folder in folders.items()}
    for name, vocabulary in vocabularies.items():
        if vocabulary != vocabularies["base"]:
            raise InputError(f"{name}: cannot be merged with base: the vocabularies of their tokenizers differ")
    tensors = {name: _tensor_headers(folder) for name, folder in folders.items()}
    if tied := configs["base"].tie_word_embeddings:
        for headers in tensors.values():
            headers.pop("lm_head.weight", None)
    base = tensors["base"]
    for name, headers in tensors.items():
        for tensor in base.keys() ^ headers.keys():
            owner = "base" if tensor in base else name
            raise InputError(
                f"{name}: cannot be merged with base: only {owner} has the tensor {tensor} "
                f"(tie_word_embeddings: {tied})"
            )
        for tensor, (_, shape) in headers.items():
            if shape != base[tensor][1]:
                raise InputError(
                    f"{name}: cannot be merged with base: shape of {tensor}: expected {base[tensor][1]}, got {shape}"
                )
    return base


def _vocabulary(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder}: expected a checkpoint with a fast tokenizer, got none (no tokenizer.json)")
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["model"].get("vocab")


def _tensor_headers(folder: Path) -> dict[str, tuple[str, list[int]]]:
    headers = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    part = file.get_slice(name)
                    headers[name] = (part.get_dtype(), part.get_shape())
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read: {first_line(error)}") from None
    return headers


def weights_dtype(tensors: Mapping[str, tuple[str, list[int]]]) -> str:
    """The dtype of most of a checkpoint's parameters, by torch's name; it becomes the dtype of the merged weights.

    `tensors`: see `preflight`. Raises InputError if it is none of bfloat16, float16 and float32.
    """
    sizes: dict[str, int] = {}
    for dtype, shape in tensors.values():
        sizes[dtype] = sizes.get(dtype, 0) + torch.Size(shape).numel()
    most = max(sizes, key=lambda dtype: sizes[dtype])
    if most not in _DTYPES:
        raise InputError(f"base: expected weights stored as {', '.join(_DTYPES)}, got {most}")
    return _DTYPES[most]


def rounded_members(folders: Mapping[str, Path]) -> list[str]:
    """A line for every member with weights that the dtype of the merged weights cannot hold exactly.

    Merged weights, and with them the baselines, are stored in the dtype of most of the base's parameters (see
    `weights_dtype`): float32 parents of a bfloat16 base are scored and exported rounded. Raises InputError if a
    checkpoint cannot be read.
    """
    target = weights_dtype(_tensor_headers(folders["base"]))
    lines = []
    for name, folder in folders.items():
        stored = [dtype for dtype, _ in _tensor_headers(folder).values()]
        for dtype, count in Counter(stored).items():
            # float32 holds the half precisions exactly; integers are no weights.
            if _DTYPES.get(dtype) == target or target == "float32" or not dtype.startswith(("F", "BF")):
                continue
            of = "is stored in" if count == len(stored) else f"has {count} of {len(stored)} tensors in"
            lines.append(f"rounded: {name!r} {of} {_DTYPES.get(dtype, dtype)}, merged weights are stored in {target}")
    return lines


def stored_dtype(folder: Path) -> str:
    """The dtype that most of a checkpoint's parameters are stored in. Raises InputError if they cannot be read."""
    return weights_dtype(_tensor_headers(folder))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def generation_config(folder: Path) -> GenerationConfig:
    """A checkpoint's generation config; transformers' default if it has none."""
    if (folder / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig()


def end_tokens(folder: Path, config: PreTrainedConfig) -> set[int]:
    """A checkpoint's end-of-sequence tokens: those of its generation config and of its config."""
    found: set[int] = set()
    for value in (generation_config(folder).eos_token_id, config.eos_token_id):
        found |= set(value) if isinstance(value, list) else {value} if isinstance(value, int) else set()
    return found
