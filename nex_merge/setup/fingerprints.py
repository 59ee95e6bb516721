"""What tells one checkpoint from another: its weights, and the files that say how they are used."""

import hashlib
import json
from pathlib import Path

from nex_merge.checkpoints.files import INDEX, TOKENIZER_FILES, WEIGHTS, check_readable, weights_of
from nex_merge.errors import InputError

_SAMPLES, _BLOCK = 64, 4096
_SETTINGS = ("config.json", "generation_config.json", "adapter_config.json", *TOKENIZER_FILES)


def fingerprint(folder: Path) -> str:
    """sha256 over the sizes of a checkpoint's weight files and 64 evenly spaced blocks of each.

    Training changes nearly every weight, so samples tell, and a checkpoint of many gigabytes is not read through.
    Raises InputError if a file is missing.
    """
    content = hashlib.sha256()
    for path in weights_of(folder):
        check_readable(path)
        size = path.stat().st_size
        content.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as file:
            for i in range(_SAMPLES):
                file.seek(i * size // _SAMPLES)
                content.update(file.read(_BLOCK))
    return content.hexdigest()


def settings_of(folder: Path) -> dict[str, str]:
    """sha256 of the files that say how a checkpoint's weights are used: config, generation config and tokenizer.

    JSON counts by its content: spaces and the order of keys make no difference. Raises InputError for unreadable files.
    """
    found = {}
    for name in _SETTINGS:
        path = folder / name
        if path.is_file():
            try:
                found[name] = hashlib.sha256(_content(path)).hexdigest()
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def files_of(folder: Path) -> set[Path]:
    """The files that both are read from, whether or not they exist. Raises InputError for a bad index."""
    return {*weights_of(folder), *(folder / name for name in (WEIGHTS, INDEX, *_SETTINGS))}


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        return json.dumps(json.loads(data), sort_keys=True).encode() if path.suffix == ".json" else data
    except (ValueError, RecursionError):  # whoever loads it says what is wrong with it
        return data
