"""Preflight: checks a search and estimates its cost before anything is merged."""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil
from rich.filesize import decimal
from transformers import PreTrainedConfig

from nex_merge.engines.loading import check_context, context_of, load_tokenizer, resolve_device, resolve_dtype
from nex_merge.errors import InputError
from nex_merge.generation import BUFFER_SHARE, auto_batch_tokens, token_bytes
from nex_merge.measures.estimates import objective_of
from nex_merge.merging import (
    member_configs,
    method_specs,
    preflight,
    rank_bytes,
    rounded_members,
    weights_dtype,
)
from nex_merge.merging.ranks import DISK_RESERVE
from nex_merge.records import SearchSpace
from nex_merge.setup.prompts import encode_prompts, load_prompts
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import count_recipes
from nex_merge.study.search import check_filters
from nex_merge.study.trial import check_crossfit

_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
# A cache entry: key and mass, once in its row and once in its response.
_ENTRY_BYTES = 12


@dataclass(frozen=True)
class Checked:
    """The checked inputs of a search."""

    tensors: Mapping[str, tuple[str, list[int]]]  # name -> (dtype as safetensors writes it, shape)
    space: SearchSpace
    prompt_ids: list[list[int]]
    model: PreTrainedConfig
    device: str
    compute: str  # dtype of the forward passes
    itemsize: int  # bytes per element of that dtype

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def check(resolved: ResolvedConfig) -> Checked:
    """Check everything possible before the first merge. Raises InputError as the search would."""
    config, family = resolved.config, resolved.family
    objective_of(config.study)
    tensors = preflight(family.folders, family.donor)
    space = load_space(config.search_space, method_specs(), family.models)
    tokenizer = load_tokenizer(family.folders[family.donor])
    prompts = load_prompts(config.prompts)
    ids = encode_prompts(prompts, tokenizer, config.prompts)
    model = member_configs(family.folders)[family.donor]
    device = resolve_device(config.runtime.device)
    check_context(ids, config.generation.max_new_tokens, context_of(model), prompts)
    check_crossfit(config, len(ids))
    check_filters(space.filters, list(tensors))
    if not any(name.endswith(".mlp.down_proj.weight") for name in tensors):
        raise InputError(
            f"family {family.name}: expected gated MLPs (model.layers[i].mlp.down_proj), which NEX scores, got none"
        )
    dtype = resolve_dtype(config.runtime.dtype, device, weights_dtype(tensors))
    return Checked(tensors, space, ids, model, device, str(dtype).removeprefix("torch."), dtype.itemsize)


def estimate(resolved: ResolvedConfig) -> Iterator[str]:
    """Check the search and describe it and its cost, line by line. Raises InputError as `check` does."""
    checked = check(resolved)
    config, family = resolved.config, resolved.family
    recipes = count_recipes(checked.space, family.models)
    baselines = len(family.folders) if config.study.baselines else 0
    samples = config.generation.samples
    responses = len(checked.prompt_ids) * samples
    tokens = (config.study.trials + baselines) * responses * config.generation.max_new_tokens
    yield f"configuration  {resolved.source}: valid"
    millions = checked.parameters / 1e6
    yield f"family         {family.name}: base, {', '.join(family.models)}; {millions:.1f}M parameters each"
    for line in rounded_members(family.folders):
        yield f"warning        {line}"
    yield f"methods        {', '.join(method.name for method in checked.space.methods)}"
    yield f"recipes        {'unlimited (a range is continuous)' if math.isinf(recipes) else f'{recipes:.0f}'}"
    yield f"trials         {config.study.trials} merges and {baselines} baselines"
    yield f"tokens         at most {tokens:,} to generate ({len(checked.prompt_ids)} prompts, {samples} samples each)"
    yield from _memory(resolved, checked)
    yield from _disk(resolved, checked, (config.study.trials + baselines) * responses)


def _memory(resolved: ResolvedConfig, checked: Checked) -> Iterator[str]:
    config, family = resolved.config, resolved.family
    sizes = [(_BYTES.get(dtype, 4), math.prod(shape)) for dtype, shape in checked.tensors.values()]
    parents = sum(size * count for size, count in sizes) * len(family.folders)
    resident = checked.parameters * checked.itemsize
    chosen = config.generation.batch_tokens
    budget = auto_batch_tokens(checked.model, checked.itemsize) if chosen == "auto" else chosen
    longest = max(map(len, checked.prompt_ids)) + config.generation.max_new_tokens
    at_once = min(len(checked.prompt_ids) * config.generation.samples, max(1, budget // longest))
    keys_values = int(BUFFER_SHARE * at_once * longest * token_bytes(checked.model, checked.itemsize))
    # At most, a merge holds every model's largest tensor in float32, and the result.
    merging = 4 * max(count for _, count in sizes) * (len(family.models) + 2)
    need = parents + resident + max(keys_values, merging)
    free = psutil.virtual_memory().available
    yield (
        f"memory         about {decimal(need)}: parents {decimal(parents)} (mapped), resident model "
        f"{decimal(resident)} ({checked.compute} on {checked.device}), and keys and values {decimal(keys_values)} or a "
        f"merge {decimal(merging)}; free {decimal(free)}"
    )
    if checked.device == "cpu" and need > free:
        yield "warning        this may exceed the free memory; lower generation.batch_tokens"


def _disk(resolved: ResolvedConfig, checked: Checked, responses: int) -> Iterator[str]:
    config, family = resolved.config, resolved.family
    rows = math.ceil(config.generation.max_new_tokens / config.activations.slice_tokens)
    caches = responses * rows * config.activations.top_k * _ENTRY_BYTES
    kept = {kind: size for method in checked.space.methods for kind, size in rank_bytes(method.name).items()}
    orders = sum(kept.values()) * checked.parameters * len(family.models)
    existing = next(path for path in [resolved.run.absolute(), *resolved.run.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    while_running = f", and {decimal(orders)} of sorted weights while it runs" if orders else ""
    yield f"disk           at most {decimal(caches)} of caches{while_running} in {resolved.run}; free {decimal(free)}"
    if caches > free:
        yield "warning        the caches may exceed the free disk space; use fewer trials or lower activations.top_k"
    elif caches + orders + DISK_RESERVE > free:
        yield "warning        sorted weights may exceed the free disk space; without them, every trial sorts again"
