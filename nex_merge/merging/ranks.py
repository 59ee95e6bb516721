"""What no recipe changes of an expert's tensor, made once: its elements' order by magnitude, and its norm."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

# Bytes of an element's rank by sparsification; della's take twice as many where rows are longer than 32,768.
RANK_BYTES = {"magnitude": 4, "magnitude_outliers": 4, "della_magprune": 2}
# Left free on the disk that ranks are kept on.
DISK_RESERVE = 1 << 30


class Kept:
    """Ranks and norms by name.

    Ranks are one memory-mapped file per expert, tensor and kind of order; without a folder they are not kept. The
    folder belongs to one process and is empty when it begins: equal magnitudes fall as this process's torch and
    processor let them. Where the disk is short, ranks are computed anew each time, and a warning says so once.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._warned = False
        self._norms: dict[str, torch.Tensor] = {}

    def norm(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The l1 norm of an expert's task vector, float32 []; `make` computes it the first time."""
        if name not in self._norms:
            self._norms[name] = make()
        return self._norms[name]

    def ranks(self, name: str, size: int, dtype: torch.dtype, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The ranks kept under `name`, [size] of `dtype`; `make` computes them the first time."""
        if self._folder is None:
            return make()
        file = self._folder / f"{name}.ranks"
        if not file.exists():
            ranks = make()
            self._keep(file, ranks)
            return ranks
        return torch.from_file(str(file), size=size, dtype=dtype)

    def _keep(self, file: Path, ranks: torch.Tensor) -> None:
        partial = file.with_suffix(".partial")
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
                    "%s: the order of the weights can't be kept (%s); every trial sorts them again", file.parent, error
                )
            self._warned = True


def _inverse(order: torch.Tensor) -> torch.Tensor:
    """Every element's place in an order, int32 [N]."""
    ranks = torch.empty(len(order), dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32)
    return ranks


def descending(magnitudes: torch.Tensor) -> torch.Tensor:
    return _inverse(torch.argsort(magnitudes.view(-1), descending=True))


def ascending(magnitudes: torch.Tensor) -> torch.Tensor:
    return _inverse(torch.sort(magnitudes.view(-1), descending=False).indices)


def by_row(magnitudes: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.argsort(magnitudes.view(-1, columns), dim=1, descending=False).argsort(dim=1).view(-1)
