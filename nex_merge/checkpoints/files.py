"""The files of a checkpoint folder: JSON with errors that name file and line, and whether the folder is complete.

Needs no model library, so that a wrong path is reported at once. What the weight files hold is in `weights`.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nex_merge.errors import InputError
from nex_merge.wording import listed

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What a tokenizer and its chat template may be read from.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "tokenizer.model", "vocab.json", "merges.txt",
)  # fmt: skip
ADAPTER = "adapter_config.json"
_SNAPSHOT = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<revision>[\w.-]+)$", re.ASCII)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
# Weights that are never loaded, and what to do about them.
_TO_SAFETENSORS = (
    'convert it once: AutoModelForCausalLM.from_pretrained("{folder}").save_pretrained("NEW_FOLDER"), and the '
    "tokenizer likewise"
)
_OTHER_WEIGHTS = {
    ".bin": ("pickled weights", _TO_SAFETENSORS),
    ".pt": ("pickled weights", _TO_SAFETENSORS),
    ".pth": ("pickled weights", _TO_SAFETENSORS),
    ".ckpt": ("pickled weights", _TO_SAFETENSORS),
    ".gguf": ("GGUF weights", "take the checkpoint in safetensors that they were made from"),
    ".npz": ("MLX weights", "take the checkpoint in safetensors that they were made from"),
    ".msgpack": ("Flax weights", "take the checkpoint in safetensors"),
    ".h5": ("TensorFlow weights", "take the checkpoint in safetensors"),
}


@contextmanager
def about(name: str) -> Iterator[None]:
    """Begin every InputError that is raised inside with `name`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error.__cause__


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises InputError with file, line and what to do if it cannot be read."""
    check_readable(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected JSON, got bytes that are not UTF-8; {_again(path)}") from None
    if not text.strip():
        raise InputError(f"{path}: expected JSON, got an empty file; {_again(path)}")
    if reason := not_what_it_says(text[:200].encode()):
        raise InputError(f"{path}: expected JSON, got {reason}")
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        at = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise InputError(f"{path}: not valid JSON ({at}); correct it, or {_again(path)}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a JSON object ({{...}}), got {_kind(data)}")
    return data


def weight_map(index: Path) -> dict[str, str]:
    """An index's mapping from tensors to files of its folder. Raises InputError if it is none."""
    data = read_json(index)
    found = data.get("weight_map")
    if not isinstance(found, dict) or not found:
        raise InputError(f"{index}: expected a mapping weight_map from tensors to files; {fetch_again(index.parent)}")
    for tensor, file in found.items():
        if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).is_absolute() or ".." in file:
            raise InputError(f"{index}: weight_map: {tensor}: expected a safetensors file in this folder, got {file!r}")
    if not isinstance(data.get("metadata"), dict | None):
        raise InputError(f"{index}: metadata: expected a mapping, got {_kind(data['metadata'])}; remove the key")
    return found


def weights_of(folder: Path) -> list[Path]:
    """The files that a checkpoint's weights are read from; of a folder without full weights, such as an adapter, all.

    Only what `model.safetensors` or its index names: other files may be left-overs. Raises InputError for a bad index.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return sorted(folder / file for file in set(weight_map(folder / INDEX).values()))
    return sorted(folder.glob("*.safetensors"))


def _kind(data: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", type(None): "null"}.get(type(data), "a number")


def check_readable(path: Path) -> None:
    """Raise InputError if a file is missing, is a link to nothing, or may not be read."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: a link whose target is gone: this download is incomplete; {_again(path)}")
    if not path.exists():
        raise InputError(f"{path}: no such file: this checkpoint is incomplete; {_again(path)}")
    if not path.is_file():
        raise InputError(f"{path}: expected a file, got a folder")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read this file; change it with chmod u+r, or ask its owner")


def not_what_it_says(start: bytes) -> str | None:
    """What a file holds in truth, by its first bytes, and what to do; None if nothing is known about it."""
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file; run `git lfs pull` in its folder"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive or pickled weights under another name; take the checkpoint in safetensors"
    if start.startswith(b"GGUF"):
        return "GGUF weights under another name; take the checkpoint in safetensors"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, perhaps of a login or an error; fetch the file again"
    return None


def fetch_again(folder: Path, damaged: str | None = None) -> str:
    """How to complete a checkpoint, or replace a `damaged` file of it: for the hub's cache, the command."""
    if found := _SNAPSHOT.search(folder.as_posix()):
        file = f" {damaged} --force-download" if damaged else ""
        return f"fetch it again: hf download {found['owner']}/{found['name']}{file} --revision {found['revision']}"
    return "fetch or copy it again"


def _again(path: Path) -> str:
    return fetch_again(path.parent, path.name if path.exists() else None)


def check_folder(folder: Path, weights: bool = True) -> None:
    """Raise InputError if a folder is not a checkpoint with config, tokenizer and safetensors that can be opened.

    `weights`: False where config and tokenizer are enough. What the files hold is not looked at.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a checkpoint folder, got a file{_folder_of(folder)}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: no permission to read this folder; change it with chmod u+rx, or ask its owner")
    names = sorted(entry.name for entry in folder.iterdir())
    full = WEIGHTS in names or INDEX in names
    if ADAPTER in names and not (full and "config.json" in names):
        raise InputError(adapter_message(folder))
    if "config.json" not in names:
        raise InputError(_without_config(folder, names))
    check_readable(folder / "config.json")
    if weights and not full:
        raise InputError(_without_weights(folder, names))
    for name in names:
        # Pickled copies and other files that are never read may be as broken as they like.
        if name.endswith((".json", ".jinja")) or (weights and name == WEIGHTS):
            check_readable(folder / name) if (folder / name).is_symlink() else None


def _folder_of(path: Path) -> str:
    return f"; use its folder, {path.parent}" if (path.parent / "config.json").is_file() else ""


def adapter_message(folder: Path) -> str:
    """How an adapter is named in a family, for somebody who gave its folder as a checkpoint."""
    try:
        base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    except InputError:
        base = None
    return (
        f"{folder}: expected a checkpoint with weights of its own, got a LoRA adapter ({ADAPTER}). Name it together "
        f"with the checkpoint it was trained on: {{path: {base or 'BASE'}, adapter: {folder}}}"
    )


def _without_config(folder: Path, names: list[str]) -> str:
    if _SNAPSHOT.search(folder.as_posix()):
        return f"{folder}: no config.json: this download is incomplete; {fetch_again(folder)}"
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if inner:
        return f"{folder}: expected a checkpoint folder, got one that holds {', '.join(inner[:4])}; use one of these"
    if not any(name.endswith(".safetensors") for name in names) and (other := _other_weights(folder, names)):
        return f"{folder}: expected a checkpoint folder with config.json and safetensors, got {other}"
    advice = "; copy the config of its base model" if any(name.endswith(".safetensors") for name in names) else ""
    return f"{folder}: expected a checkpoint folder, got one without config.json{advice}"


def _without_weights(folder: Path, names: list[str]) -> str:
    begin = f"{folder}: expected a checkpoint folder with {WEIGHTS}"
    if any(_SHARD.fullmatch(name) for name in names):
        return f"{begin} or shards, got shards without their index {INDEX}; {fetch_again(folder)}"
    if any(name.startswith("consolidated") and name.endswith(".safetensors") for name in names):
        return f"{begin}, got only consolidated*.safetensors in the vendor's own format; transformers reads none"
    if found := [name for name in names if name.endswith(".safetensors")]:
        return f"{begin} or shards with {INDEX}, got {', '.join(found[:3])}, which transformers does not read"
    if other := _other_weights(folder, names):
        return f"{begin}, got only {other}"
    if _SNAPSHOT.search(folder.as_posix()):
        return f"{begin}, got no weights: this download is incomplete; {fetch_again(folder)}"
    return f"{begin}, got no weights"


def _other_weights(folder: Path, names: list[str]) -> str | None:
    for name in names:
        if (suffix := Path(name).suffix) in _OTHER_WEIGHTS and name != "training_args.bin":
            kind, advice = _OTHER_WEIGHTS[suffix]
            return f"{kind} (*{suffix}), which are never loaded; {advice.format(folder=folder)}"
    return None


def as_checkpoint(folder: Path, empty: Path) -> Path:
    """A folder that transformers loads as the checkpoint in `folder`: that folder itself, or `empty`, with links to it.

    transformers would load an adapter left beside full weights on top of them, and can't read an index without
    metadata, which changes nothing.
    """
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else {"metadata": {}}
    if not (folder / ADAPTER).is_file() and index.get("metadata") is not None:
        return folder
    return linked_checkpoint(folder, empty)


def linked_checkpoint(folder: Path, empty: Path) -> Path:
    """Fill `empty` with links to the files of the checkpoint in `folder`; see `as_checkpoint`."""
    for path in folder.iterdir():
        if not path.name.startswith("adapter_") and path.name != INDEX:
            (empty / path.name).symlink_to(path.resolve())
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        (empty / INDEX).write_text(json.dumps({**index, "metadata": index.get("metadata") or {}}), encoding="utf-8")
    return empty


def hub_id(folder: Path) -> str | None:
    """The id of a checkpoint in the hub's cache; None for other folders."""
    found = _SNAPSHOT.search(folder.as_posix())
    return f"{found['owner']}/{found['name']}" if found else None


def leftovers(folder: Path, used: set[Path]) -> list[str]:
    """A line for an adapter and for weights that lie in a checkpoint's folder and are not read."""
    notes = [f"{ADAPTER} ignored: an adapter left beside full weights"] if (folder / ADAPTER).exists() else []
    kinds = (".safetensors", *_OTHER_WEIGHTS)
    names = sorted(path.name for path in folder.iterdir() if path.suffix in kinds and path not in used)
    names = [name for name in names if not name.startswith(("training_args", "optimizer", "scheduler", "adapter_"))]
    if names:
        notes.append(f"{listed(names, 3)} ignored: weights are read from what {WEIGHTS} or its index names")
    return notes
