"""Activations of trials that a search did not capture, or did not keep, from the responses that were kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from nex_merge import interrupts
from nex_merge.activations.cache import write_cache, write_credits
from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.errors import InputError
from nex_merge.measures.text import text_figures
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Observation, TrialResult
from nex_merge.runs import files
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import RunFolder


def keep_activations(run: RunFolder, trial: str, sha256: str, observation: Observation) -> None:
    """Write the cache and the credit of a captured observation. `sha256`: of the tensors that were captured."""
    assert observation.rows is not None and observation.evidence is not None, "captured"
    folder, nex = run.folder(trial), run.config.nex
    activations = run.config.activations.model_dump(exclude={"capture", "keep"})
    write_cache(folder / files.CACHE, observation.rows, {"trial": trial, "weights_sha256": sha256, **activations})
    write_credits(folder / files.CREDIT, observation.evidence.credits, {"rho": nex.rho, "min_run": nex.min_run})


def mend_credits(run: RunFolder, note: Callable[[str], None]) -> None:
    """Write credit that is damaged or missing again, from the caches, which have to be whole."""
    for result in run.results():
        folder, nex = run.folder(result.trial), run.config.nex
        if result.state not in files.SCORED or result.score is None:
            continue
        try:
            if run.stored_credits(result.trial, nex) is not None:
                continue
            why = f"{folder / files.CREDIT} is not there"
        except InputError as error:
            why = str(error)
        credits = stack_credits(analyse(run.rows(result.trial), nex.rho, nex.min_run))
        write_credits(folder / files.CREDIT, credits, {"rho": nex.rho, "min_run": nex.min_run})
        note(f"{why}. Computed from {folder / files.CACHE}")


def uncaptured(run: RunFolder, trials: Sequence[str]) -> list[TrialResult]:
    """Those of the trials whose activations were not captured, or not kept.

    Raises InputError if one has no responses.
    """
    found = [run.find(trial) for trial in trials]
    for result in found:
        if result.state not in files.SCORED:
            why = f"it has the same recipe as {result.same_as}" if result.same_as else result.reason
            raise InputError(f"{files.trial_name(result.trial)} has no responses to capture ({why})")
    return [result for result in found if result.score is None or run.why_dropped(result.trial) is not None]


def recapture(run: RunFolder, trials: Sequence[TrialResult], note: Callable[[str], None] = lambda text: None) -> None:
    """Merge trials again, read their responses, and add what is found to their folders; `rescore_run` values it.

    A trial that was captured, and whose activations were not kept, has the result that it had.

    Raises InputError if a member has changed, RunError if a merge's tensors are not those that answered.
    """
    if not trials:
        return
    remerger = Remerger(run)
    settings = ObserveSettings(run.config.generation, run.config.activations, run.config.nex)
    for result in trials:
        remerger.load(result)
        observation = observe(remerger.engine, [], settings, responses=run.responses(result.trial))
        observation = replace(observation, text=text_figures(observation.responses))
        assert observation.evidence is not None and observation.analyses is not None, "captured"
        interrupts.check()
        keep_activations(run, result.trial, result.weights_sha256 or "", observation)
        if result.score is not None:
            run.written.seal(result.trial)  # another processor may give other last digits
        else:
            found = score(observation.evidence, observation.analyses, "self")
            seconds = {**result.seconds, **observation.seconds}
            run.write(replace(result, score=found, seconds=seconds), observation)
        note(f"{files.trial_name(result.trial)}: captured, {observation.seconds['capture']:.1f} s")
