"""mergekit's merge methods on single tensors: the same bits in less time. Knows torch; not recipes, not mergekit.

Why they are faster, each point verified against mergekit by tests:

- an element-wise formula gives the same bits block by block, with its intermediate results in the cache;
- the order of |delta| depends on neither density nor weight: it is sorted once per expert and tensor and cached as
  ranks, so that any density is a single comparison. It has to be torch's sort, because the order of equal magnitudes
  depends on the algorithm;
- `torch.bernoulli(p)` on the CPU equals `torch.rand() < p` on the same stream, which needs no tensor of p; the stream
  is drawn ahead of time, in order, on a thread of its own;
- sums over a whole tensor are computed over the whole tensor, because their bits depend on how it is split.

On an accelerator they are the CPU's bits, too, where `alike` has found them so: element-wise operations are rounded as
here, if they are done one by one; orders, random numbers and sums over a whole tensor stay on the CPU, and a fused
multiply-add is made of exact steps.

Everything is computed in float32 from tensors of any float dtype, as mergekit does with `dtype: float32`.
Symbols: N elements of a tensor, M experts (fine-tunes), delta = expert - base (task vector).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nex_merge.merging.ranks import RankCache, ascending, by_row, descending
from nex_merge.merging.workspace import CPU, Mask, Workspace

# mergekit's thresholds: smaller l1 norms are not rescaled, and smaller sums of weights are not divided by.
SMALL_NORM, SMALL_DIVISOR = 1e-7, 1e-8
# Rows that torch's sum over them adds in their order on the CPU; of more, in some places, it does not (measured).
IN_ORDER = 4


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


def draws(expert: Expert, method: TaskArithmetic) -> int:
    """How many random numbers an expert's mask takes."""
    is_random = method.sparsification in ("random", "della_magprune") and expert.density < 1
    return expert.tensor.numel() if is_random else 0


def linear(
    tensors: Sequence[torch.Tensor], weights: Sequence[float], normalize: bool, work: Workspace, out: torch.Tensor
) -> None:
    """Write the weighted mean (`normalize`) or sum of M tensors into `out`, contiguous and of their shape."""
    flat, target = [work.member(tensor) for tensor in tensors], out.view(-1)
    coefficients = torch.tensor(weights, dtype=torch.float32)
    denominator = work.constants(coefficients.sum())
    coefficients = work.constants(coefficients)
    add = torch.Tensor.addcmul_ if work.is_cpu else fused_multiply_add

    def combine(part: slice) -> None:
        result = work.empty(part.stop - part.start).zero_()
        for tensor, coefficient in zip(flat, coefficients, strict=True):
            result = add(result, tensor[part].float(), coefficient)
        target[part] = result.div_(denominator) if normalize else result

    work.on_blocks(target.numel(), combine)


def fused_multiply_add(total: torch.Tensor, factor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """total + factor * other of float32 tensors, rounded once, as `addcmul` on the CPU.

    The product is exact in float64. The sum is rounded there to odd, which a second rounding, to float32, does not see
    (Boldo and Melquiond, 2008); its error comes from Knuth's two-sum.
    """
    product, total = factor.double() * other.double(), total.double()
    found = product + total
    of_total = found - product
    error = (product - (found - of_total)) + (total - of_total)
    bits = found.view(torch.int64)
    towards = ((error > 0) == (found > 0)).to(torch.int64).mul_(2).sub_(1)
    bits += towards * ((error != 0) & (bits & 1 == 0))
    return found.float()


def task_arithmetic(
    base: torch.Tensor, experts: Sequence[Expert], method: TaskArithmetic, cache: RankCache, work: Workspace
) -> Write:
    """A function that writes base + lambda * (combined sparse task vectors) into a contiguous tensor of their shape.

    Random masks start being drawn with this call, so that calling it early hides their cost.
    """
    # mergekit draws the random masks in the order of the experts, each for the whole tensor.
    masks = [_mask(base, expert, method.sparsification, cache, work) for expert in experts]
    return lambda out: _combine(base, experts, masks, method, cache, work, out.view(-1))


def _combine(
    base: torch.Tensor,
    experts: Sequence[Expert],
    masks: Sequence[Mask | None],
    method: TaskArithmetic,
    cache: RankCache,
    work: Workspace,
    target: torch.Tensor,
) -> None:
    """Write the merge into `target`, flat."""
    base = work.member(base)
    deltas = [
        _sparse_delta(base, expert, mask, method, cache, work, f"delta {number}")
        for number, (expert, mask) in enumerate(zip(experts, masks, strict=True))
    ]
    weights = torch.tensor([expert.weight for expert in experts], dtype=torch.float32)[:, None]
    total = weights.sum(dim=0)
    total[total.abs() < SMALL_DIVISOR] = 1
    weights, total = work.constants(weights), work.constants(total)
    summed = _sum if work.is_cpu else _sum_in_order

    def combine(part: slice) -> None:
        base_block = base[part].float()
        stacked = work.empty(len(experts), len(base_block))
        for row, delta in zip(stacked, deltas, strict=True):
            delta(part, base_block, row)
        stacked.mul_(weights)
        divisor = total
        if method.consensus is not None:
            agreeing = _agreeing(stacked, method.consensus, summed)
            if method.normalize:
                divisor = summed(weights * agreeing)
                divisor += _where(torch.eq, divisor, 0)
            stacked.mul_(agreeing)
        mixed = summed(stacked)
        if method.normalize:
            mixed /= divisor
        if method.scale != 1:
            mixed *= method.scale
        # Not in place on `base_block`: with a float32 base, that is the memory-mapped checkpoint.
        target[part] = mixed.add_(base_block)

    work.on_blocks(target.numel(), combine)


def _sum(rows: torch.Tensor) -> torch.Tensor:
    return rows.sum(dim=0)


def _sum_in_order(rows: torch.Tensor) -> torch.Tensor:
    """The same, in the order of the CPU's sum of at most IN_ORDER rows."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


def _agreeing(deltas: torch.Tensor, consensus: str, summed: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Weighted deltas, float32 [M, n] -> float32 [M, n]: 1 where a delta has the elected sign, else 0 (TIES)."""
    votes = deltas if consensus == "sum" else deltas.sign()
    majority = _where(torch.ge, summed(votes), 0).mul_(2).sub_(1)
    return (deltas * majority).gt_(0)


def _where(compare: Callable[..., torch.Tensor], values: torch.Tensor, bound: float) -> torch.Tensor:
    """The comparison as float32, 1 or 0; several times faster than converting from bool."""
    return compare(values, bound, out=torch.empty(values.shape, device=values.device))


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
    whole = work.member(expert.tensor)

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

        work.on_blocks(len(base), with_magnitudes)
        if work.is_cpu:
            return magnitudes.sum()
        return work.buffer("magnitudes on the CPU", len(base), CPU).copy_(magnitudes).sum()

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

    def ranks(kind: str, rank: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        name = f"{expert.name}.{kind}"
        return work.copies.of(name, lambda: cache.ranks(name, size, torch.int32, lambda: rank(magnitudes())))

    if kind == "magnitude":
        count = max(1, int(density * size))
        order = ranks("descending", descending)
        return lambda part: _where(torch.lt, order[part], count)
    if kind == "magnitude_outliers":
        count = int(density * size)
        first = max(0, size - count - int(expert.gamma * size))
        order = ranks("ascending", ascending)
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
