"""Caches round-trip through the disk; damaged ones are rejected with a message."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nex_merge.activations.cache import read_cache, read_manifest, write_cache
from nex_merge.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden"


def test_round_trip(tmp_path):
    cache = read_cache(GOLDEN / "published")
    write_cache(tmp_path / "cache", cache, {"trial": "base"})
    again = read_cache(tmp_path / "cache")
    for name in ("rows", "base"):
        for part in ("ptr", "keys", "masses"):
            before, after = getattr(getattr(cache, name), part), getattr(getattr(again, name), part)
            assert before.dtype == after.dtype and np.array_equal(before, after, equal_nan=before.dtype.kind == "f")
    manifest = read_manifest(tmp_path / "cache")
    assert manifest["made_by"] == {"trial": "base"} and manifest["rows"] == 83 and manifest["responses"] == 1
    assert read_manifest(GOLDEN / "published") is None


def damaged(tmp_path, name, change):
    write_cache(tmp_path / "cache", read_cache(GOLDEN / "short"), {})
    path = tmp_path / "cache" / name
    change(path)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rows/keys.uint32", lambda p: p.unlink(), "keys.uint32: no such file; expected rows/sample_row_ptr.int64, "),
        (
            "rows/keys.uint32",
            lambda p: p.write_bytes(p.read_bytes()[:-1]),
            r"expected a multiple of 4 bytes \(uint32\), got \d+; the file is truncated",
        ),
        ("base/w_sum.float16", lambda p: p.write_bytes(b"\0\0" + p.read_bytes()[2:]), "does not match the checksum"),
    ],
)
def test_damage_is_found(tmp_path, name, change, message):
    with pytest.raises(InputError, match=message):
        read_cache(damaged(tmp_path, name, change))


def test_pointers_that_do_not_fit(tmp_path):
    shutil.copytree(GOLDEN / "short", tmp_path / "cache")
    path = tmp_path / "cache" / "rows" / "row_ptr.int64"
    ptr = np.fromfile(path, np.int64)
    ptr[1] = ptr[-1] + 5
    ptr.tofile(path)
    with pytest.raises(InputError, match=r"row_ptr\.int64: expected non-decreasing values from 0 to \d+"):
        read_cache(tmp_path / "cache")


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_cache(tmp_path / "nothing")
