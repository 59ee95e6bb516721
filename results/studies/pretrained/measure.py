"""Merge, answer, capture and score every variant: a small JSON each, in DATA. Resumable."""

import itertools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from ranking.families import SPACES
from ranking.former_guard import measure_text

from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.merging import method_specs
from nex_merge.nex.scoring import score
from nex_merge.records import MergeRecipe, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig, RuntimeConfig
from nex_merge.setup.families import Family
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import passthrough, propose
from pretrained.problems import KINDS, MATCH, Problem, make_problems
from pretrained.train import MAX_NEW_TOKENS, encode

DATA = Path(__file__).parents[2] / "study_data" / "smollm2"
PROMPTS_SEED, PROBLEMS_SEED = 1, 2
PROMPTS_PER_KIND = 32
# Merges of each of the ranking study's spaces, which go from good to ruinous.
COUNTS = (6, 7, 5, 4, 3, 2, 3)
GENERATION = GenerationConfig(max_new_tokens=MAX_NEW_TOKENS, batch_tokens=40_000)
# Responses have about 30 tokens: rows are short, and hold as many neurons a token as the paper's (500 in 32).
ACTIVATIONS = ActivationsConfig(score="logit_contribution", slice_tokens=4, top_k=64)
PHASES = PhasesConfig(rho=0.95, min_run=2)


def recipes(folders: dict[str, Path]) -> dict[str, MergeRecipe]:
    """base, experts and merges by name. Methods take turns, so that the first merges hold some of each."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    members = {
        name: passthrough("base" if name == "base" else "parent", name, folder, "bfloat16")
        for name, folder in folders.items()
    }
    drawn, number = [], 0
    for count, (_, space) in zip(COUNTS, SPACES, strict=True):
        checked = load_space(space, method_specs(), KINDS)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
        drawn.append([])
        for _ in range(count):
            drawn[-1].append(propose(checked, folders, "bfloat16", study.ask(), 1000 + number))
            number += 1
    turns = [recipe for turn in itertools.zip_longest(*drawn) for recipe in turn if recipe is not None]
    return members | {f"{i:04d}": recipe for i, recipe in enumerate(turns)}


def measure(root: Path, per_kind: int, merges: int) -> None:
    """Measure what is not measured yet, with accuracy on `per_kind` problems of each kind."""
    torch.set_num_threads(1)
    folders = {name: (root / name).resolve() for name in ("base", *KINDS)}
    engine = FamilyEngine(Family("smollm2", folders, "base"), RuntimeConfig(device="cpu"))
    asked = [p for kind in KINDS for p in make_problems(kind, PROMPTS_PER_KIND, PROMPTS_SEED)]
    held_out = [p for kind in KINDS for p in make_problems(kind, per_kind, PROBLEMS_SEED)]
    prompts, problems = (encode(items, engine.resident.tokenizer) for items in (asked, held_out))
    settings = ObserveSettings(GENERATION, ACTIVATIONS, PHASES)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, recipe in itertools.islice(recipes(folders).items(), len(folders) + merges):
        file = DATA / f"{name}.json"
        if file.exists():
            continue
        began = time.monotonic()
        sha256 = engine.load(recipe)
        observation = observe(engine, prompts, settings)
        answers = engine.answer(problems, GENERATION)
        assert observation.evidence is not None and observation.analyses is not None and observation.stats is not None
        scored = score(observation.evidence, observation.analyses, "self")
        right = np.array([p.is_right(r.text, r.truncated) for p, r in zip(held_out, answers, strict=True)])
        about = {
            "variant": name,
            "kind": recipe.kind,
            "method": recipe.method,
            "parameters": dict(recipe.parameters),
            "accuracy": float(right.mean()),
            **{f"accuracy_{k}": float(r.mean()) for k, r in zip(KINDS, np.split(right, len(KINDS)), strict=True)},
            "problems": len(right),
            "nex": scored.nex,
            "cycles": scored.cycles,
            "entropy": float(np.mean([s.entropy for s in observation.stats])),
            "self_certainty": float(np.mean([s.self_certainty for s in observation.stats])),
            "mean_tokens": float(np.mean([len(r.token_ids) for r in observation.responses])),
            **measure_text(observation.responses),
            "seconds": time.monotonic() - began,
            "weights_sha256": sha256,
            "prompts": _prompts(asked, observation.responses),
        }
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(about, indent=1), encoding="utf-8")
        os.replace(partial, file)
        figures = ", ".join(
            f"{key} {about[key]}" for key in ("accuracy", *(f"accuracy_{k}" for k in KINDS), "nex", "mean_tokens")
        )
        print(f"{name} {recipe.method}: {figures}, {about['seconds']:.0f} s", flush=True)


def _prompts(asked: Sequence[Problem], responses: Sequence[Response]) -> list[dict[str, Any]]:
    """What a variant answered to the prompts, beside the known answers."""
    return [
        {
            "kind": p.kind,
            "match": MATCH[p.kind],
            "gold": p.answer,
            "response": r.text,
            "tokens": len(r.token_ids),
            "truncated": r.truncated,
        }
        for p, r in zip(asked, responses, strict=True)
    ]
