"""Tensors block by block, on all cores; random numbers drawn ahead, in order, on another thread."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from nex_merge.threads import on_cores, use_one_core

# Elements of a block: a few such float32 buffers fit the cores' second-level caches.
BLOCK = 1 << 17

# A block of 1 for every element that is kept, else 0, float32 [n].
Mask = Callable[[slice], torch.Tensor]


def blocks(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


class Workspace:
    """What one recipe's tensors share: a seeded stream of uniform numbers, and float32 buffers.

    Memory that is new costs more than what is computed in it, so that buffers are used again from tensor to tensor.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._buffers: dict[str, torch.Tensor] = {}

    def buffer(self, name: str, size: int) -> torch.Tensor:
        """The buffer of that name, float32 [size], with anything in it."""
        if name not in self._buffers or len(self._buffers[name]) < size:
            self._buffers[name] = torch.empty(size)
        return self._buffers[name][:size]

    def below(self, size: int, chance: Callable[[slice], torch.Tensor | float]) -> Mask:
        """1 for each of `size` elements whose number is below its chance, else 0; any block may be had once.

        Numbers are drawn in the order in which they are asked for.
        """

        def drawn(part: slice) -> torch.Tensor:
            numbers = torch.rand(part.stop - part.start, generator=self._generator)
            # Not uint8, to which torch converts seven times more slowly.
            return numbers.lt_(chance(part)).to(torch.int8)

        ahead = {part.start: _drawing().submit(drawn, part) for part in blocks(size)}
        return lambda part: ahead.pop(part.start).result().float()


@functools.cache
def _drawing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "draws", use_one_core)


def on_blocks(size: int, work: Callable[[slice], object]) -> None:
    """Do the work on every block, on as many threads as torch has cores."""
    for _ in on_cores(work, blocks(size)):
        pass
