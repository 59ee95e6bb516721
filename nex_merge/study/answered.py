"""answered.json: a trial's work is done and waits to be told, so that a search that is stopped need not do it again.

With several trials under way, one that is done has to wait for those below it. Its responses and activations are on
disk already; this has the rest, and what they were. It is gone once there is a result.
"""

import dataclasses
import hashlib
import json

from nex_merge.errors import InputError
from nex_merge.nex.calibration import analyse, count_phases, evidence_of
from nex_merge.records import MergeRecipe, Observation, TokenStats
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.runs.written import CACHED, digest_of
from nex_merge.study.race import Stop
from nex_merge.workers.job import Answered

ANSWERED = "answered.json"


def keep_answered(run: RunFolder, recipe: MergeRecipe, answered: Answered, stop: Stop | None) -> None:
    """Write it. Responses, and activations if there are any, are on disk."""
    seen, folder = answered.observation, run.folder(answered.trial)
    content = {
        "recipe": _digest(recipe),
        "written": {name: digest_of(folder / name) for name in (files.RESPONSES, CACHED) if (folder / name).is_file()},
        "weights_sha256": answered.weights_sha256,
        "seconds": dict(answered.seconds),
        "stop": None if stop is None else dataclasses.asdict(stop),
        "stats": None if seen.stats is None else [dataclasses.asdict(stat) for stat in seen.stats],
        "neurons": seen.neurons,
    }
    files.write_atomically(folder / ANSWERED, json.dumps(content))


def read_answered(run: RunFolder, trial: str, recipe: MergeRecipe) -> tuple[Answered, Stop | None] | None:
    """What was kept; None if nothing was, or it is another recipe's, or not all of it is as it was written."""
    folder = run.folder(trial)
    if not (folder / ANSWERED).is_file():
        return None
    try:
        kept = files.read_json(folder / ANSWERED, files.AGAIN)
        if kept["recipe"] != _digest(recipe) or any(digest_of(folder / n) != d for n, d in kept["written"].items()):
            return None
        stop = None if kept["stop"] is None else Stop(**kept["stop"])
        observation = Observation(run.responses(trial))
        if kept["stats"] is not None:
            rows, nex = run.rows(trial), run.config.nex
            analyses = analyse(rows, nex.rho, nex.min_run)
            observation = dataclasses.replace(
                observation,
                stats=[TokenStats(**stat) for stat in kept["stats"]],
                evidence=evidence_of(observation.responses, rows.base, analyses),
                phases=count_phases(analyses),
                neurons=kept["neurons"],
                rows=rows,
                analyses=analyses,
            )
        return Answered(trial, observation, kept["weights_sha256"], kept["seconds"]), stop
    except (InputError, OSError, KeyError, TypeError, ValueError):  # torn or damaged: as if nothing had been kept
        return None


def forget_answered(run: RunFolder, trial: str) -> None:
    """Once there is a result."""
    (run.folder(trial) / ANSWERED).unlink(missing_ok=True)


def _digest(recipe: MergeRecipe) -> str:
    return hashlib.sha256(json.dumps([recipe.config, recipe.seed], sort_keys=True).encode()).hexdigest()
