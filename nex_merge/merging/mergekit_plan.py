"""MergeRecipe -> tensors, as `mergekit-yaml` would write them. The only module that imports mergekit.

mergekit does the planning: it parses the recipe, resolves gradients and filters, and orders the tensors. The planned
tensors are computed by `kernels` for the methods they support and by mergekit for the others, with the same bits.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import safe_open
from transformers import PreTrainedConfig

from nex_merge.checkpoints.configs import architecture_of
from nex_merge.checkpoints.files import first_line
from nex_merge.checkpoints.weights import StoredTensor
from nex_merge.errors import InputError, TrialError
from nex_merge.merging import kernels
from nex_merge.merging.blocks import Workspace
from nex_merge.merging.ranks import RANK_BYTES, RankCache
from nex_merge.merging.references import mergekit_config
from nex_merge.records import MergeRecipe, MethodParameter, MethodSpec
from nex_merge.wording import counted

# mergekit logs routine steps, such as adding the base as an input, as warnings.
logging.getLogger("mergekit").setLevel(logging.ERROR)

_RANDOM_METHODS = ("dare_", "della", "arcee_fusion")
_EXCLUDED = {"passthrough"}  # copies one model, merges nothing


def method_specs() -> dict[str, MethodSpec]:
    """The merge methods in mergekit's registry, by name."""
    from mergekit.merge_methods import ParameterScope, registered_methods
    from mergekit.merge_methods.base import BasePolicy

    specs = {}
    for method in registered_methods():
        spec, contract = method.spec, method.spec.contract
        if spec.name in _EXCLUDED:
            continue
        two_inputs = contract.max_inputs == 2
        names_base = contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL) and not two_inputs
        parameters = {}
        for item in spec.parameters:
            required = getattr(item, "required", not isinstance(item.default, bool | int | float | type(None)))
            parameters[item.name] = MethodParameter(
                name=item.name,
                type=item.value_type.__name__,
                per_model=item.scope is not ParameterScope.SHARED,
                required=required,
                default=None if required else item.default,
            )
        min_models = max(
            contract.min_non_base or 1, (contract.min_inputs or 1) - (1 if names_base or two_inputs else 0)
        )
        specs[spec.name] = MethodSpec(
            name=spec.name,
            title=spec.pretty_name or spec.name,
            parameters=parameters,
            names_base=names_base,
            pairs=two_inputs or contract.max_non_base == 2,
            # slerp from a to b at t is slerp from b to a at 1 - t, and nuslerp with swapped weights is symmetric too.
            ordered=two_inputs and spec.name != "slerp",
            min_models=min_models,
            stochastic=spec.name.startswith(_RANDOM_METHODS),
        )
    return specs


def check_architecture(config: PreTrainedConfig, members: Mapping[str, Mapping[str, StoredTensor]]) -> None:
    """Raise InputError if mergekit's description of the architecture does not fit the members' tensors.

    `config`: the base's. `members`: the tensors that are the model's parameters, by member; see `check_layout`. Without
    a description of its own, mergekit infers one from the tensors, which fits.
    """
    from mergekit.architecture import arch_info_for_config

    architecture = arch_info_for_config(config)
    if architecture is None:
        return
    planned = architecture.all_weights(config)
    for member, tensors in members.items():
        for weight in planned:
            names = {weight.name, *(weight.aliases or ()), *(weight.tied_names or ())}
            if not weight.optional and not names & tensors.keys():
                tied = weight.name == "lm_head.weight" and config.tie_word_embeddings
                advice = (
                    "untie every member first: store a copy of the embeddings as lm_head.weight and set "
                    "tie_word_embeddings: false in config.json"
                    if tied
                    else "mergekit cannot merge this architecture"
                )
                raise InputError(
                    f"{member}: mergekit expects the tensor {weight.name} of every {architecture_of(config)}, and this "
                    f"checkpoint has none; {advice}"
                )
    names = {name for weight in planned for name in (weight.name, *(weight.aliases or ()))}
    if missing := sorted(members["base"].keys() - names):
        raise InputError(
            f"base: mergekit does not know the tensor {missing[0]} of {architecture_of(config)}, so a merge would lack "
            f"{counted(len(missing), 'tensor')}; mergekit cannot merge this architecture"
        )


def merge_adapter(base: Path, adapter: Path, folder: Path) -> Path:
    """Merge an adapter into a checkpoint below `folder`, as `mergekit-yaml` does for a recipe that names both."""
    from mergekit.common import ModelPath, ModelReference

    both = ModelReference(model=ModelPath(path=str(base)), lora=ModelPath(path=str(adapter)))
    return Path(both.merged(cache_dir=str(folder)).model.path)


def rank_bytes(method: str) -> dict[str, int]:
    """Bytes per element that a method's ranks take in the RankCache, by kind of order; empty for most methods."""
    from mergekit import merge_methods

    kind = getattr(merge_methods.get(method), "sparsification_method", None)
    return {kind.value: RANK_BYTES[kind.value]} if kind and kind.value in RANK_BYTES else {}


def check_structure(config: Mapping[str, Any]) -> None:
    """Raise InputError unless mergekit reads the mapping as a configuration by a method that it has."""
    from mergekit import merge_methods
    from mergekit.config import MergeConfiguration

    try:
        merge_methods.get(MergeConfiguration.model_validate(config).merge_method)
    except ValidationError as error:
        raise InputError(f"mergekit can't read it: {_reason(error)}") from None
    except (RuntimeError, TypeError, AttributeError) as error:  # its validators don't all raise what pydantic collects
        raise InputError(f"mergekit can't read it: {first_line(error)}") from None


def planned_tensors(config: Mapping[str, Any], merged: Mapping[str, Path]) -> set[str]:
    """The names of the tensors that a recipe gives, without computing them.

    `merged`: see `Streamer`. Raises InputError if mergekit can't plan the recipe.
    """
    try:
        planner, is_tied = _planned(config, merged)
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"mergekit can't plan it: {_reason(error)}") from None
    names = {weight.name for weight, _ in planner._tensors}
    return names - {"lm_head.weight"} if is_tied else names


def _reason(error: Exception) -> str:
    """What is wrong, on one line; of what pydantic found, the first."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors()[0]
    key = "".join(f"{part}: " for part in [".".join(map(str, first["loc"]))] if part)
    got = "" if first["type"] == "missing" else f", got {first['input']!r}"
    return f"{key}{first['msg']}{got}"


def _planned(config: Mapping[str, Any], merged: Mapping[str, Path]) -> tuple[Any, bool]:
    """mergekit's plan of a recipe, and whether the merge ties its output layer to the embeddings."""
    from mergekit.architecture import get_architecture_info
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import _model_out_config
    from mergekit.options import MergeOptions
    from mergekit.plan import MergePlanner

    options = MergeOptions(quiet=True, device="cpu")
    parsed = MergeConfiguration.model_validate(mergekit_config(config, merged))
    architecture = get_architecture_info(parsed, options)
    LoaderCache().setup(options=options)
    out_config: Any = _model_out_config(parsed, architecture)
    planner = MergePlanner(parsed, architecture, options=options, out_model_config=out_config)
    planner._plan()
    return planner, bool(out_config.tie_word_embeddings)


class Streamer:
    """Recipes of one family -> tensors. Caches what is independent of the recipe: open files, ranks, slerp's angles.

    `ranks`: folder of the RankCache; None: tensors are sorted again for every recipe. `merged`: the checkpoints that
    stand for references with an adapter, `base+adapter`.
    """

    def __init__(self, ranks: Path | None = None, merged: Mapping[str, Path] | None = None) -> None:
        self._merged = merged or {}
        self._ranks = RankCache(ranks)
        self._slerp = kernels.Slerp()
        self._members: dict[str, Mapping[str, torch.Tensor]] = {}
        self._warned = False

    def tensors(self, recipe: MergeRecipe) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, tensor) of a variant, one by one, on the CPU in the recipe's `out_dtype`.

        A tied `lm_head` is omitted, since the model has no such parameter. Raises TrialError if mergekit rejects the
        recipe or a tensor cannot be merged.
        """
        from mergekit.graph import Executor

        dtype = recipe.config.get("dtype")
        out_dtype = getattr(torch, recipe.config.get("out_dtype") or dtype or "float32")
        # mergekit draws masks from torch's global generator; its state is restored afterwards.
        with torch.random.fork_rng(devices=[]):
            try:
                planner, is_tied = _planned(recipe.config, self._merged)
                names = {task: weight.name for weight, task in planner._tensors}
                executor = Executor([task for _, task in planner._tensors])
                torch.manual_seed(recipe.seed)
                for task, tensor in self._run(executor, dtype, out_dtype, Workspace(recipe.seed)):
                    if tensor is None or (names[task] == "lm_head.weight" and is_tied):
                        continue
                    yield names[task], tensor.to(out_dtype)
            except (RuntimeError, ValueError, KeyError) as error:
                raise TrialError(f"mergekit rejected the recipe: {first_line(error)}") from error

    def _run(
        self, executor: Any, dtype: str | None, out_dtype: torch.dtype, work: Workspace
    ) -> Iterator[tuple[Any, torch.Tensor | None]]:
        """The planned tasks and their tensors, in mergekit's order, on which random masks depend."""
        targets = set(executor.targets)
        wanted = [handle.task() for handle in executor.schedule.tasks if handle in targets]
        kernel_or_none = [self._kernel(task, work) if dtype == "float32" else None for task in wanted]
        supported = [kernel for kernel in kernel_or_none if kernel is not None]
        if len(supported) < len(wanted):
            task = wanted[kernel_or_none.index(None)]
            if supported and not self._warned:
                logging.getLogger(__name__).warning(
                    "%s is not supported by the fast kernels for %s; falling back to mergekit, which is slower",
                    task.output_weight.name,
                    task.method_name,
                )
                self._warned = True
            yield from executor.run(quiet=True)
            return
        writes = _one_ahead([begin for _, begin in supported])
        for task, (shape, _) in zip(wanted, supported, strict=True):
            out = torch.empty(shape, dtype=out_dtype)
            try:
                next(writes)(out)
            except RuntimeError as error:
                raise TrialError(f"merging {task.output_weight.name} failed: {first_line(error)}") from error
            yield task, out

    def _kernel(self, task: Any, work: Workspace) -> tuple[torch.Size, Callable[[], kernels.Write]] | None:
        """The shape of a planned tensor and a function that starts its merge; None if only mergekit can compute it."""
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
            return shape, lambda: kernels.task_arithmetic(base, experts, family, self._ranks, work)
        if task.method_name == "linear" and task.base_model is None:
            weights = [of_model[model]["weight"] for model in task.model_order]
            inputs = [tensors[model] for model in task.model_order]
            return shape, lambda: partial(kernels.linear, inputs, weights, shared["normalize"])
        if task.method_name == "slerp" and len(others) == 1:
            ends = (tensors[task.base_model], tensors[others[0]])
            name = _key(task.base_model, others[0], task.output_weight.name)
            return shape, lambda: partial(self._slerp, name, shared["t"], *ends)
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


def _one_ahead(begins: Iterable[Callable[[], kernels.Write]]) -> Iterator[kernels.Write]:
    """The result of each call, with the next call already made: its random masks are drawn while this one is used."""
    previous: kernels.Write | None = None
    for begin in begins:
        current = begin()
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def _key(base: Any, model: Any, tensor: str) -> str:
    """Cache key of a tensor of a model relative to its base."""
    return hashlib.sha256(f"{base.model.path}\n{model.model.path}\n{tensor}".encode()).hexdigest()[:24]
