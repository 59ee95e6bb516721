"""A checkpoint's tensors in another dtype than they were scored in, and the proof that nothing else changed."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from nex_merge.checkpoints.files import INDEX, read_json, weights_of
from nex_merge.errors import InputError, RunError
from nex_merge.inert import json_text
from nex_merge.merging import digest, tensor_digest
from nex_merge.runs.proof import checkpoint_digest, read_tensors


@dataclass(frozen=True)
class Rounded:
    """How the tensors of a checkpoint differ from those that were scored."""

    scored: str  # the dtype that they were scored in
    dtype: str
    changed: int  # how many values are others
    values: int  # of how many
    sha256: str  # of the tensors as they are now

    @property
    def is_exact(self) -> bool:
        """Whether every value is the one that was scored."""
        return self.changed == 0

    @property
    def said(self) -> str:
        """What they are, in words that follow "stored in"."""
        if self.is_exact:
            return f"{self.dtype}, with the values of the tensors that were scored, in {self.scored}"
        return (
            f"{self.dtype}: not the tensors that were scored, in {self.scored}, but rounded from them "
            f"({self.changed} of {self.values} values changed)"
        )


def round_weights(folder: Path, scored: str, dtype: str) -> Rounded:
    """Rewrite a checkpoint's weights in another dtype; `scored`: theirs, in which their tensors have been proved.

    Raises InputError where a value is beyond the range of `dtype`, RunError where what is read back isn't what was
    rounded.
    """
    target: torch.dtype = getattr(torch, dtype)
    digests, changed, values, size = {}, 0, 0, 0
    for path in weights_of(folder):
        kept = {}
        for name, tensor in read_tensors(path).items():
            kept[name] = found = tensor.to(target) if tensor.is_floating_point() else tensor
            if not torch.equal(torch.isfinite(found), torch.isfinite(tensor)):
                raise InputError(
                    f"--dtype: expected one that has room for the weights, got {dtype}: {name} has values beyond its "
                    f"range; {scored} keeps what was scored"
                )
            # In float32, which has all values of the three dtypes.
            changed += int((found.float() != tensor.float()).sum())
            values += found.numel()
            size += found.nbytes
            digests[name] = tensor_digest(name, found)
        # Not over the file itself, from which tensors may still be mapped.
        new = path.with_suffix(".rounded")
        save_file(kept, new, {"format": "pt"})
        new.replace(path)
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        index["metadata"] = {**(index.get("metadata") or {}), "total_size": size}
        (folder / INDEX).write_text(json_text(index, 2) + "\n", encoding="utf-8")
    expected, written = digest(digests), checkpoint_digest(folder, every=True)
    if written != expected:
        raise RunError(f"{folder}: read back, its tensors are not those that were rounded; it is kept for inspection")
    return Rounded(scored, dtype, changed, values, checkpoint_digest(folder))
