"""The small files of an exported checkpoint: a tokenizer as the member has it, a config that transformers 4 reads, too.

transformers 5 has other names for settings that transformers 4 has as well: `rope_parameters` for `rope_theta` and
`rope_scaling`, `dtype` for `torch_dtype`. Where a setting has a default, transformers 4 would take that without a word.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from nex_merge.checkpoints.files import TOKENIZER_FILES, read_json

CONFIG = "config.json"
# What a tokenizer may be read from besides, by this or another library.
_MORE_TOKENIZER_FILES = (
    "tokenizer.model.*", "vocab.txt", "spiece.model", "*.tiktoken", "*.spm", "*.bpe.model", "tiktoken.model",
    "tekken.json", "additional_chat_templates/*.jinja", "chat_templates/*.jinja",
)  # fmt: skip
# Of a layer type's own rotary frequencies, what these models have under a name of their own in transformers 4.
_LOCAL_THETA = {"gemma3_text": "rope_local_base_freq", "gemma3n_text": "rope_local_base_freq"}
_NESTED = {*_LOCAL_THETA, "olmo3"}


def copy_tokenizer(source: Path, folder: Path) -> list[Path]:
    """Copy a checkpoint's tokenizer files, byte for byte; links become files. Returns the copies."""
    copies = []
    for pattern in (*TOKENIZER_FILES, *_MORE_TOKENIZER_FILES):
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                copies.append(folder / path.relative_to(source))
                copies[-1].parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copies[-1])
    return copies


def add_older_names(folder: Path, member: Path) -> None:
    """Write the settings of config.json under transformers 4's names beside its own, if both read the same model.

    `member`: the checkpoint that the config is from; where it has the older names itself, they are kept.
    """
    path = folder / CONFIG
    written = read_json(path)
    older = _older_rope(written, read_json(member / CONFIG))
    if isinstance(written.get("dtype"), str):
        written["torch_dtype"] = written["dtype"]
        path.write_text(_dumped(written), encoding="utf-8")
    before = _as_read(folder, older)
    path.write_text(_dumped({**older, **written}), encoding="utf-8")
    if _as_read(folder, older) != before:
        path.write_text(_dumped(written), encoding="utf-8")


def needs_transformers_5(folder: Path) -> list[str]:
    """What of a checkpoint transformers 4 can't read, or would read otherwise, each with the reason."""
    config, reasons = read_json(folder / CONFIG), []
    if config.get("rope_parameters") and not any("rope_theta" in name for name in config):
        reasons.append(f"{CONFIG} has rotary frequencies that transformers 4 has no names for")
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path) if path.is_file() else {}
    if tokenizer.get("tokenizer_class") == "TokenizersBackend" or isinstance(
        tokenizer.get("extra_special_tokens"), list
    ):
        reasons.append("transformers 5 wrote its tokenizer")
    return reasons


def forget_places(folder: Path) -> list[str]:
    """Drop settings that name a file or folder of this machine from a checkpoint's JSON files; a note for each.

    Trainers leave them there; nothing reads them.
    """
    notes = []
    for path in sorted(folder.glob("*config.json")):
        content, found = read_json(path), []
        kept = _without_places(content, found)
        if found:
            path.write_text(_dumped(kept), encoding="utf-8")
            notes.append(f"{path.name}: {', '.join(found)} left out: a path of this machine")
    return notes


def _older_rope(written: Mapping[str, Any], member: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings under transformers 4's names; empty if it has no names for them, or there are none."""
    rope = written.get("rope_parameters")
    if not isinstance(rope, dict):
        return {}
    found = _nested(rope, written["model_type"]) if "full_attention" in rope else _flat(rope)
    if "rope_parameters" not in member:
        found |= {name: value for name, value in member.items() if "rope" in name or "rotary" in name}
    return found


def _nested(rope: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Rotary settings by type of layer; transformers 4 has them for a few models."""
    local, name = rope.get("sliding_attention") or {}, _LOCAL_THETA.get(model_type)
    if model_type not in _NESTED or local.get("rope_type") != "default":
        return {}
    if name is None and local["rope_theta"] != rope["full_attention"]["rope_theta"]:
        return {}
    return {**_flat(rope["full_attention"]), **({name: local["rope_theta"]} if name else {})}


def _flat(rope: Mapping[str, Any]) -> dict[str, Any]:
    if "rope_theta" not in rope or rope.get("rope_type") == "longrope":  # of which models have differing forms
        return {}
    rest = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
    older = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    return {**older, "rope_scaling": None if rest.get("rope_type", "default") == "default" else rest}


def _as_read(folder: Path, older: Mapping[str, Any]) -> dict[str, Any]:
    """A config as transformers 5 reads it, but for what repeats something under an older name."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    rope = config.get("rope_parameters") or {}
    rope.pop("type", None)
    return {name: value for name, value in config.items() if name not in older}


def _without_places(content: Any, found: list[str], at: str = "") -> Any:
    """JSON without the entries that name a place of this machine, whose names are added to `found`."""
    if not isinstance(content, dict):
        return content
    kept = {}
    for name, value in content.items():
        if isinstance(value, str) and _is_place(value):
            found.append(at + name)
        else:
            kept[name] = _without_places(value, found, f"{at}{name}.")
    return kept


def _is_place(text: str) -> bool:
    """Whether a text is the path of something on this machine, deeper than a token such as `/think` could be."""
    try:
        return os.path.isabs(text) and len(Path(text).parts) > 2 and os.path.exists(text)
    except (OSError, ValueError):
        return False


def _dumped(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
