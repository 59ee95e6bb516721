"""Merge methods of mergekit on single tensors: its bits in less time. Knows torch, but neither recipes nor mergekit.

What makes them fast, each checked against mergekit itself by tests:

- an element-wise formula gives the same bits block by block, where its intermediate results stay in the cache;
- the order of |delta| depends on neither density nor weight: it is sorted once per expert and tensor, and kept as
  every element's rank, so that any density is one comparison. It is torch's own sort that is kept, since equal
  magnitudes fall as that sort lets them fall;
- `torch.bernoulli(p)` on the CPU is `torch.rand() < p` of the same stream, without its detour over a tensor of p; the
  stream is drawn ahead, in order, on a thread of its own;
- a sum over a whole tensor is done over the whole tensor: its bits depend on how it is cut.

Everything is computed in float32 from tensors of any float dtype, as mergekit does under `dtype: float32`.
Symbols: N elements of a tensor, M experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nex_merge.merging.blocks import Mask, Workspace, on_blocks
from nex_merge.merging.ranks import Kept, ascending, by_row, descending

# mergekit's own limits: below the first an l1 norm is not rescaled, below the second a sum of weights not divided by.
SMALL_NORM, SMALL_DIVISOR = 1e-7, 1e-8


@dataclass(frozen=True)
class Expert:
    """One fine-tune's tensor and what the recipe says of it."""

    name: str  # of its ranks in the store
    tensor: torch.Tensor
    weight: float
    density: float
    gamma: float = 0.0
    epsilon: float = 0.0


@dataclass(frozen=True)
class Family:
    """What tells the methods of the task arithmetic family apart."""

    sparsification: str | None  # magnitude, random, magnitude_outliers, della_magprune
    consensus: str | None  # sum, count
    normalize: bool
    rescale: bool
    scale: float  # lambda


# Writes a merged tensor into one that is contiguous.
Write = Callable[[torch.Tensor], None]


def knows(expert: Expert, family: Family) -> bool:
    """Whether `task_arithmetic` can take an expert; what it can't is a recipe's corner that mergekit has to judge."""
    if family.sparsification is None or expert.density >= 1:
        return True
    if family.sparsification == "della_magprune":
        low, high = expert.density - expert.epsilon, expert.density + expert.epsilon
        # It ranks within rows; of what has more dimensions than that, mergekit makes something else.
        return low > 0 and high < 1 and expert.tensor.ndim <= 2 and expert.tensor.shape[-1] > 1
    return expert.density > 0


def linear(tensors: Sequence[torch.Tensor], weights: Sequence[float], normalize: bool, out: torch.Tensor) -> None:
    """Write the weighted mean (or sum) of M tensors into `out`, contiguous and of their shape."""
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
    base: torch.Tensor, experts: Sequence[Expert], family: Family, kept: Kept, work: Workspace
) -> Write:
    """What writes base + lambda * (combined sparse task vectors) into a tensor, contiguous and of their shape.

    Random masks are being drawn from this call on.
    """
    # In the experts' order, each over its whole tensor: so mergekit draws the random masks.
    masks = [_mask(base, expert, family.sparsification, kept, work) for expert in experts]
    return lambda out: _combine(base.reshape(-1), experts, masks, family, kept, work, out.view(-1))


def _combine(
    base: torch.Tensor,
    experts: Sequence[Expert],
    masks: Sequence[Mask | None],
    family: Family,
    kept: Kept,
    work: Workspace,
    target: torch.Tensor,
) -> None:
    """Write the merge of flat tensors into `target`, flat as well."""
    deltas = [
        _sparse_delta(base, expert, mask, family, kept, work, f"delta {number}")
        for number, (expert, mask) in enumerate(zip(experts, masks, strict=True))
    ]
    weights = torch.tensor([expert.weight for expert in experts], dtype=torch.float32)[:, None]
    total = weights.sum(dim=0)
    total[total.abs() < SMALL_DIVISOR] = 1

    def combine(part: slice) -> None:
        own = base[part].float()
        stacked = torch.empty(len(experts), len(own))
        for row, delta in zip(stacked, deltas, strict=True):
            delta(part, own, row)
        stacked.mul_(weights)
        divisor = total
        if family.consensus is not None:
            agreeing = _agreeing(stacked, family.consensus)
            if family.normalize:
                divisor = (weights * agreeing).sum(dim=0)
                divisor += _where(torch.eq, divisor, 0)
            stacked.mul_(agreeing)
        mixed = stacked.sum(dim=0)
        if family.normalize:
            mixed /= divisor
        if family.scale != 1:
            mixed *= family.scale
        # Not into `own`: of a float32 base that is the mapped checkpoint itself.
        target[part] = mixed.add_(own)

    on_blocks(target.numel(), combine)


def _agreeing(deltas: torch.Tensor, consensus: str) -> torch.Tensor:
    """1 where weighted deltas, float32 [M, n], have the sign that wins at that element, else 0; float32 [M, n]."""
    votes = deltas if consensus == "sum" else deltas.sign()
    majority = _where(torch.ge, votes.sum(dim=0), 0).mul_(2).sub_(1)
    return (deltas * majority).gt_(0)


def _where(compare: Callable[..., torch.Tensor], values: torch.Tensor, bound: float) -> torch.Tensor:
    """1 where a comparison holds, else 0, float32: several times faster than by way of bool."""
    return compare(values, bound, out=torch.empty(values.shape))


Delta = Callable[[slice, torch.Tensor, torch.Tensor], None]


def _sparse_delta(
    base: torch.Tensor, expert: Expert, mask: Mask | None, family: Family, kept: Kept, work: Workspace, buffer: str
) -> Delta:
    """What writes a block of an expert's sparse task vector, given the block of the base, into a float32 row.

    `base` is flat; a rescaled task vector is computed whole, in the workspace's buffer of that name.
    """
    whole = expert.tensor.reshape(-1)

    def difference(part: slice, own: torch.Tensor, row: torch.Tensor) -> None:
        torch.sub(whole[part].float(), own, out=row)

    if mask is None:
        return difference

    def masked(part: slice, own: torch.Tensor, row: torch.Tensor) -> None:
        difference(part, own, row)
        row.mul_(mask(part))

    if not family.rescale:
        return masked
    delta, magnitudes = work.buffer(buffer, len(base)), work.buffer("magnitudes", len(base))

    def norm(fill: Delta) -> torch.Tensor:
        """The l1 norm, one over the whole tensor, of what fills `delta`."""

        def with_magnitudes(part: slice) -> None:
            fill(part, base[part].float(), delta[part])
            torch.abs(delta[part], out=magnitudes[part])

        on_blocks(len(base), with_magnitudes)
        return magnitudes.sum()

    before, after = kept.norm(expert.name, lambda: norm(difference)), norm(masked)
    factor = None if before < SMALL_NORM or after < SMALL_NORM else before / after

    def rescaled(part: slice, own: torch.Tensor, row: torch.Tensor) -> None:
        row.copy_(delta[part]) if factor is None else torch.mul(delta[part], factor, out=row)

    return rescaled


def _mask(base: torch.Tensor, expert: Expert, kind: str | None, kept: Kept, work: Workspace) -> Mask | None:
    """What gives a block of 1 for every element that is kept, else 0, float32 [n]; None where all are."""
    size, density = base.numel(), expert.density
    if kind is None or density >= 1:
        return None
    if kind == "random":
        return work.below(size, lambda part: density)

    def magnitudes() -> torch.Tensor:
        return torch.sub(expert.tensor.float(), base.float()).abs_()

    if kind == "magnitude":
        count = max(1, int(density * size))
        falling = kept.ranks(f"{expert.name}.descending", size, torch.int32, lambda: descending(magnitudes()))
        return lambda part: _where(torch.lt, falling[part], count)
    if kind == "magnitude_outliers":
        count = int(density * size)
        first = max(0, size - count - int(expert.gamma * size))
        rising = kept.ranks(f"{expert.name}.ascending", size, torch.int32, lambda: ascending(magnitudes()))
        last = first + count
        return lambda part: _where(torch.ge, rising[part], first).mul_(_where(torch.lt, rising[part], last))
    assert kind == "della_magprune", kind
    columns = base.shape[-1]
    dtype = torch.int16 if columns <= 1 << 15 else torch.int32
    in_row = kept.ranks(f"{expert.name}.rows", size, dtype, lambda: by_row(magnitudes(), columns).to(dtype))
    low, epsilon = density - expert.epsilon, expert.epsilon
    return work.below(size, lambda part: in_row[part].float().div_(columns - 1).mul_(2).mul_(epsilon).add_(low))


class Slerp:
    """Spherical interpolation of pairs of tensors, float32; the angle of a pair is kept by name."""

    # mergekit's own: what counts as parallel, what as no length, and how many elements it sums at once.
    PARALLEL, NO_LENGTH, SUMMED = 0.9995, 1e-8, 1 << 20

    def __init__(self) -> None:
        self._cosines: dict[str, torch.Tensor] = {}

    def __call__(self, name: str, t: float, first: torch.Tensor, second: torch.Tensor, out: torch.Tensor) -> None:
        """Write what lies at `t`, from 0 to 1, between the tensors into `out`, contiguous and of their shape."""
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
        """Cosine of the angle between two tensors, float32 [1, 1] from [1, N]."""
        parts = [slice(start, start + self.SUMMED) for start in range(0, a.shape[1], self.SUMMED)]

        def norm(x: torch.Tensor) -> torch.Tensor:
            own = [torch.linalg.vector_norm(x[:, part].float(), dim=1, keepdim=True) for part in parts]
            whole = torch.linalg.vector_norm(torch.stack(own), dim=0)
            return torch.where(whole > self.NO_LENGTH, whole, 1)

        norm_a, norm_b = norm(a), norm(b)
        dots = [
            ((a[:, part].float() / norm_a) * (b[:, part].float() / norm_b)).sum(dim=1, keepdim=True) for part in parts
        ]
        return torch.stack(dots).sum(dim=0).clamp(-1, 1)
