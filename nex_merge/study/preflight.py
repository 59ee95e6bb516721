"""Preflight: checks a search before anything is merged."""

import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from nex_merge.engines.choice import engine_for
from nex_merge.engines.contracts import Engine
from nex_merge.engines.vllm_engine import check_vllm
from nex_merge.errors import InputError
from nex_merge.measures.constraints import Constraint, constraints_of
from nex_merge.measures.estimates import Objective, objective_of
from nex_merge.measures.registry import MEASURES
from nex_merge.merging import method_specs, preflight, weights_dtype
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
from nex_merge.study.guesses import check_guesses
from nex_merge.study.race import check_race
from nex_merge.study.recipe_list import load_recipes, space_of
from nex_merge.study.rehearsal import rehearse
from nex_merge.study.rehearsal_cache import Rehearsal
from nex_merge.study.terms import Terms, check_crossfit, split_prompts
from nex_merge.study.tracking.observer import check_tracking
from nex_merge.study.warm_start import WarmStart, find_warm_start
from nex_merge.wording import counted
from nex_merge.workers.cluster import check_ray
from nex_merge.workers.places import Place, places


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
    if engine is None:
        check_vllm(config.runtime)
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
        return engine_for(family, runtime.model_copy(update={"device": device}))
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
    ids = engine.encode(prompts, config.prompts, config.generation.max_new_tokens)
    now = Asked(ids, clock, _computing(engine, config.runtime))
    check_crossfit(config, len(now.ids))
    notes = [*resolved.loaded.notes, *file_notes(prompts, config.prompts)]
    if engine.family_weights is not None:
        notes += rendering_notes(prompts, now.ids, engine.family_weights.tokenizer, config.prompts, clock)
    asked, differing = (now, []) if fresh else as_begun(resolved.run, now, kept)
    return asked, notes + differing


def _computing(engine: Engine, runtime: RuntimeConfig) -> str | None:
    """What models compute in, and on what kind of device; None where this process can't tell."""
    resident = engine.family_weights
    if resident is None or runtime.cluster is not None:  # whose nodes may have other devices
        return None
    return f"{str(resident.dtype)[6:]} on {resident.device.type}"


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
