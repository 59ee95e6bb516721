"""Run folders with invented numbers, written by the functions that a search writes them with."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml

from nex_merge.activations.cache import write_cache
from nex_merge.measures.advice import ANY_PROMPTS
from nex_merge.measures.registry import MEASURES
from nex_merge.records import (
    Estimate,
    MergeRecipe,
    NexScore,
    Reliability,
    Response,
    SparseGroups,
    SparseRows,
    Stint,
    TrialResult,
)  # fmt: skip
from nex_merge.runs import files, results
from nex_merge.runs.leaderboard import write_leaderboard
from nex_merge.runs.run import RunFolder
from nex_merge.runs.work import append_stint
from nex_merge.setup.config import NexConfig, RunConfig
from toy.tokenizer import make_tokenizer

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
RESPONSES = 6
ROWS, TOKENS = 12, 5  # rows per response, tokens per row
FAILED = {"state": "failed", "reason": HOSTILE, "estimates": {}, "score": None, "seconds": {"total": 0.5}}


def plant(folder: Path, merges=3, baselines=True, study=None, **changes) -> RunFolder:
    """A run of qwen3-tiny: base, parents and merges, of which every 10th collapsed, failed or is a duplicate.

    `changes` are fields of results by trial.
    """
    with patch("os.fsync"):  # takes most of the time, and nothing here has to survive a crash
        return _plant(folder, merges, baselines, study or {}, changes)


def _plant(folder: Path, merges: int, baselines: bool, study: dict, changes: dict) -> RunFolder:
    config = RunConfig(
        family="qwen3-tiny", models=["pairs", "signs"], search_space="ties",
        prompts={"file": "configs/prompts/qwen3_tiny.jsonl"}, output=str(folder),
        study={"trials": merges, "baselines": baselines, **study},
    )  # fmt: skip
    content = {"schema": results.SCHEMA, "study_name": "planted", **config.model_dump()}
    content["resolved"] = {"versions": {"mergekit": "0.1.5"}, "prompts_sha256": "abc"}
    files.write_atomically(folder / files.CONFIG, yaml.safe_dump(content, sort_keys=False))
    run, rng = RunFolder(folder), np.random.default_rng(0)
    for name in ("base", "pairs", "signs") if baselines else ():
        kind = "base" if name == "base" else "parent"
        write_trial(run, result_of(rng, name, kind, method="passthrough", **changes.get(name, {})), rng)
    for number in range(merges):
        trial = files.trial_id(number)
        write_trial(run, result_of(rng, trial, "merge", **{**_state(number), **changes.get(trial, {})}), rng)
    found = [result for result in run.results() if result.state in files.SCORED]
    scores = {result.trial: result.score for result in found}
    nex = NexConfig()
    scoring = results.Scores(nex.calibration, nex.rho, nex.min_run, scores, {r.trial: r.estimates for r in found})
    results.write_scores(folder, scoring, reliability_of(sum(result.state == "complete" for result in found)))
    write_leaderboard(run)
    return run


def plant_work(run: RunFolder, workers: int) -> None:
    """What workers did in two sessions of ten minutes: one is lost and replaced, and one is stopped with the first."""
    rng = np.random.default_rng(1)
    for session in (1e9, 1.1e9):
        names = {at: f"worker {at + 1}" for at in range(workers)}
        now = {at: session + 5 for at in range(workers)}
        for at, name in names.items():
            append_stint(run.path, Stint(session, name, "", "", 0, now[at], now[at], "ready"))
        for number in range(6 * workers):
            at = min(now, key=lambda one: now[one])
            stages = dict(zip(("merge", "generate", "capture", "score"), rng.uniform(1, (9, 130, 40, 4)), strict=True))
            how = "lost" if session == 1e9 and number == workers + 1 else "done"
            how = "stopped" if session == 1e9 and number == 6 * workers - 1 else how
            end = now[at] + sum(stages.values())
            trial = files.trial_id(number + (6 * workers if session > 1e9 else 0))
            append_stint(run.path, Stint(session, names[at], trial, "ties", 1, now[at], end, how, stages))
            now[at] = end
            if how == "lost":
                names[at], now[at] = f"worker {workers + 1} {HOSTILE}", end + 20
                append_stint(run.path, Stint(session, names[at], "", "", 0, now[at], now[at], "ready"))


def reliability_of(variants: int) -> Reliability:
    return Reliability(
        verdict="weak", reasons=("<b>few</b> prompts",), advice=(ANY_PROMPTS,), variants=variants, prompts=RESPONSES,
        split_half=0.6, cycles_per_response=3.0, credited=0.9, weighted_mass=0.9, saturation=0.5, beats_parent=0.7,
        follows_length=0.1, split_halves={"nex": 0.6, "entropy": 0.4, "log_gap": None},
    )  # fmt: skip


def _state(number: int) -> dict:
    if number % 10 == 7:
        return {"state": "collapsed", "reason": "it repeats itself", "violation": 0.5}
    if number % 10 == 8:
        return FAILED
    if number % 10 == 9:
        return {"state": "duplicate", "reason": "the same recipe as trial 0000", "same_as": "0000", "seconds": {}}
    return {}


def result_of(rng, trial: str, kind: str, method="ties", **changes) -> TrialResult:
    fractions = tuple(float(fraction) for fraction in rng.uniform(0.5, 1, RESPONSES))
    score = NexScore(
        nex=float(np.mean(fractions)), log_gap=0.5, calibration="self", response_scores=fractions, responses=RESPONSES,
        scored=RESPONSES, cycles=20, credited=5, explore_share=0.4, fallbacks={}, weighted_mass=0.9, saturation=0.5,
    )  # fmt: skip
    values = {name: float(rng.uniform(0.01, 1)) for name in MEASURES if name != "looping"}
    values |= {"nex": score.nex, "empty": 0.0, "looping": 0.0, "mean_tokens": float(rng.uniform(300, 500))}
    made = TrialResult(
        trial=trial, kind=kind, name=method, method=method, seed=7, state="complete", score=score,
        parameters={f"{name}.{model}": float(rng.uniform()) for name in ("weight", "density") for model in "ab"},
        estimates={name: estimate_of(value) for name, value in values.items()},
        violation=-1.0, weights_sha256="0" * 64, seconds={"merge": 0.1, "generate": 3.0, "capture": 1.0, "score": 0.1},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def estimate_of(value: float) -> Estimate:
    return Estimate(value, 0.9 * value, 1.05 * value, beats_parent=0.7)


def with_values(result: TrialResult, **values: float) -> TrialResult:
    """The result with other values of some measures."""
    estimates = {name: estimate_of(value) for name, value in values.items()}
    return dataclasses.replace(result, estimates={**result.estimates, **estimates})


def write_trial(run: RunFolder, result: TrialResult, rng) -> None:
    folder = run.folder(result.trial)
    config = {"merge_method": result.method, "models": [{"model": "/models/a"}], "dtype": "float32"}
    files.write_recipe(folder, MergeRecipe(result.kind, result.method, config, result.seed))
    if result.state in files.SCORED:
        tokenizer = make_tokenizer()
        ids = tuple(int(i) for i in rng.integers(20, len(tokenizer), ROWS * TOKENS))
        text = HOSTILE + tokenizer.decode(ids)
        files.write_responses(folder, [Response(i, 0, (20, 21), ids, text, False) for i in range(RESPONSES)])
        write_cache(folder / files.CACHE, cache_of(rng), {"trial": result.trial})
    results.write_result(run.path, result)


def cache_of(rng) -> SparseRows:
    """Random rows, with fewer and fewer new neurons."""
    total = RESPONSES * ROWS
    keys = [np.unique(rng.integers(0, 200, 20)).astype(np.uint32) for _ in range(total)]
    rows = _groups(keys)
    base = _groups([np.unique(np.concatenate(keys[i * ROWS : (i + 1) * ROWS])) for i in range(RESPONSES)])
    return SparseRows(np.arange(0, total + 1, ROWS), np.arange(0, total * TOKENS + 1, TOKENS), rows, base)


def _groups(keys: list[np.ndarray]) -> SparseGroups:
    ptr = np.cumsum([0, *map(len, keys)])
    return SparseGroups(ptr, np.concatenate(keys), np.ones(ptr[-1], np.float16))


def as_first_version(run: RunFolder) -> RunFolder:
    """The run with its files as version 0.1.0 wrote them: no schema, no study name, figures in other places."""
    config = yaml.safe_load((run.path / files.CONFIG).read_text())
    for key in ("schema", "study_name"):
        del config[key]
    (run.path / files.CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    for result in run.results():
        path = run.folder(result.trial) / files.RESULT
        item = json.loads(path.read_text())
        estimates = item.pop("estimates")
        for key in ("schema", "is_reference"):
            del item[key]
        item["score"] = _first_score(item["score"], estimates)
        text = ("truncated", "distinct_ratio", "repeated", "empty", "non_text")
        rivals = ("mean_tokens", "entropy", "entropy_spread", "self_certainty", "perplexity", "utilization", "novelty")
        for part, names in (("text", text), ("rivals", rivals)):
            item[part] = {name: estimates[name]["value"] for name in names} if estimates else None
        path.write_text(json.dumps(item))
    for name in (files.SCORES, files.RELIABILITY):
        item = json.loads((run.path / name).read_text())
        for key in ("schema", "split_halves", "sha256"):
            item.pop(key, None)
        if name == files.SCORES:
            estimates = item.pop("estimates")
            item["trials"] = {trial: _first_score(of, estimates[trial]) for trial, of in item["trials"].items()}
        (run.path / name).write_text(json.dumps(item))
    return RunFolder(run.path)


def _first_score(score: dict | None, estimates: dict) -> dict | None:
    if score is None:
        return None
    nex = estimates["nex"]
    return {**score, **{name: nex[name] for name in ("low", "high", "beats_parent")}}
