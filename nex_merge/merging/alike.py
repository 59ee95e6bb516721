"""Which kernels give the CPU's bits on a device, asked of the device itself before anything is merged there."""

import functools
import logging
from collections.abc import Callable, Iterator

import torch

from nex_merge.merging.kernels import Expert, TaskArithmetic, Write, linear, task_arithmetic
from nex_merge.merging.ranks import RankCache
from nex_merge.merging.slerp import Slerp
from nex_merge.merging.workspace import Copies, Workspace
from nex_merge.wording import first_line

SHAPE = (257, 1031)  # two blocks of the CPU's and a part of one
# sparsification, consensus, normalize, rescale, lambda
ARITHMETIC = (
    TaskArithmetic(None, None, False, False, 0.7),
    TaskArithmetic("magnitude", "sum", True, False, 1.0),
    TaskArithmetic("magnitude_outliers", "count", False, True, 1.0),
    TaskArithmetic("random", "sum", True, True, 1.0),
    TaskArithmetic("della_magprune", "count", True, True, 0.9),
)
Kernel = Callable[[list[torch.Tensor], Workspace], Write]


@functools.cache
def alike(device: torch.device) -> frozenset[str]:
    """The kernels, by name, whose merges of made-up tensors have the CPU's bits on a device; the others are logged."""
    tensors = [tensor.to(torch.bfloat16) for tensor in _made_up()]
    found: dict[str, list[str]] = {}
    for name, kernel in _kernels():
        problems = found.setdefault(name, [])
        try:
            here, there = _merged(kernel, tensors, torch.device("cpu")), _merged(kernel, tensors, device)
        except RuntimeError as error:  # an operation that the device does not have
            problems.append(first_line(error))
            continue
        unequal = int((here != there).sum())
        problems += [f"{unequal} of {here.numel()} elements differ from the CPU's"] if unequal else []
    for name, problems in found.items():
        if problems:
            logging.getLogger(__name__).warning(
                "%s: %s is merged on the CPU instead, which takes longer: %s", device, name, problems[0]
            )
    return frozenset(name for name, problems in found.items() if not problems)


def _made_up() -> Iterator[torch.Tensor]:
    """A base and three experts, whose deltas span many orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(SHAPE, generator=generator).mul_(0.02)
    yield base
    for scale in (1e-2, 1e-3, 1.0):
        delta = torch.randn(SHAPE, generator=generator)
        yield base + delta * scale * torch.rand(SHAPE, generator=generator).mul_(4).exp_() * 0.02


def _kernels() -> Iterator[tuple[str, Kernel]]:
    weights = (0.71, -0.45, 0.33)
    for method in ARITHMETIC:

        def arithmetic(tensors: list[torch.Tensor], work: Workspace, method: TaskArithmetic = method) -> Write:
            experts = [
                Expert(f"expert {number}", tensor, weight, density, gamma=0.01, epsilon=0.05)
                for number, (tensor, weight, density) in enumerate(
                    zip(tensors[1:], weights, (0.37, 0.8, 0.5), strict=True)
                )
            ]
            return task_arithmetic(tensors[0], experts, method, RankCache(None), work)

        yield "task arithmetic", arithmetic
    for normalize in (True, False):

        def mean(tensors: list[torch.Tensor], work: Workspace, normalize: bool = normalize) -> Write:
            return lambda out: linear(tensors[1:], weights, normalize, work, out)

        yield "linear", mean
    for t in (0.0, 0.3):
        yield "slerp", lambda tensors, work, t=t: lambda out: Slerp()("pair", t, tensors[0], tensors[3], work, out)


def _merged(kernel: Kernel, tensors: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """The merge in float32, on the CPU."""
    out = torch.empty(SHAPE, device=device)
    kernel(tensors, Workspace(0, Copies(device)))(out)
    return out.cpu()
