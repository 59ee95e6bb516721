"""One pass over all weights of a family: what would spoil every merge, found before the first one.

Tensors are memory-mapped and looked at in blocks, one tensor of all members per core.
"""

import itertools
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch

from nex_merge.checkpoints.weights import StoredTensor, stored_tensors
from nex_merge.errors import InputError
from nex_merge.merging.members import check_distinct
from nex_merge.records import MethodSpec
from nex_merge.threads import on_cores

# A task vector of this length, relative to the base's weights, belongs to another base: the package's fine-tunes have
# 0.08 to 0.20 (measured), unrelated weights of equal size the square root of 2.
UNRELATED = 1.0
_BLOCK = 1 << 20  # elements that are converted at a time
_FIRST = 4096  # elements that tell most tensors apart


@dataclass(frozen=True)
class _Looked:
    """What one tensor of all members is like."""

    tensor: str
    is_matrix: bool
    size: float  # squared norm of the base's
    deltas: Mapping[str, float]  # squared norms of the differences of other members to it
    zero: frozenset[str]  # members where it is all zeros
    unequal: frozenset[tuple[str, str]]  # pairs of members that differ in it


def survey(folders: Mapping[str, Path], out_dtype: str, methods: Sequence[MethodSpec] = ()) -> list[str]:
    """Notes on the weights of all members: matrices of zeros, a base that is not theirs, and equal checkpoints.

    `out_dtype`: dtype of the merged weights, by torch's name. `methods`: those that will be tried; see
    `check_distinct`. Raises InputError if an element is NaN or infinite, or beyond the range of `out_dtype`.
    """
    notes = check_distinct(folders, methods)
    stored = {name: stored_tensors(folder) for name, folder in folders.items()}

    def look(tensor: str) -> _Looked:
        return _look(tensor, {name: found[tensor] for name, found in stored.items() if tensor in found}, out_dtype)

    base = stored["base"]
    looked = list(on_cores(look, sorted(base, key=lambda tensor: (str(base[tensor].file), tensor))))
    matrices = [item for item in looked if item.is_matrix]
    for name in folders:
        zero = [item.tensor for item in matrices if name in item.zero]
        if zero and len(zero) == len(matrices):
            raise InputError(f"{name}: all {len(zero)} matrices are zeros: its weights were not saved")
        alone = [item.tensor for item in matrices if name in item.zero and len(item.zero) < len(folders)]
        if alone:
            more = f" and {len(alone) - 1} more matrices" if len(alone) > 1 else ""
            notes.append(f"{name}: {alone[0]}{more}: all zeros, unlike in other members")
    notes += _equal(folders, frozenset().union(*(item.unequal for item in looked)))
    size = sum(item.size for item in matrices)
    for name in folders:
        ratio = math.sqrt(sum(item.deltas.get(name, 0.0) for item in matrices) / size) if size else 0.0
        if ratio >= UNRELATED:
            notes.append(
                f"{name}: its weights differ from base's by {ratio:.2f} times their size, as unrelated models do. base "
                "is probably not the model it was trained from, and merges of unrelated models answer nonsense; name "
                "the right base"
            )
    return notes


def _look(tensor: str, found: Mapping[str, StoredTensor], dtype: str) -> _Looked:
    """Look at one tensor of all members that have it. Raises InputError as `survey` does."""
    values = {name: item.load(tensor) for name, item in found.items()}
    base = values["base"]
    size = _squared_norm(base)
    # Of a member of another shape, which preflight refuses, only the norm is of use.
    deltas = {
        name: _squared_norm(value, base if value.shape == base.shape else None)
        for name, value in values.items()
        if name != "base"
    }
    for name, value in values.items():
        # A finite norm has no NaN and no infinity under it; only float16 has a range that weights go beyond.
        if not math.isfinite(size) or not math.isfinite(deltas.get(name, size)) or dtype == "float16":
            _check_range(name, found[name], tensor, value, dtype)
    pairs = itertools.combinations(values, 2)
    unequal = frozenset((one, other) for one, other in pairs if not _same(values[one], values[other]))
    zero = frozenset(name for name, value in values.items() if not (value.flatten()[:_FIRST].any() or value.any()))
    return _Looked(tensor, base.dim() > 1, size, deltas, zero, unequal)


def _check_range(name: str, stored: StoredTensor, tensor: str, value: torch.Tensor, dtype: str) -> None:
    largest = torch.finfo(getattr(torch, dtype)).max
    if not value.is_floating_point() or not value.numel():
        return
    low, high = value.aminmax()
    peak = max(abs(low.item()), abs(high.item()))
    if peak <= largest:  # false for NaN
        return
    if not torch.isfinite(value).all():
        count = int((~torch.isfinite(value)).sum())
        raise InputError(
            f"{name}: {stored.file}: {tensor} has {count:,} of {value.numel():,} elements that are NaN or infinite, "
            "which every merge would inherit: the training diverged or the file is damaged; use another checkpoint"
        )
    wider = "float32" if dtype == "bfloat16" else "bfloat16"
    raise InputError(
        f"{name}: {stored.file}: {tensor} has values up to {peak:.3g}, beyond the range of {dtype} (±{largest:.5g}), "
        f"in which merged weights are stored; choose another in the family: `dtype: {wider}`"
    )


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal. A first block tells fine-tunes apart without reading all of both."""
    if a.shape != b.shape:
        return False
    if not torch.equal(a.flatten()[:_FIRST].float(), b.flatten()[:_FIRST].float()):
        return False
    return torch.equal(a, b.to(a.dtype)) and torch.equal(a.to(b.dtype), b)


def _squared_norm(a: torch.Tensor, b: torch.Tensor | None = None) -> float:
    """Squared norm of a or of a - b: of blocks in float32, their sum in float64. Not finite if an element is not."""
    total = 0.0
    for begin in range(0, a.numel(), _BLOCK):
        block = a.flatten()[begin : begin + _BLOCK].float()
        if b is not None:
            block = block - b.flatten()[begin : begin + _BLOCK].float()
        total += float(torch.linalg.vector_norm(block)) ** 2
    return total


def _equal(folders: Mapping[str, Path], unequal: Set[tuple[str, str]]) -> list[str]:
    """Notes on members in different folders that are equal in every tensor."""
    notes = []
    for name, other in itertools.combinations(folders, 2):
        if (name, other) not in unequal and folders[name].resolve() != folders[other].resolve():
            effect = "its task vector is zero" if name == "base" else "a merge counts it twice"
            notes.append(f"{other}: the same weights as {name}, element by element: {effect}")
    return notes
