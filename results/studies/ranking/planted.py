"""Merges of qwen3-tiny that are broken on purpose, and its sound members: raw NEX, text, and what guards say.

Judged twice: beside the family's base, which stops, and beside the same base with its end token suppressed, so that it
runs on to the limit as a pretrained one does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from nex_merge.activations.capture import capture
from nex_merge.engines.loading import load_tokenizer
from nex_merge.families.qwen3_tiny.problems import make_problems
from nex_merge.generation import end_tokens, generate
from nex_merge.measures.finishing import Ending, endings_of
from nex_merge.measures.guard import collapse
from nex_merge.measures.measure import Pool, Rules
from nex_merge.measures.text import text_figures
from nex_merge.merging import Merger
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, MergeRecipe, Observation, Prompt, Response, Variant
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts
from nex_merge.study.proposal import passthrough
from ranking.families import FAMILIES, MIN_RUN, PROMPTS_PER_KIND, PROMPTS_SEED, RHO, SHIPPED, write_csv
from ranking.former_guard import former_collapse, measure_text

ENDLESS = "base that never stops"


def planted() -> None:
    """Write ranking_planted.csv."""
    root, kinds = FAMILIES["qwen3-tiny"]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds, "overthinker")}
    merger = Merger(folders, "base", "cpu", torch.float32)
    tokenizer = load_tokenizer(folders["base"])
    prompts = [p for kind in kinds for p in make_problems(kind, PROMPTS_PER_KIND // 2, PROMPTS_SEED)]
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in prompts]
    encoded = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
    settings = GenerationConfig(max_new_tokens=832, batch_tokens=400_000)
    rows: list[dict[str, Any]] = []
    answered: dict[str, list[Response]] = {}
    for name, recipe in _variants(folders, kinds).items():
        merger.load(recipe)
        if name == ENDLESS:
            with _never_stopping(merger.model, end_tokens(merger.model, tokenizer)):
                responses = generate(merger.model, tokenizer, encoded, settings)
        else:
            responses = generate(merger.model, tokenizer, encoded, settings)
        answered[name] = responses
        cache, _ = capture(merger.model, responses, SHIPPED)
        analyses = analyse(cache, RHO, MIN_RUN)
        evidence = Evidence(np.arange(cache.responses), cache.base, stack_credits(analyses))
        scored = score(evidence, analyses, "self")
        right = np.mean([p.is_right(r.text) for p, r in zip(prompts, responses, strict=True)])
        rows.append({
            "variant": name, "accuracy on the prompts": float(right), "nex": scored.nex,
            "cycles_per_response": scored.cycles / scored.responses,
            "mean_tokens": float(np.mean([len(r.token_ids) for r in responses])), **measure_text(responses),
            **_judged(answered, kinds),
        })  # fmt: skip
        print(rows[-1], flush=True)
    write_csv("ranking_planted.csv", rows)


def _variants(folders: dict[str, Path], kinds: tuple[str, ...]) -> dict[str, MergeRecipe]:
    """Base (twice) and experts first, then what is held against them."""

    def merge(method: str, weights: dict[str, float], **parameters: float) -> MergeRecipe:
        models = [
            {"model": str(folders[name]), "parameters": {"weight": weight, **parameters}}
            for name, weight in weights.items()
        ]
        config = {"merge_method": method, "base_model": str(folders["base"]), "models": models, "dtype": "float32",
                  "out_dtype": "bfloat16"}  # fmt: skip
        return MergeRecipe("merge", method, config, 0)

    sources = {"base": "base", ENDLESS: "base", **{name: name for name in (*kinds, "overthinker")}}
    found = {name: passthrough("parent", source, folders[source], "bfloat16") for name, source in sources.items()}
    for weight in (1.0, 1.25, 1.5, 2.0, 3.0, 5.0):
        found[f"task_arithmetic both {weight:g}"] = merge("task_arithmetic", dict.fromkeys(kinds, weight))
    for name in kinds:
        for weight in (1.5, 2.0, 3.0):
            found[f"task_arithmetic {name} {weight:g}"] = merge("task_arithmetic", {name: weight})
    return found | {"ties both 3, density 0.2": merge("ties", dict.fromkeys(kinds, 3.0), density=0.2)}


@contextmanager
def _never_stopping(model: PreTrainedModel, ends: frozenset[int]) -> Iterator[None]:
    """Within it, no end token is ever the likeliest."""

    def suppress(module: torch.nn.Module, args: Any, output: Any) -> None:
        # The least of the logits, not -inf: generation takes tokens for tied by the size of the largest |logit|.
        output.logits[..., sorted(ends)] = output.logits.amin(-1, keepdim=True)

    handle = model.register_forward_hook(suppress)
    try:
        yield
    finally:
        handle.remove()


def _judged(answered: dict[str, list[Response]], kinds: tuple[str, ...]) -> dict[str, Any]:
    """How the last one's responses end and, where it is not base or an expert, what guards say beside either base."""
    *_, last = answered
    found: dict[str, Any] = {}
    for base, column in (("base", ""), (ENDLESS, ", endless base")):
        references = [name for name in (base, *kinds) if name in answered]
        pool = Pool(
            [
                *(_variant(name, "base" if name == base else "parent", answered[name]) for name in references),
                _variant(last, "merge", answered[last]),
            ],
            Rules(),
        )
        if not column:
            endings = endings_of(pool, len(references))
            found |= {ending.name.lower(): endings.count(ending) / len(endings) for ending in Ending}
        if last not in ("base", ENDLESS, *kinds):
            violation, reason = collapse(pool)
            baselines = [measure_text(answered[name]) for name in references]
            former = former_collapse(measure_text(answered[last]), baselines)[0]
            found |= {f"former violation{column}": former, f"violation{column}": violation}
            found |= {f"reason{column}": reason or ""}
    return found


def _variant(name: str, kind: str, responses: list[Response]) -> Variant:
    return Variant(name, kind, True, Observation(responses, text=text_figures(responses)))
