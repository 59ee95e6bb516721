"""Merges of the toy families: what each variant concludes on 64 prompts, its measures, and its accuracy on others.

A JSON file per variant in results/study_data/evidence/FAMILY, so that an interrupted measurement goes on; and one CSV
per family beside the study, from which its tables can be made again without any model.
"""

import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ranking.families import FAMILIES, LATER, recipes
from ranking.measure import opened

from evidence.pools import Pool
from nex_merge import conclude
from nex_merge.families.qwen3_tiny.problems import Problem
from nex_merge.generation import generate
from nex_merge.records import Prompt, Response
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts

HERE = Path(__file__).parents[1]
DATA = HERE.parent / "study_data" / "evidence"
MAX_TOKENS = 640


def measure(family: str, per_kind: int) -> None:
    """Measure what is not measured yet of a family: base, experts, and its 40 random merges.

    Accuracy on `per_kind` problems of each of its two kinds; with 0, as the earlier study measured it on 128 of each,
    which holds for the family whose weights are shipped, and so are the same.
    """
    folders, merger, tokenizer, prompts, problems = opened(family, per_kind)
    known = _earlier(family) if per_kind == 0 else {}
    kinds = (FAMILIES | LATER)[family][1]
    settings = GenerationConfig(max_new_tokens=MAX_TOKENS, batch_tokens=200_000)
    drafts: dict[str, list[Response]] = {"prompts": [], "problems": []}

    def answer(items: list[Problem], what: str, keep: bool) -> list[Response]:
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in items]
        ids = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
        # Base and experts have answered first: their answers are drafts, which change no token.
        responses = generate(merger.model, tokenizer, ids, settings, references=drafts[what])
        drafts[what] += responses if keep else []
        return responses

    folder = DATA / family
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in recipes(folders).items():
        path, is_member = folder / f"{name}.json", recipe.kind != "merge"
        if path.exists() and not is_member:
            continue
        began = time.monotonic()
        merger.load(recipe)
        responses = answer(prompts, "prompts", is_member)
        answers = answer(problems, "problems", is_member) if problems else []
        right = [p.is_right(r.text) for p, r in zip(problems, answers, strict=True)]
        graded = list(zip(problems, right, strict=True))
        found: dict[str, Any] = {
            "variant": name, "kind": recipe.kind, "method": recipe.method, "parameters": dict(recipe.parameters),
            "accuracy": float(np.mean(right)) if right else known[name][0],
            "problems": len(right) or known[name][1],
            "by_kind": {k: float(np.mean([r for p, r in graded if p.kind == k])) for k in kinds} if right else {},
            "tokens": float(np.mean([len(r.token_ids) for r in responses])),
            "truncated": float(np.mean([r.truncated for r in responses])),
            "keys": [None if r.truncated else conclude(r.text, "text") for r in responses],
            "right": [p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)],
        }  # fmt: skip
        path.with_suffix(".partial").write_text(json.dumps(found), encoding="utf-8")
        path.with_suffix(".partial").replace(path)
        print(f"{family} {name} {recipe.method}: {found['accuracy']:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    _write_csv(family, folder)


def _earlier(family: str) -> dict[str, tuple[float, int]]:
    """By variant, its accuracy in the earlier study and on how many problems."""
    with open(HERE / "ranking_variants.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == family]
    return {row["variant"]: (float(row["accuracy"]), int(row["problems"])) for row in rows}


def _write_csv(family: str, folder: Path) -> None:
    """A row per variant and prompt: what is concluded and whether that is right; and a row per variant."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    with open(HERE / f"evidence_{family}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["variant", "kind", "method", "accuracy", "problems", "tokens", "prompt", "right", "conclusion"]
        )
        for item in found:
            head = [item[k] for k in ("variant", "kind", "method", "accuracy", "problems", "tokens")]
            for p, (right, key) in enumerate(zip(item["right"], item["keys"], strict=True)):
                writer.writerow([*head, p, int(right), key])


def measured() -> list[str]:
    """The families that have been measured."""
    return [name for name in (*FAMILIES, *LATER) if (HERE / f"evidence_{name}.csv").exists()]


def load(family: str) -> Pool:
    """A family's variants, from its CSV. The truth of a prompt is the conclusion of the responses that are right."""
    with open(HERE / f"evidence_{family}.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["variant"] for row in rows))
    conclusions: dict[str, dict[int, list[str | None]]] = {name: {} for name in names}
    truths: dict[int, str | None] = {}
    accuracy = {row["variant"]: float(row["accuracy"]) for row in rows}
    for row in rows:
        p, key = int(row["prompt"]), row["conclusion"] or None
        conclusions[row["variant"]][p] = [key]
        truths[p] = key if row["right"] == "1" else truths.get(p)
    return Pool(names, list(conclusions.values()), truths, np.array([accuracy[name] for name in names]))
