"""Run folders with made-up figures, written by the functions that a search writes them with."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import yaml

from nex_merge.activations.cache import write_cache
from nex_merge.families.qwen3_tiny.tokenizer import make_tokenizer
from nex_merge.records import (
    MergeRecipe,
    NexScore,
    Reliability,
    Response,
    Rivals,
    SparseGroups,
    SparseRows,
    TextMeasures,
    TrialResult,
)  # fmt: skip
from nex_merge.runs import files
from nex_merge.runs.leaderboard import write_leaderboard
from nex_merge.setup.config import RunConfig

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
RESPONSES = 6
ROWS, TOKENS = 12, 5  # rows of a response, tokens of a row


def plant(run: Path, merges=3, baselines=True, study=None, **changes) -> Path:
    """A run of qwen3-tiny: base, parents and merges, of which every 10th collapsed, failed or is a duplicate.

    `changes` are fields of results by trial.
    """
    with patch("os.fsync"):  # nothing here has to outlast a crash, and it takes most of the time
        return _plant(run, merges, baselines, study or {}, changes)


def _plant(run: Path, merges: int, baselines: bool, study: dict, changes: dict) -> Path:
    settings = RunConfig(
        family="qwen3-tiny", models=["pairs", "signs"], search_space="ties",
        prompts={"file": "configs/prompts/qwen3_tiny.jsonl"}, output=str(run),
        study={"trials": merges, "baselines": baselines, **study},
    ).model_dump()  # fmt: skip
    settings["resolved"] = {"versions": {"mergekit": "0.1.5"}, "prompts_sha256": "abc"}
    files.write_atomically(run / files.CONFIG, yaml.safe_dump(settings, sort_keys=False))
    rng = np.random.default_rng(0)
    for name in ("base", "pairs", "signs") if baselines else ():
        result = result_of(
            rng, name, "base" if name == "base" else "parent", method="passthrough", **changes.get(name, {})
        )
        write_trial(run, result, rng)
    for number in range(merges):
        trial = files.trial_id(number)
        result = result_of(rng, trial, "merge", **{**_state(number), **changes.get(trial, {})})
        write_trial(run, result, rng)
    rows = write_leaderboard(run)
    reliability = Reliability(
        "weak", ("<b>few</b> prompts",), ("more prompts",), _sound(rows), 6, 0.6, 3.0, 0.9, 0.9, 0.5, 0.7, 0.1
    )
    files.write_atomically(run / files.RELIABILITY, json.dumps(dataclasses.asdict(reliability)))
    return run


def _sound(rows) -> int:
    return sum(row["state"] == "complete" for row in rows)


def _state(number: int) -> dict:
    if number % 10 == 7:
        return {"state": "collapsed", "reason": "it repeats itself", "violation": 0.5}
    if number % 10 == 8:
        return {"state": "failed", "reason": HOSTILE, "score": None, "rivals": None, "text": None}
    if number % 10 == 9:
        return {"state": "duplicate", "reason": "the same recipe as trial 0000", "same_as": "0000", "seconds": {}}
    return {}


def result_of(rng, trial: str, kind: str, method="ties", **changes) -> TrialResult:
    scores = tuple(float(g) for g in rng.uniform(0.5, 1, RESPONSES))
    nex = float(np.mean(scores))
    score = NexScore(
        nex, 0.5, nex - 0.1, nex + 0.05, "self", scores, RESPONSES, RESPONSES, 20, 5, 0.4, {}, 0.9, 0.5, 0.7
    )
    made = TrialResult(
        trial=trial, kind=kind, name=method, method=method, seed=7, state="complete", score=score,
        parameters={f"{name}.{model}": float(rng.uniform()) for name in ("weight", "density") for model in "ab"},
        text=TextMeasures(0.1, 0.7, 0.0, 0.0, 0.0),
        rivals=Rivals(float(rng.uniform(300, 500)), *map(float, rng.uniform(0.01, 1, 5)), 2.0),
        violation=-1.0, weights_sha256="0" * 64, seconds={"merge": 0.1, "generate": 3.0, "capture": 1.0, "score": 0.1},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def write_trial(run: Path, result: TrialResult, rng) -> None:
    folder = files.trial_folder(run, result.trial)
    config = {"merge_method": result.method, "models": [{"model": "/models/a"}], "dtype": "float32"}
    files.write_recipe(folder, MergeRecipe(result.kind, result.method, config, result.seed))
    if result.state in files.SCORED:
        tokenizer = make_tokenizer()
        ids = tuple(int(i) for i in rng.integers(20, len(tokenizer), ROWS * TOKENS))
        text = HOSTILE + tokenizer.decode(ids)
        files.write_responses(folder, [Response(i, 0, (20, 21), ids, text, False) for i in range(RESPONSES)])
        write_cache(folder / files.CACHE, cache_of(rng), {"trial": result.trial})
    files.write_result(run, result)


def cache_of(rng) -> SparseRows:
    """Random rows, ever fewer neurons of which are new."""
    total = RESPONSES * ROWS
    keys = [np.unique(rng.integers(0, 200, 20)).astype(np.uint32) for _ in range(total)]
    rows = _groups(keys)
    base = _groups([np.unique(np.concatenate(keys[i * ROWS : (i + 1) * ROWS])) for i in range(RESPONSES)])
    return SparseRows(np.arange(0, total + 1, ROWS), np.arange(0, total * TOKENS + 1, TOKENS), rows, base)


def _groups(keys: list[np.ndarray]) -> SparseGroups:
    ptr = np.cumsum([0, *map(len, keys)])
    return SparseGroups(ptr, np.concatenate(keys), np.ones(ptr[-1], np.float16))
