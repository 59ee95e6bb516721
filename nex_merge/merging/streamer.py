"""MergeRecipe -> tensors, as `mergekit-yaml` would write them.

mergekit does the planning: it parses the recipe, resolves gradients and filters, and orders the tensors. The planned
tensors are computed by `kernels` for the methods they support and by mergekit for the others, with the same bits.
"""

import functools
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nex_merge.errors import TrialError
from nex_merge.merging import kernels
from nex_merge.merging.alike import alike
from nex_merge.merging.mergekit_plan import planned
from nex_merge.merging.ranks import RankCache
from nex_merge.merging.slerp import Slerp
from nex_merge.merging.workspace import CPU, Copies, Workspace
from nex_merge.records import MergeRecipe
from nex_merge.threads import use_one_core
from nex_merge.wording import first_line

# Random masks that are drawn for a recipe before it is merged, in bytes: one for each element.
DRAWN_AHEAD = 2 << 30


@dataclass(frozen=True)
class _Kernel:
    """How a planned tensor is computed here."""

    name: str  # see `alike`
    shape: torch.Size
    experts: int  # rows of the sums over them
    draws: int  # random numbers
    begin: Callable[[Workspace], kernels.Write]


class _Writes:
    """The writes of kernels, in their order, begun ahead of time: random masks are drawn while others are used."""

    def __init__(self, planned: Sequence[_Kernel], work: Workspace) -> None:
        self._rest, self._work = deque(planned), work
        self._begun: deque[tuple[int, kernels.Write]] = deque()
        self._drawn = 0

    def begin(self, draws: int) -> None:
        """Begin one more, and then as many as draw so many numbers in all."""
        while self._rest and (not self._begun or self._drawn + self._rest[0].draws <= draws):
            kernel = self._rest.popleft()
            self._drawn += kernel.draws
            self._begun.append((kernel.draws, kernel.begin(self._work)))

    def next(self) -> kernels.Write:
        self.begin(0)
        draws, write = self._begun.popleft()
        self._drawn -= draws
        self.begin(0)
        return write


@dataclass(frozen=True)
class _Plan:
    """A recipe that mergekit has planned, and that is ready to be merged."""

    executor: Any
    names: Mapping[Any, str]  # of the planned tensors, by task
    is_tied: bool
    dtype: torch.dtype
    tasks: Sequence[Any]  # in mergekit's order, on which random masks depend
    planned: Sequence[_Kernel | None]  # None: only mergekit can compute it
    work: Workspace
    writes: _Writes


class Streamer:
    """Recipes of one family -> tensors. Caches what is independent of the recipe: open files, ranks, slerp's angles.

    `ranks`: folder of the RankCache; None: tensors are sorted again for every recipe. `merged`: the checkpoints that
    stand for references with an adapter, `base+adapter`. `device`: where tensors are merged if kernels give the CPU's
    bits there.
    """

    def __init__(
        self,
        ranks: Path | None = None,
        merged: Mapping[str, Path] | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._merged = merged or {}
        self._ranks = RankCache(ranks)
        self._slerp = Slerp()
        self._copies = Copies(device)
        self._members: dict[str, Mapping[str, torch.Tensor]] = {}
        self._ahead: tuple[MergeRecipe, Future[_Plan]] | None = None
        self._warned = False

    def prepare(self, recipe: MergeRecipe) -> None:
        """Plan a recipe that is merged next, and begin to draw its random masks, on another thread."""
        if self._ahead is not None and self._ahead[0] == recipe:
            return
        self._forget()
        self._ahead = (recipe, _preparing().submit(self._prepared, recipe))

    def let_go(self) -> bool:
        """Forget copies of the parents on the device. False if there were none."""
        return self._copies.let_go()

    def tensors(self, recipe: MergeRecipe) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) of a variant, one by one, in the recipe's `out_dtype`, on the CPU or where they are merged.

        A tied `lm_head` is omitted, since the model has no such parameter. Raises TrialError if mergekit rejects the
        recipe or a tensor cannot be merged, torch.OutOfMemoryError where the device has no room.
        """
        # mergekit draws masks from torch's global generator; its state is restored afterwards.
        with torch.random.fork_rng(devices=[]), ExitStack() as stack:
            try:
                plan = self._taken(recipe)
                stack.callback(plan.work.close)  # masks that are still to be drawn, if this ends early
                torch.manual_seed(recipe.seed)
                for task, tensor in self._run(plan):
                    if tensor is None or (plan.names[task] == "lm_head.weight" and plan.is_tied):
                        continue
                    yield plan.names[task], tensor.to(plan.dtype)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, KeyError) as error:
                raise TrialError(f"mergekit rejected the recipe: {first_line(error)}") from error

    def _forget(self) -> None:
        if self._ahead is not None:
            future, self._ahead = self._ahead[1], None
            if not future.cancel() and future.exception() is None:
                future.result().work.close()

    def _taken(self, recipe: MergeRecipe) -> _Plan:
        """The plan of a recipe, which may have been prepared. Raises what planning raises."""
        if self._ahead is not None and self._ahead[0] == recipe:
            future, self._ahead = self._ahead[1], None
            return future.result()
        self._forget()
        return self._plan(recipe)

    def _prepared(self, recipe: MergeRecipe) -> _Plan:
        plan = self._plan(recipe)
        if all(kernel is not None and kernel.draws for kernel in plan.planned):  # those that only sort can wait
            plan.writes.begin(DRAWN_AHEAD)
        return plan

    def _plan(self, recipe: MergeRecipe) -> _Plan:
        from mergekit.graph import Executor

        dtype = recipe.config.get("dtype")
        planner, is_tied = planned(recipe.config, self._merged)
        names = {task: weight.name for weight, task in planner._tensors}
        executor: Any = Executor([task for _, task in planner._tensors])
        targets = set(executor.targets)
        tasks = [handle.task() for handle in executor.schedule.tasks if handle in targets]
        found = [self._kernel(task) if dtype == "float32" else None for task in tasks]
        known = [kernel for kernel in found if kernel is not None]
        work = Workspace(recipe.seed, self._place(known))
        out_dtype = getattr(torch, recipe.config.get("out_dtype") or dtype or "float32")
        return _Plan(executor, names, is_tied, out_dtype, tasks, found, work, _Writes(known, work))

    def _place(self, planned: Sequence[_Kernel]) -> Copies:
        """Where a recipe is merged: on the device if all of it has the CPU's bits there."""
        device = self._copies.device
        if device.type == "cpu" or any(kernel.experts > kernels.IN_ORDER for kernel in planned):
            return Copies()
        return self._copies if {kernel.name for kernel in planned} <= alike(device) else Copies()

    def _run(self, plan: _Plan) -> Iterator[tuple[Any, torch.Tensor | None]]:
        """The planned tasks and their tensors."""
        if None in plan.planned:
            task = plan.tasks[plan.planned.index(None)]
            if any(plan.planned) and not self._warned:
                logging.getLogger(__name__).warning(
                    "%s is not supported by the fast kernels for %s; falling back to mergekit, which is slower",
                    task.output_weight.name,
                    task.method_name,
                )
                self._warned = True
            yield from plan.executor.run(quiet=True)
            return
        for task, kernel in zip(plan.tasks, plan.planned, strict=True):
            assert kernel is not None, "none is missing"
            out = torch.empty(kernel.shape, dtype=plan.dtype, device=plan.work.device)
            try:
                plan.writes.next()(out)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise TrialError(f"merging {task.output_weight.name} failed: {first_line(error)}") from error
            yield task, out

    def _kernel(self, task: Any) -> _Kernel | None:
        """The kernel of a planned tensor; None if only mergekit can compute it."""
        from mergekit import merge_methods
        from mergekit.io.tasks import GatherTensors
        from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

        if type(task.gather_tensors) is not GatherTensors:
            return None
        tensors = {}
        for model, weight in task.gather_tensors.weight_info.items():
            tensor = self._member(model).get(weight.name)
            if tensor is None or not tensor.is_floating_point() or not tensor.numel():
                return None
            tensors[model] = tensor
        if len({tensor.shape for tensor in tensors.values()}) > 1:
            return None
        of_model, shared = task.input_parameters, dict(task.parameters.items())
        method = merge_methods.get(task.method_name)
        others = [model for model in task.model_order if model != task.base_model]
        shape = tensors[task.model_order[0]].shape
        if isinstance(method, GeneralizedTaskArithmeticMerge) and others:
            names = {model: _key(task.base_model, model, task.output_weight.name) for model in others}
            experts = [
                kernels.Expert(names[model], tensors[model], **dict(of_model[model].items())) for model in others
            ]
            family = kernels.TaskArithmetic(
                method.sparsification_method and method.sparsification_method.value,
                method.consensus_method and method.consensus_method.value,
                shared["normalize"],
                shared["rescale"],
                shared["lambda"],
            )
            if not all(kernels.is_supported(expert, family) for expert in experts):
                return None
            base = tensors[task.base_model]
            draws = sum(kernels.draws(expert, family) for expert in experts)

            def begin(work: Workspace) -> kernels.Write:
                return kernels.task_arithmetic(base, experts, family, self._ranks, work)

            return _Kernel("task arithmetic", shape, len(experts), draws, begin)
        if task.method_name == "linear" and task.base_model is None:
            weights = [of_model[model]["weight"] for model in task.model_order]
            inputs = [tensors[model] for model in task.model_order]
            normalize = shared["normalize"]
            return _Kernel(
                "linear", shape, 0, 0, lambda work: partial(kernels.linear, inputs, weights, normalize, work)
            )
        if task.method_name == "slerp" and len(others) == 1:
            ends = (tensors[task.base_model], tensors[others[0]])
            name = _key(task.base_model, others[0], task.output_weight.name)
            slerp = partial(self._slerp, name, shared["t"], *ends)
            return _Kernel("slerp", shape, 0, 0, lambda work: partial(slerp, work))
        return None

    def _member(self, model: Any) -> Mapping[str, torch.Tensor]:
        """A checkpoint's tensors by name, memory-mapped from the files in mergekit's index."""
        from mergekit.io.tasks import LoaderCache

        index = LoaderCache().get(model).index
        if index.base_path not in self._members:
            found = {}
            for shard in sorted(set(index.tensor_paths.values())):
                if shard.endswith(".safetensors"):
                    with safe_open(Path(index.base_path) / shard, "pt") as file:
                        names = [name for name, path in index.tensor_paths.items() if path == shard]
                        found |= {name: file.get_tensor(name) for name in names}
            self._members[index.base_path] = found
        return self._members[index.base_path]


@functools.cache
def _preparing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "preparing", use_one_core)


def _key(base: Any, model: Any, tensor: str) -> str:
    """Cache key of a tensor of a model relative to its base."""
    return hashlib.sha256(f"{base.model.path}\n{model.model.path}\n{tensor}".encode()).hexdigest()[:24]
