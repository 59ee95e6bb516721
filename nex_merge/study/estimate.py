"""What a search will be and cost, line by line, for `nex-merge validate`."""

import math
import shutil
from collections.abc import Callable, Iterator

import psutil
from rich.filesize import decimal

from nex_merge.engines.family import FamilyResident
from nex_merge.generation import BUFFER_SHARE, batch_tokens, token_bytes
from nex_merge.merging import rank_bytes, rounded_members
from nex_merge.merging.ranks import DISK_RESERVE
from nex_merge.merging.streamer import DRAWN_AHEAD
from nex_merge.runs.watch import duration
from nex_merge.setup.config import RunConfig
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.study.budget import described
from nex_merge.study.preflight import Checked, check, rehearsed
from nex_merge.study.probe import TOKENS, probe
from nex_merge.study.proposal import count_recipes
from nex_merge.study.race import FEWEST_RIVALS
from nex_merge.study.rehearsal import sample_merges
from nex_merge.wording import counted

_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
# A cache entry: key and mass, once in its row and once in its response.
_ENTRY_BYTES = 12
_PROCESS = 300_000_000  # bytes of a worker without its model, as measured; results/studies/scale.md


def estimate(
    resolved: ResolvedConfig, fresh: bool = False, note: Callable[[str], None] = lambda text: None
) -> Iterator[str]:
    """Check the search and describe it and its cost, line by line. Raises InputError as `check` does."""
    checked = check(resolved, fresh, note)
    rehearsal = rehearsed(resolved, checked, note)
    config, family = resolved.config, resolved.family
    recipes = float(len(checked.recipes)) if checked.recipes else count_recipes(checked.space, family.models)
    baselines = len(family.folders) if config.study.baselines else 0
    samples = config.generation.samples
    responses = len(checked.asked.ids) * samples
    tokens = (config.study.trials + baselines) * responses * config.generation.max_new_tokens
    yield f"configuration  {resolved.source}: valid"
    millions = checked.parameters / 1e6
    yield f"family         {family.name}: base, {', '.join(family.models)}; {millions:.1f}M parameters each"
    for line in rounded_members(family.folders, family.dtype):
        yield f"warning        {line}"
    yield f"prompts        {resolved.loaded.about}"
    yield f"objective      {', '.join(checked.terms.objective.names)}"
    yield f"methods        {', '.join(method.name for method in checked.space.methods)}"
    yield f"recipes        {'unlimited (a range is continuous)' if math.isinf(recipes) else f'{recipes:.0f}'}"
    yield f"trials         {counted(config.study.trials, 'merge')} and {counted(baselines, 'baseline')}"
    yield (
        f"tokens         at most {tokens:,} to generate ({counted(len(checked.asked.ids), 'prompt')}, "
        f"{counted(samples, 'sample')} each, of at most {config.generation.max_new_tokens:,})"
    )
    if config.study.final is not None:
        yield (
            f"final          {len(checked.kept_for_the_final)} of the prompts, which the search does not see: the best "
            f"{counted(config.study.final.top, 'merge')}, base, parents and equal weights answer them, and "
            f"other complete merges "
            f"vote; {len(checked.terms.asked)} are the search's"
        )
    if config.study.pruner != "none":
        yield (
            f"racing         first after {counted(config.study.block, 'prompt')}: once {FEWEST_RIVALS} merges "
            f"are complete, those "
            "that are unlikely to overtake the best so far end before they have answered all"
        )
    if budgets := described(config.study):
        yield f"budget         {budgets}; once reached, no further trial is started"
    assert checked.engine is not None, "only a search gives it up"
    resident = checked.engine.family_weights
    warm_start = [checked.warm_start.note] if checked.warm_start else []
    assert resident is not None and rehearsal is not None, "the family's own"
    for line in (*warm_start, *checked.notes, *rehearsal.notes):
        yield f"note           {line}"
    yield f"rehearsal      {rehearsal.summary()}"
    yield from _time(resolved, checked, resident, baselines)
    yield from _memory(resolved, checked, resident)
    yield from _disk(resolved, checked, baselines, responses)


def _time(resolved: ResolvedConfig, checked: Checked, weights: FamilyResident, baselines: int) -> Iterator[str]:
    config, engine = resolved.config, checked.engine
    assert engine is not None, "only a search gives it up"
    recipe = sample_merges(weights, checked.space, checked.recipes)[0]
    at_once, captured = _at_once(config, checked, weights), config.activations.capture == "all"
    activations = config.activations if captured else None
    # As they are rendered now: a run keeps what it was asked, whatever tokenizer that was by.
    prompts = engine.encode(resolved.prompts, config.prompts, config.generation.max_new_tokens)
    bound = probe(engine, recipe, prompts, config.generation, at_once, activations)
    # Workers that share the cores of one machine are hardly faster than one that has all of them.
    gpus = len({place.device for place in checked.places})
    whole = (config.study.trials + baselines) * bound.seconds / gpus
    capturing = f", capture {bound.capture:.3g} s" if captured else ""
    yield (
        f"time           at most about {duration(whole)}, as {TOKENS} tokens and a merge by {recipe.method} took now: "
        f"a trial {bound.seconds:.3g} s (merge {bound.merge:.3g} s, generate {bound.generate:.3g} s{capturing}) if "
        "every response is as long as it may be and drafts save nothing; without scores and a final"
    )


def _at_once(config: RunConfig, checked: Checked, weights: FamilyResident) -> int:
    """How many responses are answered at once."""
    budget = batch_tokens(config.generation, weights.config, weights.dtype.itemsize)
    longest = max(map(len, checked.asked.ids)) + config.generation.max_new_tokens
    return min(len(checked.asked.ids) * config.generation.samples, max(1, budget // longest))


def _memory(resolved: ResolvedConfig, checked: Checked, weights: FamilyResident) -> Iterator[str]:
    config, family, itemsize = resolved.config, resolved.family, weights.dtype.itemsize
    sizes = [(_BYTES.get(dtype, 4), math.prod(shape)) for dtype, shape in checked.tensors.values()]
    parents = sum(size * count for size, count in sizes) * len(family.folders)
    resident = checked.parameters * itemsize
    longest = max(map(len, checked.asked.ids)) + config.generation.max_new_tokens
    at_once = _at_once(config, checked, weights)
    token = token_bytes(weights.config, itemsize)
    keys_values, own_model = int(BUFFER_SHARE * at_once * longest * token), 0
    if config.runtime.engine == "vllm":  # which lays them out in full, and has an output layer of its own
        keys_values = max(batch_tokens(config.generation, weights.config, itemsize), longest) * token
        text = weights.config.get_text_config()
        own_layer = text.vocab_size * text.hidden_size * itemsize if weights.config.tie_word_embeddings else 0
        own_model = resident + own_layer
    # At most, a merge holds every model's largest tensor in float32, and the result.
    merging = 4 * max(count for _, count in sizes) * (len(family.models) + 2)
    masks = _masks(checked, config, weights.device.type, len(family.models))
    # The rehearsal loads one member beside the resident model, before there are keys and values.
    need = parents + resident + own_model + masks + max(keys_values, merging, resident)
    free = psutil.virtual_memory().available
    yield (
        f"memory         about {decimal(need)}: parents {decimal(parents)} (mapped), resident model "
        f"{decimal(resident)} ({str(weights.dtype)[6:]} on {weights.device}), and keys and values "
        f"{decimal(keys_values)}, a merge {decimal(merging)} or, in the rehearsal, a member {decimal(resident)}"
        f"{f', random masks of the next merge {decimal(masks)}' * bool(masks)}"
        f"{f', and a model of vLLM {decimal(own_model)}' * bool(own_model)}; free {decimal(free)}"
    )
    workers = len(checked.places)
    if workers > 1:
        # The parents are mapped once for all, and this process gives up its model after the rehearsal.
        each = resident + own_model + masks + max(keys_values, merging) + _PROCESS
        need = max(need, parents + workers * each)
        yield (
            f"workers        {workers}, about {decimal(each)} each, {decimal(_PROCESS)} of it Python and libraries; "
            f"with the parents, which they share, {decimal(parents + workers * each)}"
        )
    if weights.device.type == "cpu" and need > free:
        fewer = "use fewer workers or " if workers > 1 else ""
        yield f"warning        this may exceed the free memory; {fewer}lower generation.batch_tokens"


def _masks(checked: Checked, config: RunConfig, device: str, models: int) -> int:
    """Random masks of the next merge, drawn while a GPU answers: a byte for each element of every model's."""
    stochastic = any(method.stochastic for method in checked.space.methods)
    draws = stochastic and config.study.parallel > 1 and device != "cpu"
    return min(DRAWN_AHEAD, checked.parameters * models) if draws else 0


def _disk(resolved: ResolvedConfig, checked: Checked, baselines: int, responses: int) -> Iterator[str]:
    """`responses`: of each variant."""
    config, family = resolved.config, resolved.family
    captured = config.activations.capture == "all"
    rows = math.ceil(config.generation.max_new_tokens / config.activations.slice_tokens) if captured else 0
    trials, most = config.study.trials, config.activations.kept_merges
    # Those that are kept, and those that are tried; of the others stays the half that is by response.
    whole = trials if most is None else min(trials, most + config.study.parallel)
    cache = responses * rows * config.activations.top_k * _ENTRY_BYTES
    caches = cache * (baselines + whole) + cache // 2 * (trials - whole)
    kept = {kind: size for method in checked.space.methods for kind, size in rank_bytes(method.name).items()}
    orders = sum(kept.values()) * checked.parameters * len(family.models)
    existing = next(path for path in [resolved.run.absolute(), *resolved.run.absolute().parents] if path.exists())
    free = shutil.disk_usage(existing).free
    while_running = f", and {decimal(orders)} of sorted weights while it runs" if orders else ""
    yield f"disk           at most {decimal(caches)} of caches{while_running} in {resolved.run}; free {decimal(free)}"
    if caches > free:
        yield (
            "warning        the caches may exceed the free disk space; use fewer trials, a lower activations.top_k, or "
            "keep those of the best merges alone (activations.keep)"
        )
    elif caches + orders + DISK_RESERVE > free:
        yield "warning        sorted weights may exceed the free disk space; without them, every trial sorts again"
