"""Preflight: checks a search and estimates its cost before anything is merged."""

import math
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psutil
from rich.filesize import decimal

from nex_merge.engines.contracts import Engine
from nex_merge.engines.family import FamilyResident
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import InputError
from nex_merge.generation import BUFFER_SHARE, auto_batch_tokens, token_bytes
from nex_merge.measures.constraints import Constraint, constraints_of
from nex_merge.measures.estimates import Objective, objective_of
from nex_merge.measures.registry import MEASURES
from nex_merge.merging import method_specs, preflight, rank_bytes, rounded_members, weights_dtype
from nex_merge.merging.ranks import DISK_RESERVE
from nex_merge.records import MergeRecipe, SearchSpace
from nex_merge.runs import custody
from nex_merge.runs.asked import Asked, as_begun, read_asked
from nex_merge.runs.database import Database
from nex_merge.setup.config import RunConfig, RuntimeConfig
from nex_merge.setup.families import Family
from nex_merge.setup.rendering import file_notes, rendering_notes
from nex_merge.setup.resolve import ResolvedConfig
from nex_merge.setup.search_space import load_space
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.budget import described
from nex_merge.study.guesses import check_guesses
from nex_merge.study.proposal import count_recipes
from nex_merge.study.race import FEWEST_RIVALS, check_race
from nex_merge.study.recipe_list import load_recipes, space_of
from nex_merge.study.rehearsal import rehearse
from nex_merge.study.rehearsal_cache import Rehearsal
from nex_merge.study.terms import Terms, check_crossfit, split_prompts
from nex_merge.study.tracking.observer import check_tracking
from nex_merge.study.warm_start import WarmStart, find_warm_start
from nex_merge.wording import counted
from nex_merge.workers.cluster import check_ray
from nex_merge.workers.places import Place, places

_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
# A cache entry: key and mass, once in its row and once in its response.
_ENTRY_BYTES = 12
_PROCESS = 300_000_000  # bytes of a worker without its model, as measured; results/studies/scale.md


@dataclass(frozen=True)
class Checked:
    """The checked inputs of a search."""

    tensors: Mapping[str, tuple[str, list[int]]]  # name -> (dtype as safetensors writes it, shape)
    space: SearchSpace
    asked: Asked  # what all trials are asked
    terms: Terms  # what all trials have in common, but for the reference, which follows from the proposals
    kept_for_the_final: Sequence[int]  # the prompts that the search does not see; none without a final
    database: Database  # of the study
    places: Sequence[Place]  # of the workers
    engine: Engine | None  # of this process; None: given up, as workers have their own
    out_dtype: str  # dtype of saved merges
    recipes: Mapping[str, MergeRecipe]  # to rank, by name; empty: the space is searched
    warm_start: WarmStart | None  # None: the search begins with its own trials
    notes: Sequence[str]  # what the user might not expect of the prompts

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def check(
    resolved: ResolvedConfig,
    fresh: bool = False,
    note: Callable[[str], None] = lambda text: None,
    engine: Engine | Callable[[], Engine] | None = None,
) -> Checked:
    """Check a search, as both `validate` and the search itself do, so that they refuse the same.

    `engine`: used instead of a new one for the family, or what makes one. Raises InputError for whatever is wrong with
    the input, RunError if the run folder is in use.
    """
    config, family = resolved.config, resolved.family
    objective, constraints = objective_of(config.study), constraints_of(config.study)
    check_measures(config, objective, constraints)
    check_samples(config)
    check_tracking(resolved.trackers)
    database = Database(resolved.storage, resolved.run, note)
    custody.check(resolved, fresh, database)
    warm_start = find_warm_start(resolved, objective, constraints, fresh)
    if config.runtime.cluster is not None:
        check_ray(config.runtime)
    at = places(config.runtime, config.study.parallel)
    if len(at) > 1 or config.runtime.cluster is not None:
        _check_sent(engine)
    made = made_for(family, config.runtime, at[0].device, engine)
    if made.family_weights is not None:
        tensors = made.family_weights.tensors
    else:
        tensors = preflight(family.folders, family.donor, family.donor_named)
    out_dtype = weights_dtype(tensors, family.dtype)
    recipes = load_recipes(resolved, list(tensors), out_dtype)
    if config.search_space is None:
        space = space_of(recipes)
    else:
        space = load_space(config.search_space, method_specs(), family.models)
        check_guesses(space, family.models, config.study.guesses)
    check_filters(space.filters, list(tensors))
    asked, notes = _asked(resolved, made, fresh)
    searched, final = split_prompts(config.study, len(asked.ids))
    check_race(config, len(searched), objective, constraints)
    check_capture(config)
    for name in objective.names:
        if len(searched) < (fewest := MEASURES[name].fewest_telling):
            note(
                f"warning: the search has {counted(len(searched), 'prompt')}; the verdict on {name} is never sound "
                f"with fewer than {fewest} that tell variants apart"
            )
    terms = Terms(config, list(family.folders), asked.ids, searched, objective, constraints)
    return Checked(
        tensors, space, asked, terms, final, database, at, made, out_dtype, recipes, warm_start, notes,
    )  # fmt: skip


def _check_sent(engine: Engine | Callable[[], Engine] | None) -> None:
    """Raise InputError if workers in other processes can't make an engine that was given from Python."""
    what = "engine: expected a class or a function that other processes can import, as every worker makes its own"
    if engine is not None and not callable(engine):
        raise InputError(f"{what}, got an engine of this process. Without workers and cluster, it does the trials here")
    try:
        pickle.dumps(engine)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"{what}: {error}") from None


def made_for(
    family: Family, runtime: RuntimeConfig, device: str, engine: Engine | Callable[[], Engine] | None = None
) -> Engine:
    """The engine on a device, or the one that was given. Raises InputError for whatever is wrong with the family."""
    if engine is None:
        return FamilyEngine(family, runtime.model_copy(update={"device": device}))
    return engine() if callable(engine) else engine


def rehearsed(resolved: ResolvedConfig, checked: Checked, note: Callable[[str], None]) -> Rehearsal | None:
    """The rehearsal of a checked search; None: its engine has no `family_weights`. Raises InputError if it fails."""
    if checked.engine is None or checked.engine.family_weights is None:
        return None
    return rehearse(checked.engine, resolved, checked.space, checked.recipes, note)


def _asked(resolved: ResolvedConfig, engine: Engine, fresh: bool) -> tuple[Asked, list[str]]:
    """What all trials of a run are asked: what was kept when it was begun, else its prompts as they are rendered now.

    Also what a user might not expect of it. Raises InputError if the prompts are invalid.
    """
    config, prompts = resolved.config, resolved.prompts
    kept = None if fresh else read_asked(resolved.run)
    clock = datetime.now() if kept is None else kept.clock
    engine.tell_time(clock)
    now = Asked(engine.encode(prompts, config.prompts, config.generation.max_new_tokens), clock)
    check_crossfit(config, len(now.ids))
    notes = [*resolved.loaded.notes, *file_notes(prompts, config.prompts)]
    if engine.family_weights is not None:
        notes += rendering_notes(prompts, now.ids, engine.family_weights.tokenizer, config.prompts, clock)
    asked, differing = (now, []) if fresh else as_begun(resolved.run, now, kept)
    return asked, notes + differing


def _measured(study: StudyConfig, objective: Objective, constraints: Sequence[Constraint]) -> Iterator[tuple[str, str]]:
    """(key, measure) of every objective and constraint."""
    for name in objective.names:
        yield "study.objective" if study.objectives is None else "study.objectives", name
    for item in constraints:
        yield "study.constraints", item.measure


def check_measures(config: RunConfig, objective: Objective, constraints: Sequence[Constraint]) -> None:
    """Raise InputError if the configuration can't support an objective or a constraint."""
    for key, name in _measured(config.study, objective, constraints):
        MEASURES[name].check(config, key)


def check_samples(config: RunConfig) -> None:
    """Raise InputError if all samples of a prompt would be the same."""
    generation = config.generation
    if generation.samples > 1 and generation.temperature == 0:
        raise InputError(
            f"generation.samples: {generation.samples} responses to a prompt are all the same at "
            "generation.temperature 0; set a temperature, such as 0.7, or use 1 sample"
        )


def check_capture(config: RunConfig) -> None:
    """Raise InputError if activations are to be captured in a final, and none is played, or kept, and none captured."""
    if config.activations.capture == "final" and config.study.final is None:
        raise InputError("activations.capture: final needs study.final; set that, or use all or none")
    if config.activations.capture == "none" and config.activations.keep != "all":
        raise InputError(
            f"activations.keep: {config.activations.keep} has nothing to choose from, since activations.capture is "
            "none; leave it out, or capture activations"
        )


def check_filters(filters: Sequence[str], tensors: Sequence[str]) -> None:
    """Raise InputError if a filter is part of no tensor's name: mergekit would silently ignore it."""
    for i, part in enumerate(filters):
        if not any(part in name for name in tensors):
            raise InputError(
                f"filters.{i}: expected part of a tensor's name, got {part!r}, which none contains; for example "
                "self_attn, mlp"
            )


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
    yield f"methods        {', '.join(method.name for method in checked.space.methods)}"
    yield f"recipes        {'unlimited (a range is continuous)' if math.isinf(recipes) else f'{recipes:.0f}'}"
    yield f"trials         {counted(config.study.trials, 'merge')} and {counted(baselines, 'baseline')}"
    yield (
        f"tokens         at most {tokens:,} to generate ({counted(len(checked.asked.ids), 'prompt')}, "
        f"{counted(samples, 'sample')} each)"
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
    yield from _memory(resolved, checked, resident)
    yield from _disk(resolved, checked, baselines, responses)


def _memory(resolved: ResolvedConfig, checked: Checked, weights: FamilyResident) -> Iterator[str]:
    config, family, itemsize = resolved.config, resolved.family, weights.dtype.itemsize
    sizes = [(_BYTES.get(dtype, 4), math.prod(shape)) for dtype, shape in checked.tensors.values()]
    parents = sum(size * count for size, count in sizes) * len(family.folders)
    resident = checked.parameters * itemsize
    chosen = config.generation.batch_tokens
    model = weights.config
    budget = auto_batch_tokens(model, itemsize) if chosen == "auto" else chosen
    longest = max(map(len, checked.asked.ids)) + config.generation.max_new_tokens
    at_once = min(len(checked.asked.ids) * config.generation.samples, max(1, budget // longest))
    keys_values = int(BUFFER_SHARE * at_once * longest * token_bytes(model, itemsize))
    # At most, a merge holds every model's largest tensor in float32, and the result.
    merging = 4 * max(count for _, count in sizes) * (len(family.models) + 2)
    # The rehearsal loads one member beside the resident model, before there are keys and values.
    need = parents + resident + max(keys_values, merging, resident)
    free = psutil.virtual_memory().available
    yield (
        f"memory         about {decimal(need)}: parents {decimal(parents)} (mapped), resident model "
        f"{decimal(resident)} ({str(weights.dtype)[6:]} on {weights.device}), and keys and values "
        f"{decimal(keys_values)}, a merge {decimal(merging)} or, in the rehearsal, a member {decimal(resident)}; "
        f"free {decimal(free)}"
    )
    workers = len(checked.places)
    if workers > 1:
        # The parents are mapped once for all, and this process gives up its model after the rehearsal.
        each = resident + max(keys_values, merging) + _PROCESS
        need = max(need, parents + workers * each)
        yield (
            f"workers        {workers}, about {decimal(each)} each, {decimal(_PROCESS)} of it Python and libraries; "
            f"with the parents, which they share, {decimal(parents + workers * each)}"
        )
    if weights.device.type == "cpu" and need > free:
        fewer = "use fewer workers or " if workers > 1 else ""
        yield f"warning        this may exceed the free memory; {fewer}lower generation.batch_tokens"


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
