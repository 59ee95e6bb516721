"""SparseRows and Credits <-> disk: the sole owner of file names and dtypes. Knows nothing of models or of scores.

The layout is that of the NEX authors' own caches (little-endian raw arrays, memory-mapped on reading), with a
`manifest.json` beside it that says what made the cache and holds counts, dtypes and checksums.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.records import RESERVED_LAYER, Credits, SparseGroups, SparseRows

FORMAT = 1
MANIFEST = "manifest.json"
DTYPES = {
    "rows/sample_row_ptr.int64": "<i8",
    "rows/row_ptr.int64": "<i8",
    "rows/token_row_ptr.int64": "<i8",
    "rows/keys.uint32": "<u4",
    "rows/w_sum.float16": "<f2",
    "base/row_ptr.int64": "<i8",
    "base/keys.uint32": "<u4",
    "base/w_sum.float16": "<f2",
}
CREDIT_DTYPES = {"row_ptr.int64": "<i8", "keys.uint32": "<u4", "effective.float32": "<f4", "redundant.float32": "<f4"}


def write_cache(folder: Path, cache: SparseRows, made_by: Mapping[str, Any]) -> None:
    """Write the cache with its manifest; `folder` appears whole, by rename, and replaces an earlier one."""
    arrays = {
        "rows/sample_row_ptr.int64": cache.sample_row_ptr,
        "rows/row_ptr.int64": cache.rows.ptr,
        "rows/token_row_ptr.int64": cache.token_row_ptr,
        "rows/keys.uint32": cache.rows.keys,
        "rows/w_sum.float16": cache.rows.masses,
        "base/row_ptr.int64": cache.base.ptr,
        "base/keys.uint32": cache.base.keys,
        "base/w_sum.float16": cache.base.masses,
    }
    counts = {
        "responses": cache.responses,
        "rows": len(cache.token_row_ptr) - 1,
        "tokens": int(cache.token_row_ptr[-1]),
    }
    _write_arrays(folder, arrays, DTYPES, {"made_by": dict(made_by), **counts})


def write_credits(folder: Path, credits: Credits, made_by: Mapping[str, Any]) -> None:
    """Write the credit of a model's responses, like a cache; `made_by` says what it was found with (rho, min_run)."""
    arrays = dict(zip(CREDIT_DTYPES, (credits.ptr, credits.keys, credits.effective, credits.redundant), strict=True))
    _write_arrays(folder, arrays, CREDIT_DTYPES, {"made_by": dict(made_by), "responses": credits.responses})


def read_credits(folder: Path) -> Credits:
    """The credit of a model's responses. Raises InputError where a file is missing or cut short."""
    arrays = [_read_array(folder, name, CREDIT_DTYPES) for name in CREDIT_DTYPES]
    if len(arrays[0]) == 0 or any(len(array) != arrays[0][-1] for array in arrays[1:]):
        raise InputError(f"{folder}: its files don't fit one another; remove it, and it is made again from the cache")
    return Credits(*arrays)


def _write_arrays(
    folder: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], about: Mapping[str, Any]
) -> None:
    """Write arrays and a manifest; `folder` appears whole, by rename, and replaces an earlier one."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    files = {}
    for name, array in arrays.items():
        data = np.ascontiguousarray(array, dtypes[name]).tobytes()
        _write_synced(partial / name, data)
        files[name] = {"dtype": dtypes[name], "count": len(array), "sha256": hashlib.sha256(data).hexdigest()}
    _write_synced(partial / MANIFEST, json.dumps({"format": FORMAT, **about, "files": files}, indent=1).encode())
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def _write_synced(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None for a cache that has none (written by another tool)."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files.keys() <= DTYPES.keys() | CREDIT_DTYPES.keys():
        raise InputError(f"{path}: is damaged, or no cache's; a copy of the folder, or capturing it again, would do")
    return found


def read_cache(folder: Path) -> SparseRows:
    """A cache as memory-mapped arrays.

    Raises InputError where a file is missing, disagrees with the manifest, or its pointers don't fit its entries.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a cache is a folder with rows/ and base/ in it")
    arrays = {name: _read_array(folder, name, DTYPES) for name in DTYPES}
    manifest = read_manifest(folder)
    if manifest is not None:
        for name, entry in manifest["files"].items():
            if hashlib.sha256(arrays[name].tobytes()).hexdigest() != entry["sha256"]:
                raise InputError(f"{folder / name}: does not match the checksum in {MANIFEST}; capture it again")
    rows, base = (
        SparseGroups(arrays[f"{part}/row_ptr.int64"], arrays[f"{part}/keys.uint32"], arrays[f"{part}/w_sum.float16"])
        for part in ("rows", "base")
    )
    cache = SparseRows(arrays["rows/sample_row_ptr.int64"], arrays["rows/token_row_ptr.int64"], rows, base)
    _check_pointers(folder, cache)
    return cache


def read_base(folder: Path) -> SparseGroups:
    """Only the masses of whole responses, which is all that rescoring needs; without checksums."""
    return SparseGroups(*(_read_array(folder, name, DTYPES) for name in DTYPES if name.startswith("base/")))


def _read_array(folder: Path, name: str, dtypes: Mapping[str, str]) -> np.ndarray:
    path, dtype = folder / name, np.dtype(dtypes[name])
    if not path.is_file():
        raise InputError(f"{path}: missing; the files {', '.join(dtypes)} belong together")
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise InputError(f"{path}: {size} bytes are no whole number of {dtype.name} values; the file is cut short")
    return np.memmap(path, dtype, "r") if size else np.zeros(0, dtype)


def _check_pointers(folder: Path, cache: SparseRows) -> None:
    rows = len(cache.rows.ptr) - 1
    checks = (
        ("rows/sample_row_ptr.int64", cache.sample_row_ptr, rows),
        ("rows/row_ptr.int64", cache.rows.ptr, len(cache.rows.keys)),
        ("rows/token_row_ptr.int64", cache.token_row_ptr, None),
        ("base/row_ptr.int64", cache.base.ptr, len(cache.base.keys)),
    )
    for name, ptr, end in checks:
        if len(ptr) == 0 or ptr[0] != 0 or (np.diff(ptr) < 0).any() or (end is not None and ptr[-1] != end):
            raise InputError(
                f"{folder / name}: its values must rise from 0 to {'the last token' if end is None else end}"
            )
    for name, keys in (("rows/keys.uint32", cache.rows.keys), ("base/keys.uint32", cache.base.keys)):
        if len(keys) and int(keys.max()) >> 16 > RESERVED_LAYER:
            raise InputError(f"{folder / name}: {int(keys.max())} is no neuron: layer << 16 | unit, layers to 255")
    for name, length, wanted in (
        ("rows/token_row_ptr.int64", len(cache.token_row_ptr), rows + 1),
        ("base/row_ptr.int64", len(cache.base.ptr), cache.responses + 1),
        ("rows/w_sum.float16", len(cache.rows.masses), len(cache.rows.keys)),
        ("base/w_sum.float16", len(cache.base.masses), len(cache.base.keys)),
    ):
        if length != wanted:
            raise InputError(f"{folder / name}: has {length} values, the other files call for {wanted}")
