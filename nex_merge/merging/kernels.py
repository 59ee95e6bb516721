"""mergekit's merge methods on single tensors: the same bits in less time. Knows torch; not recipes, not mergekit.

Why they are faster, each point verified against mergekit by tests:

- an element-wise formula gives the same bits block by block, with its intermediate results in the cache;
- the order of |delta| depends on neither density nor weight: it is sorted once per expert and tensor and cached as
  ranks, so that any density is a single comparison. It has to be torch's sort, because the order of equal magnitudes
  depends on the algorithm;
- `torch.bernoulli(p)` on the CPU equals `torch.rand() < p` on the same stream, which needs no tensor of p; the stream
  is drawn ahead of time, in order, on a thread of its own;
- sums over a whole tensor are computed over the whole tensor, because their bits depend on how it is split.

Everything is computed in float32 from tensors of any float dtype, as mergekit does with `dtype: float32`.
Symbols: N elements of a tensor, M experts (fine-tunes), delta = expert - base (task vector).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nex_merge.merging.blocks import Mask, Workspace, on_blocks
from nex_merge.merging.ranks import RankCache, ascending, by_row, descending

# mergekit's thresholds: smaller l1 norms are not rescaled, and smaller sums of weights are not divided by.
SMALL_NORM, SMALL_DIVISOR = 1e-7, 1e-8


@dataclass(frozen=True)
class Expert:
    """A fine-tune's tensor and its parameters in the recipe."""

    name: str  # key of its ranks and norms in the RankCache
    tensor: torch.Tensor
    weight: float
    density: float
    gamma: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class TaskArithmetic:
    """What distinguishes the methods of the task arithmetic family (mergekit: GeneralizedTaskArithmeticMerge)."""

    sparsification: str | None  # magnitude, random, magnitude_outliers, della_magprune
    consensus: str | None  # sum, count
    normalize: bool
    rescale: bool
    scale: float  # lambda


# Writes a merged tensor into a contiguous one of the same shape.
Write = Callable[[torch.Tensor], None]


def is_supported(expert: Expert, method: TaskArithmetic) -> bool:
    """Whether `task_arithmetic` handles the expert. Edge cases, where mergekit may raise, are left to mergekit."""
    if method.sparsification is None or expert.density >= 1:
        return True
    if method.sparsification == "della_magprune":
        low, high = expert.density - expert.epsilon, expert.density + expert.epsilon
        # Ranks are within rows; mergekit treats tensors of more than two dimensions differently.
        return low > 0 and high < 1 and expert.tensor.ndim <= 2 and expert.tensor.shape[-1] > 1
    return expert.density > 0


def linear(tensors: Sequence[torch.Tensor], weights: Sequence[float], normalize: bool, out: torch.Tensor) -> None:
    """Write the weighted mean (`normalize`) or sum of M tensors into `out`, contiguous and of their shape."""
    flat, target = [tensor.reshape(-1) for tensor in tensors], out.view(-1)
    coefficients = torch.tensor(weights, dtype=torch.float32)
    denominator = coefficients.sum()

    def combine(part: slice) -> None:
        result = torch.zeros(part.stop - part.start)
        for tensor, coefficient in zip(flat, coefficients, strict=True):
            result.addcmul_(tensor[part].float(), coefficient)
        target[part] = result.div_(denominator) if normalize else result

    on_blocks(target.numel(), combine)


def task_arithmetic(
    base: torch.Tensor, experts: Sequence[Expert], method: TaskArithmetic, cache: RankCache, work: Workspace
) -> Write:
    """A function that writes base + lambda * (combined sparse task vectors) into a contiguous tensor of their shape.

    Random masks start being drawn with this call, so that calling it early hides their cost.
    """
    # mergekit draws the random masks in the order of the experts, each for the whole tensor.
    masks = [_mask(base, expert, method.sparsification, cache, work) for expert in experts]
    return lambda out: _combine(base.reshape(-1), experts, masks, method, cache, work, out.view(-1))


def _combine(
    base: torch.Tensor,
    experts: Sequence[Expert],
    masks: Sequence[Mask | None],
    method: TaskArithmetic,
    cache: RankCache,
    work: Workspace,
    target: torch.Tensor,
) -> None:
    """Write the merge of flat tensors into `target`, also flat."""
    deltas = [
        _sparse_delta(base, expert, mask, method, cache, work, f"delta {number}")
        for number, (expert, mask) in enumerate(zip(experts, masks, strict=True))
    ]
    weights = torch.tensor([expert.weight for expert in experts], dtype=torch.float32)[:, None]
    total = weights.sum(dim=0)
    total[total.abs() < SMALL_DIVISOR] = 1

    def combine(part: slice) -> None:
        base_block = base[part].float()
        stacked = torch.empty(len(experts), len(base_block))
        for row, delta in zip(stacked, deltas, strict=True):
            delta(part, base_block, row)
        stacked.mul_(weights)
        divisor = total
        if method.consensus is not None:
            agreeing = _agreeing(stacked, method.consensus)
            if method.normalize:
                divisor = (weights * agreeing).sum(dim=0)
                divisor += _where(torch.eq, divisor, 0)
            stacked.mul_(agreeing)
        mixed = stacked.sum(dim=0)
        if method.normalize:
            mixed /= divisor
        if method.scale != 1:
            mixed *= method.scale
        # Not in place on `base_block`: with a float32 base, that is the memory-mapped checkpoint.
        target[part] = mixed.add_(base_block)

    on_blocks(target.numel(), combine)


def _agreeing(deltas: torch.Tensor, consensus: str) -> torch.Tensor:
    """Weighted deltas, float32 [M, n] -> float32 [M, n]: 1 where a delta has the elected sign, else 0 (TIES)."""
    votes = deltas if consensus == "sum" else deltas.sign()
    majority = _where(torch.ge, votes.sum(dim=0), 0).mul_(2).sub_(1)
    return (deltas * majority).gt_(0)


def _where(compare: Callable[..., torch.Tensor], values: torch.Tensor, bound: float) -> torch.Tensor:
    """The comparison as float32, 1 or 0; several times faster than converting from bool."""
    return compare(values, bound, out=torch.empty(values.shape))


Delta = Callable[[slice, torch.Tensor, torch.Tensor], None]


def _sparse_delta(
    base: torch.Tensor,
    expert: Expert,
    mask: Mask | None,
    method: TaskArithmetic,
    cache: RankCache,
    work: Workspace,
    buffer: str,
) -> Delta:
    """A function (block, base's block, float32 row) that writes a block of an expert's sparse task vector into the row.

    `base` is flat. A rescaled task vector is computed as a whole, in the workspace buffer called `buffer`.
    """
    whole = expert.tensor.reshape(-1)

    def difference(part: slice, base_block: torch.Tensor, row: torch.Tensor) -> None:
        torch.sub(whole[part].float(), base_block, out=row)

    if mask is None:
        return difference

    def masked(part: slice, base_block: torch.Tensor, row: torch.Tensor) -> None:
        difference(part, base_block, row)
        row.mul_(mask(part))

    if not method.rescale:
        return masked
    delta, magnitudes = work.buffer(buffer, len(base)), work.buffer("magnitudes", len(base))

    def norm(fill: Delta) -> torch.Tensor:
        """The l1 norm, over the whole tensor, of the task vector that `fill` writes into `delta`."""

        def with_magnitudes(part: slice) -> None:
            fill(part, base[part].float(), delta[part])
            torch.abs(delta[part], out=magnitudes[part])

        on_blocks(len(base), with_magnitudes)
        return magnitudes.sum()

    before, after = cache.norm(expert.name, lambda: norm(difference)), norm(masked)
    factor = None if before < SMALL_NORM or after < SMALL_NORM else before / after

    def rescaled(part: slice, base_block: torch.Tensor, row: torch.Tensor) -> None:
        row.copy_(delta[part]) if factor is None else torch.mul(delta[part], factor, out=row)

    return rescaled


def _mask(base: torch.Tensor, expert: Expert, kind: str | None, cache: RankCache, work: Workspace) -> Mask | None:
    """The mask of one kind of sparsification, or None if it keeps every element."""
    size, density = base.numel(), expert.density
    if kind is None or density >= 1:
        return None
    if kind == "random":
        return work.bernoulli_mask(size, lambda part: density)

    def magnitudes() -> torch.Tensor:
        return torch.sub(expert.tensor.float(), base.float()).abs_()

    if kind == "magnitude":
        count = max(1, int(density * size))
        order = cache.ranks(f"{expert.name}.descending", size, torch.int32, lambda: descending(magnitudes()))
        return lambda part: _where(torch.lt, order[part], count)
    if kind == "magnitude_outliers":
        count = int(density * size)
        first = max(0, size - count - int(expert.gamma * size))
        order = cache.ranks(f"{expert.name}.ascending", size, torch.int32, lambda: ascending(magnitudes()))
        last = first + count
        return lambda part: _where(torch.ge, order[part], first).mul_(_where(torch.lt, order[part], last))
    assert kind == "della_magprune", kind
    columns = base.shape[-1]
    dtype = torch.int16 if columns <= 1 << 15 else torch.int32
    in_row = cache.ranks(f"{expert.name}.rows", size, dtype, lambda: by_row(magnitudes(), columns).to(dtype))
    low, epsilon = density - expert.epsilon, expert.epsilon
    return work.bernoulli_mask(
        size, lambda part: in_row[part].float().div_(columns - 1).mul_(2).mul_(epsilon).add_(low)
    )


class Slerp:
    """Spherical linear interpolation of pairs of tensors, in float32. The angle of a pair is cached by name."""

    # mergekit's constants: |cosine| of parallel tensors, norm of a zero tensor, and elements per partial sum.
    PARALLEL, ZERO_NORM, SUMMED = 0.9995, 1e-8, 1 << 20

    def __init__(self) -> None:
        self._cosines: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, t: float, first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> None:
        """Write the interpolation at `t` (0: first, 1: second) into `out`, contiguous and of their shape."""
        a, b, target = first.reshape(1, -1), second.reshape(1, -1), out.view(-1)
        if name not in self._cosines:
            self._cosines[name] = self._cosine(a, b)
        dot, at = self._cosines[name], torch.tensor([[t]], dtype=torch.float32)
        parallel = dot.abs() > self.PARALLEL
        angle = torch.acos(torch.where(parallel, 0, dot))
        sine = torch.sin(angle)
        of_a = torch.where(parallel, 1 - at, torch.sin((1 - at) * angle) / sine)
        of_b = torch.where(parallel, at, torch.sin(at * angle) / sine)

        def between(part: slice) -> None:
            target[part] = (of_a * a[:, part].float() + of_b * b[:, part].float())[0]

        on_blocks(target.numel(), between)

    def _cosine(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Cosine of the angle between two tensors [1, N], float32 [1, 1]."""
        parts = [slice(start, start + self.SUMMED) for start in range(0, a.shape[1], self.SUMMED)]

        def norm(x: torch.Tensor) -> torch.Tensor:
            norms = [torch.linalg.vector_norm(x[:, part].float(), dim=1, keepdim=True) for part in parts]
            whole = torch.linalg.vector_norm(torch.stack(norms), dim=0)
            return torch.where(whole > self.ZERO_NORM, whole, 1)

        norm_a, norm_b = norm(a), norm(b)
        dots = [
            ((a[:, part].float() / norm_a) * (b[:, part].float() / norm_b)).sum(dim=1, keepdim=True) for part in parts
        ]
        return torch.stack(dots).sum(dim=0).clamp(-1, 1)
