"""Where a recipe's tensors are merged: what the kernels get memory, random masks and their loop over blocks from.

On the CPU a tensor is merged block by block, on all cores. On an accelerator it is merged where the model is, by one
operation after another on copies of the parents, which stay there while there is room. Random masks are drawn on the
CPU in either case, ahead of time, in order, on a thread of their own.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from nex_merge.threads import use_one_core, work_off

CPU = torch.device("cpu")
# Elements per block: on a CPU a few float32 buffers of this size fit a core's L2 cache, on an accelerator a dozen of
# them take 1.6 GB.
BLOCK, DEVICE_BLOCK = 1 << 17, 1 << 25
# Share of an accelerator's memory that copies leave free, for keys and values and all else that comes and goes.
SPARE = 0.25

# Block -> float32 [n]: 1 for elements to keep, 0 for the others.
Mask = Callable[[slice], torch.Tensor]


def blocks(size: int, length: int = BLOCK) -> list[slice]:
    """Slices of `length` elements, the last one shorter, that cover `size` elements."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]


class Copies:
    """CPU tensors on a device, by name. They stay for later recipes while a share of its memory is free.

    On the CPU they are the tensors themselves.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self._kept: dict[str, torch.Tensor] = {}

    def of(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What `make` gives, on the device; it is called unless there is a copy."""
        if self.device.type == "cpu":
            return make()
        if name not in self._kept:
            copy = to_device(make(), self.device)
            if not self._has_room():
                return copy
            self._kept[name] = copy
        return self._kept[name]

    def let_go(self) -> bool:
        """Forget all copies. False if there were none."""
        had, self._kept = bool(self._kept), {}
        return had

    def _has_room(self) -> bool:
        free, total = torch.get_device_module(self.device).mem_get_info(self.device)
        return free >= SPARE * total


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor on a device; nothing waits for the copy of one that goes to a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Workspace:
    """State shared by the tensors of one recipe: a seeded stream of uniform numbers, and reusable float32 buffers.

    Allocating fresh memory costs more than the arithmetic on it, so buffers are reused from tensor to tensor.
    `copies`: where everything but random numbers, sorting and sums over whole tensors is computed; see `kernels`.
    """

    def __init__(self, seed: int, copies: Copies | None = None) -> None:
        self.copies = copies or Copies()
        self.device = self.copies.device
        self._generator = torch.Generator().manual_seed(seed)
        self._buffers: dict[str, torch.Tensor] = {}
        self._closed = False

    @property
    def is_cpu(self) -> bool:
        return self.device.type == "cpu"

    def member(self, tensor: torch.Tensor) -> torch.Tensor:
        """A member's tensor, flat, on the device. It is mapped for as long as there are copies."""
        return self.copies.of(f"member {tensor.data_ptr()}", lambda: tensor).reshape(-1)

    def constants(self, values: torch.Tensor) -> torch.Tensor:
        """A few numbers on the device: torch divides by a number of the CPU's by multiplying with its reciprocal."""
        return values.to(self.device)

    def empty(self, *shape: int) -> torch.Tensor:
        """Float32 [shape], uninitialized."""
        return torch.empty(shape, device=self.device)

    def buffer(self, name: str, size: int, device: torch.device | None = None) -> torch.Tensor:
        """The buffer called `name`, float32 [size], uninitialized. `device`: None: where the workspace is."""
        if name not in self._buffers or len(self._buffers[name]) < size:
            pinned = device == CPU and self.device.type == "cuda"
            self._buffers[name] = torch.empty(size, device=device or self.device, pin_memory=pinned)
        return self._buffers[name][:size]

    def on_blocks(self, size: int, work: Callable[[slice], object]) -> None:
        """Run `work` on every block: on all cores, begun in order, see `threads.work_off`; on a device in turn."""
        if self.is_cpu:
            work_off(work, blocks(size))
            return
        for part in blocks(size, DEVICE_BLOCK):
            work(part)

    def bernoulli_mask(self, size: int, probability: Callable[[slice], torch.Tensor | float]) -> Mask:
        """A mask that keeps each of `size` elements with its probability, as `torch.bernoulli` on the CPU.

        `probability`: block -> one probability or one per element, float32 [n] on the CPU. Drawing starts at once, and
        masks are drawn in the order of the calls. Each block of the mask can be read once.
        """

        def draw(part: slice) -> torch.Tensor:
            if self._closed:
                return torch.empty(0, dtype=torch.int8)
            numbers = torch.rand(part.stop - part.start, generator=self._generator)
            # int8, because torch converts to uint8 seven times more slowly.
            return numbers.lt_(probability(part)).to(torch.int8)

        pending = {part.start: _draw_thread().submit(draw, part) for part in blocks(size)}

        def mask(part: slice) -> torch.Tensor:
            if self.is_cpu:
                return pending.pop(part.start).result().float()
            drawn = [pending.pop(start).result() for start in range(part.start, part.stop, BLOCK)]
            return to_device(torch.cat(drawn), self.device).float()

        return mask

    def close(self) -> None:
        """Draw nothing more."""
        self._closed = True


@functools.cache
def _draw_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "draws", use_one_core)
