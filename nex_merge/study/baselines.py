"""Base and parents, which answer before any merge: what merges are drafted from and held against."""

from collections.abc import Iterator
from contextlib import contextmanager

from nex_merge import interrupts
from nex_merge.errors import RunError, TrialError
from nex_merge.measures.guard import blind_spot
from nex_merge.measures.measure import Pool, shared_weights
from nex_merge.records import MergeRecipe, Variant
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.families import Family
from nex_merge.study.budget import reached
from nex_merge.study.observers import Observers
from nex_merge.study.optuna_study import failed
from nex_merge.study.proposal import passthrough
from nex_merge.study.trial import TrialRunner, Tried


def score_baselines(family: Family, run: RunFolder, runner: TrialRunner, out_dtype: str, dispatch: Observers) -> None:
    """Score base and parents that aren't scored yet.

    Shared neuron weights can be computed only after all of them have responses. Raises RunError if all of them fail and
    the shared weights would come from them.
    """
    config = runner.terms.config
    nex = config.nex
    shared = nex.calibration in ("parents", "pool") and config.activations.capture == "all"
    answered: dict[str, Tried] = {}
    for name, reference in family.references.items():
        if run.result(name) is not None:
            continue
        if reached(run, config.study) is not None:
            break
        kind = "base" if name == "base" else "parent"
        dispatch.on_trial_start(name, kind)
        recipe = passthrough(kind, name, reference, out_dtype)
        with _recipe_faults(run, name, recipe, dispatch):
            answered[name] = runner.answer(name, name, recipe)
            if not shared:
                dispatch.on_trial_end(runner.finish(answered[name], None))
    if not shared or not answered:
        return
    waiting = [_unscored(name, item) for name, item in answered.items()]
    variants = [v for v in [*runner.pool.earlier(files.trial_id(0)), *waiting] if v.kind != "merge"]
    if not variants:
        raise RunError(
            f"nex.calibration: {nex.calibration!r} takes its weights from base and parents, and all of them failed"
        )
    weights = shared_weights(sorted(variants, key=lambda v: (v.kind != "base", v.trial)), nex)
    for name, item in answered.items():
        with _recipe_faults(run, name, item.recipe, dispatch):
            dispatch.on_trial_end(runner.finish(item, weights))


def _unscored(name: str, item: Tried) -> Variant:
    return Variant(name, item.recipe.kind, True, item.answered.observation)


def say_what_the_guard_misses(runner: TrialRunner, dispatch: Observers) -> None:
    note = blind_spot(Pool(runner.pool.earlier(files.trial_id(0)), runner.pool.rules))
    if note is not None:
        dispatch.on_note(note)


@contextmanager
def _recipe_faults(run: RunFolder, name: str, recipe: MergeRecipe, dispatch: Observers) -> Iterator[None]:
    """Turn a TrialError of a baseline into a failed trial with its reason."""
    try:
        yield
    except TrialError as error:
        interrupts.check()
        result = failed(name, name, recipe, error, 0.0)
        run.write(result)
        dispatch.on_trial_end(result)
