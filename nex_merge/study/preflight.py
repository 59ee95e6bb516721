"""Preflight: what a search would do and need, before anything is merged."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from nex_merge.errors import InputError
from nex_merge.setup.resolve import Plan

_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
_COMPUTE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# An entry of a cache: key and mass, in its row and again in its response.
_ENTRY_BYTES = 12


def estimate(plan: Plan) -> Iterator[str]:
    """Check everything that can be known before the first merge; what was found, line by line.

    Raises InputError for whatever the search itself would refuse.
    """
    from nex_merge.generation import BUFFER_SHARE, auto_batch_tokens, token_bytes
    from nex_merge.merging import member_configs, method_specs, preflight, rank_bytes, weights_dtype
    from nex_merge.merging.ranks import DISK_RESERVE
    from nex_merge.study.proposal import count_recipes
    from nex_merge.study.search import check_filters
    from nex_merge.study.trial import check_context, check_prompts, load_tokenizer, resolve_device
    from nex_merge.setup.prompts import encode_prompts, load_prompts
    from nex_merge.setup.search_space import load_space

    config, family = plan.config, plan.family
    tensors = preflight(family.folders, family.donor)
    space = load_space(config.search_space, method_specs(), family.models)
    tokenizer = load_tokenizer(family.folders[family.donor])
    ids = encode_prompts(load_prompts(config.prompts), tokenizer, config.prompts)
    model = member_configs(family.folders)[family.donor]
    device = resolve_device(config.runtime.device)
    check_context(ids, config.generation.max_new_tokens, model)

    check_prompts(config, ids)
    check_filters(space.filters, list(tensors))
    if not any(name.endswith(".mlp.down_proj.weight") for name in tensors):
        raise InputError(
            f"family {family.name}: has no gated MLPs (model.layers[i].mlp.down_proj), whose units are scored"
        )
    stored = weights_dtype(tensors)
    parameters = sum(math.prod(shape) for _, shape in tensors.values())
    parents = sum(_BYTES.get(dtype, 4) * math.prod(shape) for dtype, shape in tensors.values()) * len(family.folders)
    compute = config.runtime.dtype
    compute = ("float32" if device == "cpu" else stored) if compute == "auto" else compute
    resident = parameters * _COMPUTE_BYTES[compute]
    per_token = token_bytes(model, _COMPUTE_BYTES[compute])
    chosen = config.generation.batch_tokens
    budget = auto_batch_tokens(model, _COMPUTE_BYTES[compute]) if chosen == "auto" else chosen
    longest = max(map(len, ids)) + config.generation.max_new_tokens
    at_once = min(len(ids) * config.generation.samples, max(1, budget // longest))
    keys_values = BUFFER_SHARE * at_once * longest * per_token
    recipes = count_recipes(space, family.models)
    baselines = len(family.folders) if config.study.baselines else 0
    variants = config.study.trials + baselines
    responses = len(ids) * config.generation.samples
    tokens = variants * responses * config.generation.max_new_tokens
    rows = math.ceil(config.generation.max_new_tokens / config.activations.slice_tokens)
    disk = variants * responses * rows * config.activations.top_k * _ENTRY_BYTES
    kept = {kind: size for method in space.methods for kind, size in rank_bytes(method.name).items()}
    orders = sum(kept.values()) * parameters * len(family.models)
    free_disk = shutil.disk_usage(
        next(p for p in [plan.run.absolute(), *plan.run.absolute().parents] if p.exists())
    ).free
    free_memory = psutil.virtual_memory().available

    yield f"configuration  {plan.source}: sound"
    yield f"family         {family.name}: base, {', '.join(family.models)}; {parameters / 1e6:.1f}M parameters each"
    yield f"methods        {', '.join(method.name for method in space.methods)}"
    yield f"recipes        {'unlimited (a range is continuous)' if math.isinf(recipes) else f'{recipes:.0f}'}"
    yield f"trials         {config.study.trials} merges and {baselines} baselines"
    samples = config.generation.samples
    yield f"tokens         at most {tokens:,} to generate ({len(ids)} prompts, {samples} samples each)"
    # At worst a merge holds every model's largest tensor in float32, and its result beside them.
    largest = max(math.prod(shape) for _, shape in tensors.values())
    merging = 4 * largest * (len(family.models) + 2)
    need = parents + resident + max(keys_values, merging)
    yield (
        f"memory         about {_size(need)}: parents {_size(parents)} (mapped), resident model {_size(resident)} "
        f"({compute} on {device}), and keys and values {_size(keys_values)} or a merge {_size(merging)}; "
        f"free {_size(free_memory)}"
    )
    while_running = f", and {_size(orders)} of sorted weights while it runs" if orders else ""
    yield (
        f"disk           at most {_size(disk)} of caches{while_running} in {Path(config.output)}; "
        f"free {_size(free_disk)}"
    )
    if disk > free_disk:
        yield "warning        the caches may not fit the disk: fewer trials, or a smaller activations.top_k, would do"
    elif disk + orders + DISK_RESERVE > free_disk:
        yield "warning        sorted weights may not fit the disk: merging would then sort them in every trial"
    if device == "cpu" and need > free_memory:
        yield "warning        this may not fit the memory: a smaller generation.batch_tokens would do with less"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
