"""Merge, answer, capture and analyse every variant of a family: two .npz each, in DATA / family."""

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from windows import window

from nex_merge.activations.capture import capture_all
from nex_merge.engines.loading import load_tokenizer, resolve_device
from nex_merge.families.qwen3_tiny.problems import Problem, make_problems
from nex_merge.generation import generate
from nex_merge.merging import Merger
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, NeuronWeights, Prompt, Response, SparseRows, TokenStats
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts
from ranking.families import (
    DATA,
    FAMILIES,
    LATER,
    MIN_RUN,
    PROBLEMS_SEED,
    PROMPTS_PER_KIND,
    PROMPTS_SEED,
    RHO,
    SETTINGS,
    WINDOW_ROWS,
    WINDOWED,
    WINDOWS,
    label,
    recipes,
)
from ranking.former_guard import measure_text


class Opened(NamedTuple):
    """A family with one resident model, the prompts that are scored, and other problems for accuracy."""

    folders: dict[str, Path]
    merger: Merger
    tokenizer: Any
    prompts: list[Problem]
    problems: list[Problem]


def opened(family: str, per_kind: int) -> Opened:
    """Open a family, with `per_kind` problems of each of its kinds. Torch gets one thread."""
    torch.set_num_threads(1)
    root, kinds = (FAMILIES | LATER)[family]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds)}
    return Opened(
        folders,
        Merger(folders, "base", resolve_device("auto"), torch.float32),
        load_tokenizer(folders["base"]),
        [p for kind in kinds for p in make_problems(kind, PROMPTS_PER_KIND, PROMPTS_SEED)],
        [p for kind in kinds for p in make_problems(kind, per_kind, PROBLEMS_SEED)],
    )


def measure(family: str, per_kind: int) -> None:
    """Measure what is not measured yet of a family, with accuracy on `per_kind` problems of each kind."""
    folders, merger, tokenizer, prompts, problems = opened(family, per_kind)
    neurons = merger.model.config.num_hidden_layers * merger.model.config.intermediate_size

    def answer(items: list[Problem]) -> list[Response]:
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in items]
        settings = GenerationConfig(max_new_tokens=640, batch_tokens=400_000)
        return generate(merger.model, tokenizer, encode_prompts(texts, tokenizer, PromptsConfig(file="")), settings)

    (DATA / family).mkdir(parents=True, exist_ok=True)
    for name, recipe in recipes(folders).items():
        whole, cut = DATA / family / f"{name}.npz", DATA / family / f"{name}.windows.npz"
        if whole.exists() and cut.exists():
            continue
        began = time.monotonic()
        merger.load(recipe)
        responses = answer(prompts)
        accuracy = ""
        if not whole.exists():
            answers = answer(problems)
            caches, stats = capture_all(merger.model, responses, SETTINGS)
            about, arrays = _analysed(caches, neurons)
            about |= {
                "kind": recipe.kind,
                "method": recipe.method,
                "parameters": dict(recipe.parameters),
                **_accuracy(problems, answers),
                **_text_and_tokens(responses, stats),
            }
            arrays["right"] = np.array([p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)])
            arrays["about"] = np.array(json.dumps(about))
            _save(whole, arrays)
            accuracy = f"accuracy {about['accuracy']:.3f}, "
        _save(cut, _windows(capture_all(merger.model, responses, WINDOWED)[0]))
        print(f"{family} {name} {recipe.method}: {accuracy}{time.monotonic() - began:.0f} s", flush=True)


def _accuracy(problems: list[Problem], answers: list[Response]) -> dict[str, Any]:
    right = [p.is_right(r.text) for p, r in zip(problems, answers, strict=True)]
    kinds = {problem.kind for problem in problems}
    return {
        "accuracy": float(np.mean(right)),
        "by_kind": {
            kind: float(np.mean([r for r, p in zip(right, problems, strict=True) if p.kind == kind]))
            for kind in sorted(kinds)
        },
        "problems": len(right),
    }


def _text_and_tokens(responses: list[Response], stats: tuple[TokenStats, ...]) -> dict[str, Any]:
    return {
        "text": measure_text(responses),
        "mean_tokens": float(np.mean([len(r.token_ids) for r in responses])),
        **{
            key: float(np.mean([getattr(s, key) for s in stats]))
            for key in ("entropy", "entropy_spread", "self_certainty")
        },
        "perplexity": float(np.exp(min(-np.mean([s.logprob for s in stats]), 700))),
    }


def _analysed(caches: list[SparseRows], neurons: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Counts by setting, and the mass and credit of every response under each."""
    settings: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    no_weights = NeuronWeights(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    for setting, cache in zip(SETTINGS, caches, strict=True):
        analyses = analyse(cache, RHO, MIN_RUN)
        credits = stack_credits(analyses)
        scored = score(Evidence(np.arange(cache.responses), cache.base, credits), analyses, "given", no_weights)
        known = [item for item in analyses if item.novelty is not None]
        settings[label(setting)] = {
            "rows": float(np.diff(cache.sample_row_ptr).mean()),
            "cycles": scored.cycles,
            "credited": scored.credited,
            "explore_share": scored.explore_share,
            "fallbacks": dict(scored.fallbacks),
            "utilization": float(np.diff(cache.base.ptr).mean()) / neurons,
            "novelty": float(np.mean([item.novelty.slopes.mean() for item in known])) if known else None,
        }
        for part, value in (
            ("base_ptr", cache.base.ptr), ("base_keys", cache.base.keys), ("base_masses", cache.base.masses),
            ("ptr", credits.ptr), ("keys", credits.keys),
            ("effective", credits.effective), ("redundant", credits.redundant),
        ):  # fmt: skip
            arrays[f"{label(setting)}:{part}"] = value
    return {"settings": settings}, arrays


def _windows(caches: list[SparseRows]) -> dict[str, np.ndarray]:
    """The mass of the first and last rows of every response."""
    arrays = {}
    for setting, cache in zip(WINDOWED, caches, strict=True):
        for name in WINDOWS:
            base = window(cache, WINDOW_ROWS, last=name == "last").base
            for part, value in (("base_ptr", base.ptr), ("base_keys", base.keys), ("base_masses", base.masses)):
                arrays[f"{label(setting)}:{name}:{part}"] = value
    return arrays


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    partial = file.with_suffix(".partial")
    with open(partial, "wb") as out:
        np.savez(out, **arrays)
    os.replace(partial, file)
