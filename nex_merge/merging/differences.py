"""In which settings the configs of two members differ, and which of these change what the tensors mean."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from nex_merge.errors import InputError

# Settings that names and shapes of the tensors depend on.
STRUCTURE = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias",
)  # fmt: skip
# Settings that change no forward pass of a trained model: initialisation, training, token ids (merges are scored and
# saved with the end tokens of all members), and how far positions were trained. Settings of transformers' common base
# class (names, versions, dtype, labels, outputs) and settings that the model's class does not declare are harmless too.
_HARMLESS = {"use_cache", "max_position_embeddings", "pretraining_tp", "gradient_checkpointing", "tokenizer_class"}
_HARMLESS_ENDINGS = ("_token_id", "dropout", "_pdrop", "_dropout_prob", "initializer_range", "_init_std", "_loss_coef")
# Rotary embeddings that depend on the context length.
_BY_LENGTH = ("dynamic", "yarn", "longrope")


def differing_keys(a: PreTrainedConfig, b: PreTrainedConfig) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ -> (value in a, value in b), without harmless ones.

    Settings of a nested config are named `text_config.key`.
    """
    ours, theirs = _settings(a), _settings(b)
    found = {}
    for key in sorted(ours.keys() | theirs.keys()):
        pair = (ours.get(key), theirs.get(key))
        if pair[0] != pair[1] and not _is_harmless(key.rpartition(".")[2], ours, theirs):
            found[key] = pair
    return found


def behaviour_keys(differing: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Those of `differing_keys` that change the forward pass of the same tensors: all that are no `STRUCTURE`."""
    return {key: pair for key, pair in differing.items() if key not in STRUCTURE}


def check_structure(name: str, base: PreTrainedConfig, config: PreTrainedConfig) -> None:
    """Raise InputError if the tensors of a member cannot have the base's names and shapes."""
    for key in STRUCTURE:
        ours, theirs = getattr(base, key, None), getattr(config, key, None)
        if ours != theirs:
            raise InputError(
                f"{name}: cannot be merged with base: {key}: expected {ours!r}, got {theirs!r} (config.json)"
            )


def _settings(config: PreTrainedConfig, prefix: str = "") -> dict[str, Any]:
    declared = set(getattr(type(config), "__dataclass_fields__", config.to_dict()))
    common = set(getattr(PreTrainedConfig, "__dataclass_fields__", ())) - {"tie_word_embeddings"}
    found: dict[str, Any] = {}
    for key in declared - common:
        value = getattr(config, key, None)
        if isinstance(value, PreTrainedConfig):
            found |= _settings(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = _plain(value)
    return found | {f"{prefix}model_type": config.model_type}


def _plain(value: Any) -> Any:
    """Tuples as lists and mappings as dicts without null entries, so that equal settings compare equal."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_harmless(key: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    both = (ours, theirs)
    if key == "max_position_embeddings":
        return not any(kind in str(settings.get("rope_parameters")) for settings in both for kind in _BY_LENGTH)
    if key in ("max_window_layers", "use_sliding_window"):
        # Without a window, it does not matter which layers would have it.
        return all(settings.get("sliding_window") is None for settings in both)
    return key in _HARMLESS or key.endswith(_HARMLESS_ENDINGS) or key.startswith("_")
