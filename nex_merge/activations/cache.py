"""SparseRows and Credits <-> disk. The only module that knows file names and dtypes; knows no models and no scores.

The layout is that of the NEX authors' caches (raw little-endian arrays, memory-mapped when read), plus a
`manifest.json` with the origin of the cache, counts, dtypes and checksums.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.atomic import new_file, new_folder
from nex_merge.errors import InputError
from nex_merge.records import RESERVED_LAYER, Credits, SparseGroups, SparseRows
from nex_merge.wording import counted

FORMAT = 1
MANIFEST = "manifest.json"
DROPPED = "dropped.txt"  # in the folder of a cache: why its rows were removed
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
_RECAPTURED = "restore it, or capture it again"
_RECOMPUTED = "the search computes it from the cache"
_seen: set[tuple[str, int, int, int]] = set()  # files whose checksums were right


def write_cache(folder: Path, cache: SparseRows, made_by: Mapping[str, Any]) -> None:
    """Write a cache and its manifest, with `made_by` in it. `folder` is replaced atomically, by rename."""
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
    """Write the credit of a model's responses in the same way; `made_by`: its settings (rho, min_run)."""
    arrays = dict(zip(CREDIT_DTYPES, (credits.ptr, credits.keys, credits.effective, credits.redundant), strict=True))
    _write_arrays(folder, arrays, CREDIT_DTYPES, {"made_by": dict(made_by), "responses": credits.responses})


def read_credits(folder: Path) -> Credits:
    """The credit of a model's responses.

    Raises InputError if a file is missing or truncated, or does not match the manifest.
    """
    arrays = [_read_array(folder, name, CREDIT_DTYPES) for name in CREDIT_DTYPES]
    if len(arrays[0]) == 0 or any(len(array) != arrays[0][-1] for array in arrays[1:]):
        raise InputError(f"{folder}: its files are inconsistent; {_RECOMPUTED}")
    _check_hashes(folder, dict(zip(CREDIT_DTYPES, arrays, strict=True)), _RECOMPUTED)
    return Credits(*arrays)


def drop_rows(folder: Path, why: str) -> None:
    """Remove the rows of a cache, and say in it why. The masses per response stay, which pools of variants need.

    Safe to repeat: a process that is killed on the way leaves a cache that counts as dropped.
    """
    if dropped(folder) is None:
        with new_file(folder / DROPPED) as file:
            file.write_text(why, encoding="utf-8")
    shutil.rmtree(folder / "rows", ignore_errors=True)


def dropped(folder: Path) -> str | None:
    """Why the rows of a cache were removed; None if they were not."""
    path = folder / DROPPED
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def rows_bytes(folder: Path) -> int:
    """The bytes that the rows of a cache take; 0 without any."""
    return sum(path.stat().st_size for path in (folder / "rows").glob("*"))


def _write_arrays(
    folder: Path, arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str], about: Mapping[str, Any]
) -> None:
    """Write arrays and a manifest. `folder` is replaced atomically, by rename."""
    with new_folder(folder) as new:
        files = {}
        for name, array in arrays.items():
            data = np.ascontiguousarray(array, dtypes[name]).tobytes()
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_bytes(data)
            files[name] = {"dtype": dtypes[name], "count": len(array), "sha256": hashlib.sha256(data).hexdigest()}
        (new / MANIFEST).write_text(json.dumps({"format": FORMAT, **about, "files": files}, indent=1), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest; None if there is none (caches of other tools). Raises InputError if it is damaged."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    files = found.get("files") if isinstance(found, dict) else None
    if not isinstance(files, dict) or not files.keys() <= DTYPES.keys() | CREDIT_DTYPES.keys():
        raise InputError(
            f"{path}: expected the manifest of a cache; restore the folder from a copy, or capture it again"
        )
    return found


def read_cache(folder: Path) -> SparseRows:
    """A cache as memory-mapped arrays.

    Raises InputError if its rows were dropped, or a file is missing or truncated, does not match the manifest, or
    contradicts the others.
    """
    if (why := dropped(folder)) is not None:
        raise InputError(f"{folder}: its rows were not kept ({why}); `nex-merge rescore --capture` captures them again")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the folder of a cache, with rows/ and base/ in it")
    arrays = {name: _read_array(folder, name, DTYPES) for name in DTYPES}
    _check_hashes(folder, arrays)
    rows, base = (
        SparseGroups(arrays[f"{part}/row_ptr.int64"], arrays[f"{part}/keys.uint32"], arrays[f"{part}/w_sum.float16"])
        for part in ("rows", "base")
    )
    cache = SparseRows(arrays["rows/sample_row_ptr.int64"], arrays["rows/token_row_ptr.int64"], rows, base)
    _check_pointers(folder, cache)
    return cache


def read_base(folder: Path) -> SparseGroups:
    """Only the masses per response, which is all that rescoring needs. Raises InputError as `read_cache` does."""
    arrays = {name: _read_array(folder, name, DTYPES) for name in DTYPES if name.startswith("base/")}
    _check_hashes(folder, arrays)
    return SparseGroups(*arrays.values())


def _check_hashes(folder: Path, arrays: Mapping[str, np.ndarray], advice: str = _RECAPTURED) -> None:
    """Raise InputError unless arrays are those of the manifest, if there is one. Every file is read once a process."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    for name, array in arrays.items():
        state = (folder / name).stat()
        seen = (str(folder / name), state.st_ino, state.st_size, state.st_mtime_ns)
        if seen in _seen:
            continue
        entry = manifest["files"].get(name)
        wanted = entry.get("sha256") if isinstance(entry, dict) else None
        if hashlib.sha256(array.tobytes()).hexdigest() != wanted:
            raise InputError(f"{folder / name}: does not match the checksum in {MANIFEST}; {advice}")
        _seen.add(seen)


def _read_array(folder: Path, name: str, dtypes: Mapping[str, str]) -> np.ndarray:
    path, dtype = folder / name, np.dtype(dtypes[name])
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {', '.join(dtypes)} in the folder")
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise InputError(
            f"{path}: expected a multiple of {counted(dtype.itemsize, 'byte')} ({dtype.name}), got {size}; the "
            f"file is truncated"
        )
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
                f"{folder / name}: expected non-decreasing values from 0 to {'the last token' if end is None else end}"
            )
    for name, keys in (("rows/keys.uint32", cache.rows.keys), ("base/keys.uint32", cache.base.keys)):
        if len(keys) and int(keys.max()) >> 16 > RESERVED_LAYER:
            raise InputError(
                f"{folder / name}: expected neuron keys (layer << 16 | unit, layers up to {RESERVED_LAYER}), "
                f"got {int(keys.max())}"
            )
    for name, length, wanted in (
        ("rows/token_row_ptr.int64", len(cache.token_row_ptr), rows + 1),
        ("base/row_ptr.int64", len(cache.base.ptr), cache.responses + 1),
        ("rows/w_sum.float16", len(cache.rows.masses), len(cache.rows.keys)),
        ("base/w_sum.float16", len(cache.base.masses), len(cache.base.keys)),
    ):
        if length != wanted:
            raise InputError(f"{folder / name}: expected {wanted} values, as in the other files, got {length}")
