"""config.json as transformers reads it, without what would keep a merge from being made or exported.

Refuses what is no decoder of text; says of everything else what was dropped or filled in.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from nex_merge.checkpoints.files import WEIGHTS, read_json
from nex_merge.checkpoints.quantization import check_not_quantized
from nex_merge.checkpoints.weights import StoredTensor
from nex_merge.errors import InputError

FILE = "config.json"
_CAUSAL: Mapping[str, str] = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
_BACKBONES: Mapping[str, Any] = modeling_auto.MODEL_MAPPING_NAMES
# Parts of a config that belong to a model of more than text.
_OTHER_SENSES = ("vision", "audio", "image", "video", "speech", "visual")
# How a forward pass is computed, which is a matter of the machine: whoever trained a member may have had other kernels.
_KERNELS = {
    f"{start}{kind}_implementation{end}": f"_{kind}_implementation"
    for kind in ("attn", "experts")
    for start, end in (("", ""), ("_", ""), ("_", "_internal"))
}
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "talker_config")


def mended_config(folder: Path, tensors: Mapping[str, StoredTensor]) -> tuple[PreTrainedConfig, list[str]]:
    """A checkpoint's config, mended, and a line for everything that was dropped or filled in.

    `tensors`: those of the checkpoint; empty if only its config matters. Raises InputError if the file cannot be read
    or describes no causal language model of text, or if the weights are quantized.
    """
    path = folder / FILE
    raw = read_json(path)
    _check_kind(path, raw)
    for key in ("quantization_config", "compression_config"):
        if not isinstance(raw.get(key), Mapping | None):
            raise InputError(f"{path}: {key}: expected a mapping, got {raw[key]!r}; remove the key")
    notes = []
    if tensors and (method := check_not_quantized(folder, raw, tensors)):
        stored = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
        notes.append(f"{FILE}: quantization_config ({method}) dropped: the weights are stored in {stored}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a config class makes of a wrong value
        raise InputError(f"{path}: transformers cannot read this config: {_reason(error)}; correct it") from None
    _check_decoder(path, raw, config)
    for key in ("quantization_config", "compression_config", "auto_map"):
        if hasattr(config, key):
            delattr(config, key)
    notes += _without_kernels(raw, config)
    causal = _CAUSAL[config.model_type]
    listed = raw.get("architectures")
    config.architectures = [causal]
    if note := _architecture_note(path, listed, causal, config.model_type):
        notes.append(note)
    if raw.get("auto_map"):
        notes.append(f"{FILE}: auto_map dropped: its code is not run; transformers' own {causal} is used")
    return config, notes


def _without_kernels(raw: Mapping[str, Any], config: PreTrainedConfig) -> list[str]:
    """Take the wish for certain kernels out of a config; all members run with transformers' default."""
    for attribute in set(_KERNELS.values()):
        setattr(config, attribute, None)
    asked = [(key, raw[key]) for key in _KERNELS if raw.get(key) not in (None, "sdpa")]
    return [
        f"{FILE}: {key}: {value!r} ignored: members and merges run with transformers' default" for key, value in asked
    ]


def architecture_of(config: PreTrainedConfig) -> str:
    """The model class of a mended config."""
    return (config.architectures or [""])[0]


def _check_kind(path: Path, raw: Mapping[str, Any]) -> None:
    """Refuse what is not a model of text, or is none that this version of transformers knows."""
    listed = raw.get("architectures")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        guess = next((kind for kind, causal in _CAUSAL.items() if causal in names), None)
        example = f'add "model_type": "{guess}"' if guess else "add that of its base model"
        raise InputError(f"{path}: model_type: missing, so transformers cannot tell what model this is; {example}")
    senses = [key for key in raw if key in _NESTED or (key.endswith("_config") and key.startswith(_OTHER_SENSES))]
    if senses:
        raise InputError(
            f"{path}: a model of more than text ({model_type}, with {senses[0]}): only language models can be merged. "
            "Save its language model as a checkpoint of its own, for all members alike"
        )
    if model_type not in CONFIG_MAPPING:
        if raw.get("auto_map"):
            raise InputError(
                f"{path}: model_type {model_type!r} needs the checkpoint's own code (auto_map), which is never run; "
                "use a checkpoint whose model is part of transformers"
            )
        close = difflib.get_close_matches(model_type, _CAUSAL, 1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"{path}: model_type {model_type!r} is unknown to transformers {transformers.__version__}.{meant} Newer "
            "models need a newer transformers"
        )
    if raw.get("is_encoder_decoder") is True:
        raise InputError(f"{path}: an encoder-decoder ({model_type}): only decoders can be merged and scored")
    if model_type not in _CAUSAL:
        raise InputError(f"{path}: model_type {model_type!r} is no causal language model; only those can be merged")


def _check_decoder(path: Path, raw: Mapping[str, Any], config: PreTrainedConfig) -> None:
    """Refuse what the class of the config, rather than the file, tells about the model."""
    if config.is_encoder_decoder:
        raise InputError(f"{path}: an encoder-decoder ({config.model_type}): only decoders can be merged and scored")
    parts = [key for key in (getattr(config, "sub_configs", None) or {}) if getattr(config, key, None) is not None]
    if any(key.startswith(_OTHER_SENSES) for key in parts) or "text_config" in parts:
        raise InputError(
            f"{path}: a model of more than text ({config.model_type}, with {', '.join(sorted(parts))}): only language "
            "models can be merged. Save its language model as a checkpoint of its own, for all members alike"
        )
    weights = raw.get("transformers_weights")
    if weights not in (None, WEIGHTS):
        raise InputError(
            f"{path}: transformers_weights: transformers would read {weights}, and mergekit {WEIGHTS} or its index; "
            "remove the key"
        )


def _architecture_note(path: Path, listed: Any, causal: str, model_type: str) -> str | None:
    """What to say of `architectures`, which should be [causal]. Raises InputError if it names another kind of model."""
    if listed in ([causal], (causal,)):
        return None
    if not listed:
        return f"{FILE}: architectures missing: {causal} taken from model_type"
    names = [str(name) for name in (listed if isinstance(listed, list | tuple) else [listed])]
    backbone = _BACKBONES.get(model_type)
    backbones = {backbone} if isinstance(backbone, str) else set(backbone or ())
    known = _known_classes()
    for name in names:
        if name == causal or name in backbones or name not in known:
            continue
        if name in _CAUSAL.values():
            raise InputError(
                f"{path}: architectures: {name} is not the model of model_type {model_type!r}, which is {causal}; "
                "correct the wrong one"
            )
        kind = "a classifier or reward model" if "Classification" in name else "another kind of model"
        raise InputError(
            f"{path}: architectures: expected {causal}, got {name}: {kind}, which answers no prompts; use the "
            "language model"
        )
    return f"{FILE}: architectures: [{causal}] used instead of {listed!r}"


def _known_classes() -> set[str]:
    """The names of all model classes of transformers."""
    found: set[str] = set()
    for table in dir(modeling_auto):
        if table.endswith("MAPPING_NAMES"):
            for value in getattr(modeling_auto, table).values():
                found |= {value} if isinstance(value, str) else set(value)
    return found


def _reason(error: Exception) -> str:
    """The lines of an error in one, shortened: some list every model that there is."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
