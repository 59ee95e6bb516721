"""Merges of qwen3-tiny that are broken on purpose, and its sound members: raw NEX, text, and what guards say."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from nex_merge.activations.capture import capture
from nex_merge.engines.loading import load_tokenizer
from nex_merge.families.qwen3_tiny.problems import make_problems
from nex_merge.generation import generate
from nex_merge.measures.text import collapse, measure_text
from nex_merge.merging import Merger
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, MergeRecipe, Prompt
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.prompts import encode_prompts
from nex_merge.study.proposal import passthrough
from ranking.families import FAMILIES, MIN_RUN, PROMPTS_PER_KIND, PROMPTS_SEED, RHO, SHIPPED, write_csv


def planted() -> None:
    """Write ranking_planted.csv."""
    root, kinds = FAMILIES["qwen3-tiny"]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds, "overthinker")}
    merger = Merger(folders, "base", "cpu", torch.float32)
    tokenizer = load_tokenizer(folders["base"])
    prompts = [p for kind in kinds for p in make_problems(kind, PROMPTS_PER_KIND, PROMPTS_SEED)]
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in prompts]
    encoded = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
    variants = {name: passthrough("parent", name, folder, "bfloat16") for name, folder in folders.items()}

    def merge(method: str, weights: dict[str, float], **parameters: float) -> MergeRecipe:
        models = [
            {"model": str(folders[name]), "parameters": {"weight": weight, **parameters}}
            for name, weight in weights.items()
        ]
        config = {"merge_method": method, "base_model": str(folders["base"]), "models": models, "dtype": "float32",
                  "out_dtype": "bfloat16"}  # fmt: skip
        return MergeRecipe("merge", method, config, 0)

    for weight in (1.0, 1.25, 1.5, 2.0, 3.0, 5.0):
        variants[f"task_arithmetic both {weight:g}"] = merge("task_arithmetic", dict.fromkeys(kinds, weight))
    for name in kinds:
        for weight in (1.5, 2.0, 3.0):
            variants[f"task_arithmetic {name} {weight:g}"] = merge("task_arithmetic", {name: weight})
    variants["ties both 3, density 0.2"] = merge("ties", dict.fromkeys(kinds, 3.0), density=0.2)
    settings = GenerationConfig(max_new_tokens=832, batch_tokens=400_000)
    rows, parents = [], []
    for name, recipe in variants.items():
        merger.load(recipe)
        responses = generate(merger.model, tokenizer, encoded, settings)
        cache, _ = capture(merger.model, responses, SHIPPED)
        analyses = analyse(cache, RHO, MIN_RUN)
        evidence = Evidence(np.arange(cache.responses), cache.base, stack_credits(analyses))
        scored = score(evidence, analyses, "self")
        text = measure_text(responses)
        if recipe.kind != "merge" and name != "overthinker":
            parents.append(text)
        violation, reason = collapse(text, parents)
        right = np.mean([p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)])
        rows.append({
            "variant": name, "accuracy on the prompts": float(right), "nex": scored.nex,
            "cycles_per_response": scored.cycles / scored.responses,
            "mean_tokens": float(np.mean([len(r.token_ids) for r in responses])), **dataclasses.asdict(text),
            "violation": violation, "reason": reason or "",
        })  # fmt: skip
        print(rows[-1], flush=True)
    write_csv("ranking_planted.csv", rows)
