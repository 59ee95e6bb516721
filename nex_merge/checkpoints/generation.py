"""generation_config.json without what transformers refuses to save and what changes greedy decoding.

Merges are scored by decoding from the bare logits, so a merge that was exported with a repetition penalty or forced
tokens would not answer as it was scored.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from nex_merge.checkpoints.files import read_json
from nex_merge.errors import InputError

FILE = "generation_config.json"


def _number(low: float, high: float, open_at_low: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number from low to high; `open_at_low`: low itself is not allowed."""
    return lambda value: (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (low < value if open_at_low else low <= value)
        and value <= high
    )


def _token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tokens(value: Any) -> bool:
    return _token(value) or (isinstance(value, list) and all(map(_token, value)))


def _count(value: Any) -> bool:
    return _token(value) and value > 0


_SAMPLING: dict[str, Callable[[Any], bool]] = {
    "temperature": _number(0, float("inf"), open_at_low=True),
    "top_k": _token,
    "top_p": _number(0, 1, open_at_low=True),
    "min_p": _number(0, 1),
    "top_h": _number(0, 1, open_at_low=True),
    "typical_p": _number(0, 1, open_at_low=True),
    "epsilon_cutoff": _number(0, 1),
    "eta_cutoff": _number(0, 1),
}
# Settings that are kept if they are sound. Limits of length are: they end a response, but change no token of it.
_KEPT: dict[str, Callable[[Any], bool]] = {
    "bos_token_id": _token,
    "eos_token_id": _tokens,
    "pad_token_id": _token,
    "do_sample": lambda value: isinstance(value, bool),
    "use_cache": lambda value: isinstance(value, bool),
    "max_length": _count,
    "max_new_tokens": _count,
    **_SAMPLING,
}
_METADATA = {"transformers_version", "_from_model_config", "_commit_hash"}
# Arguments of generate(), which no generation config may hold.
_ARGUMENTS = {
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "streamer",
    "negative_prompt_ids", "negative_prompt_attention_mask",
}  # fmt: skip


def mended_generation_config(folder: Path) -> tuple[GenerationConfig, list[str]]:
    """A checkpoint's generation config, mended, and a line for everything that was dropped.

    Without that file: what config.json has of these settings, otherwise transformers' default. Sampling values stay
    where `do_sample` is true, and are dropped where it is not. Raises InputError if the file cannot be read, or names
    end tokens that are none.
    """
    path = folder / FILE
    known, neutral = set(vars(GenerationConfig())) - _METADATA, GenerationConfig._get_default_generation_params()
    if path.exists() or path.is_symlink():
        raw = read_json(path)
    else:
        # Older versions of transformers kept these settings in config.json, and newer ones still look there.
        path = folder / "config.json"
        raw = {key: value for key, value in read_json(path).items() if key in neutral and key != "use_cache"}
    settings, notes = {}, []
    for key, value in raw.items():
        if value is None:
            continue
        reason = None
        if key in _KEPT:
            if key == "eos_token_id" and not _tokens(value):
                raise InputError(f"{path}: eos_token_id: expected token ids, got {_short(value)}; correct the file")
            if not _KEPT[key](value):
                reason = "not a value that transformers accepts"
            elif key in _SAMPLING and raw.get("do_sample") is not True:
                reason = "a sampling value without do_sample: true" if value != neutral.get(key) else ""
        elif key in _ARGUMENTS or (key in known and value and value != neutral.get(key)):
            reason = "it changes how responses are decoded, and merges are scored without it"
        elif key in known:
            reason = ""
        if reason is None:
            settings[key] = value
        elif reason:
            notes.append(f"{path.name}: {key}: {_short(value)} dropped: {reason}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = GenerationConfig(**settings)
            made.validate(strict=True)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: transformers refuses these settings: {error}; correct or remove the file") from None
    return made, notes


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
