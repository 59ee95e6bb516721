"""A run's scores under any calibration, from what its folder holds: no model is touched. Composes cache and nex."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nex_merge.runs import files
from nex_merge.activations.cache import read_base, read_cache, read_credits, read_manifest
from nex_merge.setup.config import NexConfig
from nex_merge.errors import InputError
from nex_merge.runs.leaderboard import LEADERBOARD_FILES, Row, write_leaderboard
from nex_merge.nex.calibration import analyse, calibrate, pool_size, stack_credits
from nex_merge.nex.good_mass import mean_score, weigh
from nex_merge.nex.scoring import assess, halves, resampled, rescore, score, split_half, superiority
from nex_merge.records import Credits, Evidence, NeuronWeights, NexScore, Reliability, TrialResult


class Pool:
    """The neuron weights that everyone shares, as the run's folder gives them at any point of a search.

    They depend on trial numbers alone, so that a search that was stopped goes on with the same.
    """

    def __init__(self, run: Path, nex: NexConfig) -> None:
        self._run, self._nex = run, nex
        self._size: int | None = None
        self._weights: NeuronWeights | None = None
        self._scores: dict[str, float] = {}  # of trials scored under these weights so far

    def weights(self, merges: int) -> NeuronWeights | None:
        """The weights for the merge with this number; None where a variant is scored under its own."""
        if self._nex.calibration in ("self", "crossfit"):
            return None
        size = pool_size(merges) if self._nex.calibration == "pool" else 0
        if size != self._size:
            results = [r for r in files.read_results(self._run) if r.kind != "merge" or int(r.trial) < size]
            self._size, self._weights, self._scores = size, shared_weights(self._run, results, self._nex), {}
        return self._weights

    def scores(self, merges: int) -> dict[str, float] | None:
        """NEX of earlier merges under the weights for this one; None where their own scores are final."""
        if self._nex.calibration != "pool":
            return None
        weights = self.weights(merges)
        assert weights is not None, "a pool has weights"
        for result in files.read_results(self._run):
            if result.kind != "merge" or int(result.trial) >= merges or result.trial in self._scores:
                continue
            if result.state in files.SCORED:
                evidence = evidence_of(self._run, result, self._nex)
                masses = [weigh(evidence.base, i, weights) for i in range(evidence.credits.responses)]
                nex = mean_score([item.fraction for item in masses])
                if nex is not None:
                    self._scores[result.trial] = nex
            elif result.same_as in self._scores:  # a duplicate comes after what it duplicates
                self._scores[result.trial] = self._scores[result.same_as]
        return self._scores


def shared_weights(run: Path, results: Sequence[TrialResult], nex: NexConfig) -> NeuronWeights | None:
    """The weights of `parents` and `pool` from the results given; None under `self` and `crossfit`.

    Raises InputError where base and parents were not scored.
    """
    if nex.calibration in ("self", "crossfit"):
        return None
    return calibrate(*(credits_of(run, result.trial, nex) for result in teachers(run, results, nex)))


def teachers(run: Path, results: Sequence[TrialResult], nex: NexConfig) -> list[TrialResult]:
    """Whose credit makes the weights of `parents` and `pool`. Raises InputError where base and parents have none."""
    found = [r for r in results if r.state == "complete" and (r.kind != "merge" or nex.calibration == "pool")]
    if not found:
        raise InputError(
            f"{run}: calibration {nex.calibration} takes its weights from base and parents, and none is scored; "
            "self or crossfit would do"
        )
    return found


def credits_of(run: Path, trial: str, nex: NexConfig) -> Credits:
    """The credit of a trial's responses: as kept, or found again where rho or min_run are others."""
    folder = files.trial_folder(run, trial)
    manifest = read_manifest(folder / files.CREDIT)
    if manifest is not None and manifest["made_by"] == {"rho": nex.rho, "min_run": nex.min_run}:
        return read_credits(folder / files.CREDIT)
    return stack_credits(analyse(read_cache(folder / files.CACHE), nex.rho, nex.min_run))


def evidence_of(run: Path, result: TrialResult, nex: NexConfig) -> Evidence:
    """What a trial's score is made of."""
    folder = files.trial_folder(run, result.trial)
    prompts = np.array([response.prompt for response in files.read_responses(folder)])
    return Evidence(prompts, read_base(folder / files.CACHE), credits_of(run, result.trial, nex))


def score_run(run: Path, nex: NexConfig, own: NexConfig) -> tuple[dict[str, NexScore], Reliability]:
    """Every trial's score under `nex`, and how far they can be trusted. `own` is what the run was searched with."""
    results = [result for result in files.read_results(run) if result.state in files.SCORED]
    shared = shared_weights(run, results, nex)
    same_phases = (nex.rho, nex.min_run) == (own.rho, own.min_run)
    scores: dict[str, NexScore] = {}
    drawn: dict[str, np.ndarray] = {}
    halved: dict[str, np.ndarray] = {}
    prompts = 0
    for result in results:
        assert result.score is not None
        evidence = evidence_of(run, result, nex)
        prompts = len(np.unique(evidence.prompts))
        earlier = result.score
        if not same_phases:
            cache = read_cache(files.trial_folder(run, result.trial) / files.CACHE)
            earlier = score(evidence, analyse(cache, nex.rho, nex.min_run), nex.calibration, shared)
        found, drawn[result.trial] = rescore(earlier, evidence, nex.calibration, shared)
        scores[result.trial] = found
        counts = halves(evidence.prompts)
        halved[result.trial] = resampled(evidence, found.response_scores, nex.calibration, counts)
    parent = _best(results, scores, "parent")
    if parent is not None and prompts > 1:
        scores = {
            trial: dataclasses.replace(found, beats_parent=superiority(drawn[trial], drawn[parent]))
            for trial, found in scores.items()
        }
    merge = _best(results, scores, "merge")
    lengths = {r.trial: r.rivals.mean_tokens for r in results if r.state == "complete" and r.rivals is not None}
    sound = list(lengths)
    taught = [r.trial for r in results if r.state == "complete" and r.kind != "merge"]
    reliability = assess(
        [scores[trial] for trial in sound],
        list(lengths.values()),
        [scores[trial] for trial in (taught if nex.calibration == "parents" else sound)],
        prompts,
        split_half(np.stack([halved[trial] for trial in sound])) if sound else None,
        scores[merge].beats_parent if merge is not None else None,
    )
    return scores, reliability


def _best(results: Sequence[TrialResult], scores: Mapping[str, NexScore], kind: str) -> str | None:
    found = [
        (nex, result.trial)
        for result in results
        if result.kind == kind and result.state == "complete" and (nex := scores[result.trial].nex) is not None
    ]
    return max(found, key=lambda item: item[0])[1] if found else None


def write_scores(run: Path, nex: NexConfig, own: NexConfig) -> list[Row]:
    """Score the run under `nex` and make that its leaderboard; earlier ones stay in leaderboards/."""
    scores, reliability = score_run(run, nex, own)
    about = {"calibration": nex.calibration, "rho": nex.rho, "min_run": nex.min_run}
    content = json.dumps({**about, "trials": {t: dataclasses.asdict(s) for t, s in scores.items()}}, indent=1)
    files.write_atomically(run / files.SCORES, content)
    files.write_atomically(run / files.RELIABILITY, json.dumps(dataclasses.asdict(reliability), indent=1))
    rows = write_leaderboard(run)
    kept = run / files.LEADERBOARDS / f"{nex.calibration}-rho{nex.rho:g}-min_run{nex.min_run}"
    for name in (files.SCORES, files.RELIABILITY, *LEADERBOARD_FILES):
        files.write_atomically(kept / name, (run / name).read_text(encoding="utf-8"))
    return rows
