"""mergekit's spherical interpolation of two tensors: the same bits in less time; see `kernels`."""

import torch

from nex_merge.merging.workspace import Workspace


class Slerp:
    """Spherical linear interpolation of pairs of tensors, in float32. The angle of a pair is cached by name."""

    # mergekit's constants: |cosine| of parallel tensors, norm of a zero tensor, and elements per partial sum.
    PARALLEL, ZERO_NORM, SUMMED = 0.9995, 1e-8, 1 << 20

    def __init__(self) -> None:
        self._cosines: dict[str, torch.Tensor] = {}

    def __call__(
        self, name: str, t: float, first: torch.Tensor, second: torch.Tensor, work: Workspace, out: torch.Tensor
    ) -> None:
        """Write the interpolation at `t` (0: first, 1: second) into `out`, contiguous and of their shape."""
        if name not in self._cosines:
            self._cosines[name] = self._cosine(first.reshape(1, -1), second.reshape(1, -1))
        a, b, target = work.member(first)[None], work.member(second)[None], out.view(-1)
        dot, at = self._cosines[name], torch.tensor([[t]], dtype=torch.float32)
        parallel = dot.abs() > self.PARALLEL
        angle = torch.acos(torch.where(parallel, 0, dot))
        sine = torch.sin(angle)
        of_a = torch.where(parallel, 1 - at, torch.sin((1 - at) * angle) / sine)
        of_b = torch.where(parallel, at, torch.sin(at * angle) / sine)
        of_a, of_b = work.constants(of_a), work.constants(of_b)

        def between(part: slice) -> None:
            target[part] = (of_a * a[:, part].float() + of_b * b[:, part].float())[0]

        work.on_blocks(target.numel(), between)

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
