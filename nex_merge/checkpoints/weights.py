"""Which tensors a checkpoint has, where each of them lies, and whether transformers and mergekit read the same ones.

Only what `model.safetensors` or its index names is read; copies in other formats beside it are not.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from nex_merge.checkpoints.files import INDEX, WEIGHTS, check_readable, fetch_again, not_what_it_says, weight_map
from nex_merge.errors import InputError
from nex_merge.wording import counted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on disk."""

    file: Path
    dtype: str  # as safetensors writes it, e.g. BF16
    shape: list[int]

    def load(self, name: str) -> "torch.Tensor":
        """Its values; `name`: its own in the file."""
        with safe_open(self.file, "pt") as opened:
            return opened.get_tensor(name)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors that transformers and mergekit both read from a checkpoint, by name.

    Raises InputError if a file is missing or damaged, if the index does not fit its files, or if transformers and
    mergekit would read different files.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    sharded = index.is_symlink() or index.exists()
    if not sharded:
        return _headers(single)
    named = weight_map(index)
    if single.is_symlink() or single.exists():
        # transformers prefers the single file, mergekit the index.
        if set(named.values()) == {WEIGHTS} and named.keys() == _headers(single).keys():
            return _headers(single)
        raise InputError(
            f"{folder}: two sets of weights: transformers reads {WEIGHTS}, mergekit the shards in {INDEX}; remove the "
            "one that is not meant"
        )
    shards = {file: _headers(folder / file) for file in sorted(set(named.values()))}
    for tensor, file in named.items():
        if tensor not in shards[file]:
            others = [name for name, tensors in shards.items() if tensor in tensors]
            found = f"it is in {others[0]}" if others else "no shard holds it"
            raise InputError(
                f"{index}: {tensor} is said to be in {file}, but {found}; correct the index, or {fetch_again(folder)}"
            )
    for file, tensors in shards.items():
        for tensor in tensors:
            if named.get(tensor) != file:
                reason = "the index does not name" if tensor not in named else f"{named[tensor]} holds, too"
                raise InputError(
                    f"{folder / file}: has the tensor {tensor}, which {reason}: transformers and mergekit would read "
                    f"different weights; correct the index, or {fetch_again(folder)}"
                )
    return {tensor: shards[file][tensor] for tensor, file in named.items()}


def _headers(path: Path) -> dict[str, StoredTensor]:
    check_readable(path)
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            found = {name: StoredTensor(path, part.get_dtype(), part.get_shape()) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: {_damage(path) or f'not readable as safetensors ({error})'}") from None
    if not found:
        raise InputError(f"{path}: holds no tensors; {fetch_again(path.parent, path.name)}")
    return found


def _damage(path: Path) -> str | None:
    """What is wrong with a file that is no safetensors file, and what to do."""
    again = fetch_again(path.parent, path.name)
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(1024)
        if not start:
            return f"an empty file; {again}"
        if found := not_what_it_says(start):
            return f"expected safetensors, got {found}"
        (length,) = struct.unpack("<Q", start[:8].ljust(8, b"\0"))
        if length > size:
            return f"cut short or no safetensors file at all ({counted(size, 'byte')}); {again}"
        file.seek(8)
        try:
            header: Mapping[str, Any] = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            return f"expected safetensors, got a file with a broken header; {again}"
    expected = 8 + length + max(ends, default=0)
    return f"expected {counted(expected, 'byte')}, got {size:,}: cut short; {again}" if size < expected else None
