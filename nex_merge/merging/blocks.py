"""Block-wise work on tensors, on all cores; random masks are drawn ahead of time, in order, on another thread."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from nex_merge.threads import use_one_core, work_off

# Elements per block: a few float32 buffers of this size fit a core's L2 cache.
BLOCK = 1 << 17

# Block -> float32 [n]: 1 for elements to keep, 0 for the others.
Mask = Callable[[slice], torch.Tensor]


def blocks(size: int) -> list[slice]:
    """Slices of BLOCK elements, the last one shorter, that cover `size` elements."""
    return [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]


class Workspace:
    """State shared by the tensors of one recipe: a seeded stream of uniform numbers, and reusable float32 buffers.

    Allocating fresh memory costs more than the arithmetic on it, so buffers are reused from tensor to tensor.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._buffers: dict[str, torch.Tensor] = {}

    def buffer(self, name: str, size: int) -> torch.Tensor:
        """The buffer called `name`, float32 [size], uninitialized."""
        if name not in self._buffers or len(self._buffers[name]) < size:
            self._buffers[name] = torch.empty(size)
        return self._buffers[name][:size]

    def bernoulli_mask(self, size: int, probability: Callable[[slice], torch.Tensor | float]) -> Mask:
        """A mask that keeps each of `size` elements with its probability, as `torch.bernoulli` on the CPU.

        `probability`: block -> one probability or one per element, float32 [n]. Drawing starts at once, and masks are
        drawn in the order of the calls. Each block of the mask can be read once.
        """

        def draw(part: slice) -> torch.Tensor:
            numbers = torch.rand(part.stop - part.start, generator=self._generator)
            # int8, because torch converts to uint8 seven times more slowly.
            return numbers.lt_(probability(part)).to(torch.int8)

        pending = {part.start: _draw_thread().submit(draw, part) for part in blocks(size)}
        return lambda part: pending.pop(part.start).result().float()


@functools.cache
def _draw_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "draws", use_one_core)


def on_blocks(size: int, work: Callable[[slice], object]) -> None:
    """Run `work` on every block, on all cores, begun in order; see `threads.work_off`."""
    work_off(work, blocks(size))
