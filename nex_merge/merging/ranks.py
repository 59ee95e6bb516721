"""Cache of what is independent of the recipe: every expert's elements ranked by magnitude, and its l1 norms."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

# Bytes per rank by sparsification; twice as many for DELLA if rows are longer than 32,768.
RANK_BYTES = {"magnitude": 4, "magnitude_outliers": 4, "della_magprune": 2}
# Bytes to leave free on the disk that the ranks are cached on.
DISK_RESERVE = 1 << 30


class RankCache:
    """Ranks and norms by name.

    Ranks are one memory-mapped file per expert, tensor and kind of order; with `folder` None they are not cached. The
    folder belongs to the processes of one search on one machine and starts out empty, because the order of equal
    magnitudes depends on the torch build and the processor. If the disk is nearly full, ranks are recomputed each time,
    with one warning.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._warned = False
        self._norms: dict[str, torch.Tensor] = {}

    def norm(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The l1 norm of an expert's task vector, float32 []; computed by `make` on first use."""
        if name not in self._norms:
            self._norms[name] = make()
        return self._norms[name]

    def ranks(self, name: str, size: int, dtype: torch.dtype, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The ranks cached under `name`, [size] of `dtype`; computed by `make` on first use."""
        if self._folder is None:
            return make()
        file = self._folder / f"{name}.ranks"
        if not file.exists():
            ranks = make()
            self._store(file, ranks)
            return ranks
        return torch.from_file(str(file), size=size, dtype=dtype)

    def _store(self, file: Path, ranks: torch.Tensor) -> None:
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(file.parent).free < ranks.nbytes + DISK_RESERVE:
                raise OSError("the disk is nearly full")
            ranks.numpy().tofile(partial)
            os.replace(partial, file)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if not self._warned:
                logging.getLogger(__name__).warning(
                    "%s: cannot cache the order of the weights (%s); every trial sorts them again", file.parent, error
                )
            self._warned = True


def _inverse(order: torch.Tensor) -> torch.Tensor:
    """The rank of every element, int32 [N], from the indices that sort them."""
    ranks = torch.empty(len(order), dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32)
    return ranks


def descending(magnitudes: torch.Tensor) -> torch.Tensor:
    """Ranks, int32 [N], largest magnitude first."""
    return _inverse(torch.argsort(magnitudes.view(-1), descending=True))


def ascending(magnitudes: torch.Tensor) -> torch.Tensor:
    """Ranks, int32 [N], smallest magnitude first."""
    return _inverse(torch.sort(magnitudes.view(-1), descending=False).indices)


def by_row(magnitudes: torch.Tensor, columns: int) -> torch.Tensor:
    """Ranks within rows of `columns` elements, int64 [N], smallest magnitude first."""
    return torch.argsort(magnitudes.view(-1, columns), dim=1, descending=False).argsort(dim=1).view(-1)
