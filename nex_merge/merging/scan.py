"""One pass over all weights of a family: what would spoil every merge, found before the first one.

Tensors are memory-mapped and looked at one by one, so that memory holds a tensor of the base and one of a member.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from nex_merge.checkpoints.weights import StoredTensor, stored_tensors
from nex_merge.errors import InputError
from nex_merge.merging.members import check_distinct
from nex_merge.records import MethodSpec

# A task vector of this length, relative to the base's weights, belongs to another base. Fine-tunes have 0.001 to 0.3;
# unrelated weights of equal size have the square root of 2.
UNRELATED = 1.0


@dataclass
class _Sums:
    """What is summed up over the tensors of a member."""

    base: float = 0.0  # squared norm of the base's matrices
    delta: float = 0.0  # squared norm of the difference to them
    differs: set[str] = field(default_factory=set)  # members that differ from this one in some bit
    zero: list[str] = field(default_factory=list)  # matrices that are zero here
    matrices: int = 0


def survey(folders: Mapping[str, Path], out_dtype: str, methods: Sequence[MethodSpec] = ()) -> list[str]:
    """Notes on the weights of all members: matrices of zeros, a base that is not theirs, and equal checkpoints.

    `out_dtype`: dtype of the merged weights, by torch's name. `methods`: those that will be tried; see
    `check_distinct`. Raises InputError if an element is NaN or infinite, or beyond the range of `out_dtype`.
    """
    notes = check_distinct(folders, methods)
    largest = torch.finfo(getattr(torch, out_dtype)).max
    stored = {name: stored_tensors(folder) for name, folder in folders.items()}
    sums = {name: _Sums() for name in folders}
    for tensor in sorted(stored["base"], key=lambda name: (str(stored["base"][name].file), name)):
        found = {name: tensors[tensor] for name, tensors in stored.items() if tensor in tensors}
        _compare(tensor, found, sums, out_dtype, largest)
    for name, of_member in sums.items():
        if of_member.matrices and len(of_member.zero) == of_member.matrices:
            raise InputError(f"{name}: all {of_member.matrices} matrices are zeros: its weights were not saved")
        zero = [tensor for tensor in of_member.zero if any(tensor not in other.zero for other in sums.values())]
        if zero:
            more = f" and {len(zero) - 1} more matrices" if len(zero) > 1 else ""
            notes.append(f"{name}: {zero[0]}{more}: all zeros, unlike in other members")
    notes += _equal(folders, sums)
    for name, of_member in sums.items():
        ratio = (of_member.delta / of_member.base) ** 0.5 if of_member.base else 0.0
        if name != "base" and ratio >= UNRELATED:
            notes.append(
                f"{name}: its weights differ from base's by {ratio:.2f} times their size; fine-tunes differ by less "
                "than 0.3. base is probably not the model it was trained from, and merges of unrelated models answer "
                "nonsense; name the right base"
            )
    return notes


def _compare(
    tensor: str, found: Mapping[str, StoredTensor], sums: Mapping[str, _Sums], dtype: str, largest: float
) -> None:
    """Take one tensor of all members into their sums."""
    values = {name: _load(item.file, tensor) for name, item in found.items()}
    for name, value in values.items():
        _check_range(name, found[name], tensor, value, dtype, largest)
        if value.dim() > 1:
            sums[name].matrices += 1
            if not value.any():
                sums[name].zero.append(tensor)
    names = list(values)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            if other not in sums[name].differs and not _same(values[name], values[other]):
                sums[name].differs.add(other)
                sums[other].differs.add(name)
    base = values["base"]
    if base.dim() > 1:
        own = _squared_norm(base)
        for name in names[1:]:
            if values[name].shape == base.shape:
                sums[name].base += own
                sums[name].delta += _squared_norm(values[name], base) if name in sums["base"].differs else 0.0


def _check_range(name: str, stored: StoredTensor, tensor: str, value: torch.Tensor, dtype: str, largest: float) -> None:
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
    first = slice(0, 4096)
    if not torch.equal(a.flatten()[first].float(), b.flatten()[first].float()):
        return False
    return torch.equal(a, b.to(a.dtype)) and torch.equal(a.to(b.dtype), b)


def _squared_norm(a: torch.Tensor, b: torch.Tensor | None = None) -> float:
    """Squared norm of a or of a - b, summed in float64 over blocks of 4 Mi elements."""
    blocks = a.flatten().split(1 << 22)
    others: Iterator[torch.Tensor] | None = None if b is None else iter(b.flatten().split(1 << 22))
    total = 0.0
    for block in blocks:
        values = block.float() if others is None else block.float() - next(others).float()
        total += float(torch.linalg.vector_norm(values)) ** 2
    return total


def _equal(folders: Mapping[str, Path], sums: Mapping[str, _Sums]) -> list[str]:
    notes, names = [], list(folders)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            if other not in sums[name].differs and folders[name].resolve() != folders[other].resolve():
                effect = "its task vector is zero" if name == "base" else "a merge counts it twice"
                notes.append(f"{other}: the same weights as {name}, element by element: {effect}")
    return notes


def _load(file: Path, tensor: str) -> torch.Tensor:
    with safe_open(file, "pt") as opened:
        return opened.get_tensor(tensor)
