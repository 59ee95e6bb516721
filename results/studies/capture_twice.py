"""Could activations be kept while answering, instead of reading every response again? By how much would they differ?

    python results/studies/capture_twice.py      # two minutes of a core

The passes that answer read tokens in batches of padded rows; the replay reads every response alone. Both are taken here
from the same responses, the first in batches of so many rows, and compared: keys and masses of all rows, stored as
float16, and the score. Writes capture_twice.csv.
"""

import csv
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported

import numpy as np
import torch
from ranking.families import MIN_RUN, RHO, SHIPPED, recipes
from ranking.measure import opened

from nex_merge.activations.capture import build_rows, capture, gated_mlps
from nex_merge.activations.passes import Pass
from nex_merge.generation import generate
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.nex.scoring import score
from nex_merge.records import Evidence, Prompt, Response, SparseRows
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts

MERGES, ROWS = ("0000", "0009", "0020", "0030"), (2, 8, 32)


@torch.inference_mode()
def batched(model: Any, responses: list[Response], rows: int) -> SparseRows:
    """The rows of the cache from passes over `rows` responses at once, padded at the left."""
    parts = []
    for start in range(0, len(responses), rows):
        each = responses[start : start + rows]
        texts = [[*r.prompt_ids, *r.token_ids] for r in each]
        width = max(map(len, texts))
        ids = torch.tensor([[0] * (width - len(text)) + text for text in texts])
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
        running = [Pass(model, [response], [SHIPPED]) for response in each]

        def hook(layer: int, running: list[Any] = running, texts: list[Any] = texts, width: int = width) -> Any:
            def keep(down: Any, inputs: Any) -> None:
                for i, one in enumerate(running):
                    one.take(layer, down, inputs[0][i : i + 1, width - len(texts[i]) :])

            return keep

        with ExitStack() as stack:
            for layer, projection in enumerate(gated_mlps(model)):
                stack.enter_context(projection.register_forward_pre_hook(hook(layer)))
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            model.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        parts += [one._tops[SHIPPED.score, SHIPPED.slice_tokens].groups(SHIPPED.top_k)[0][0] for one in running]
    return build_rows(parts, [len(r.token_ids) for r in responses], SHIPPED.slice_tokens)


def nex(cache: SparseRows) -> float:
    analyses = analyse(cache, RHO, MIN_RUN)
    evidence = Evidence(np.arange(cache.responses), cache.base, stack_credits(analyses))
    return float(score(evidence, analyses, "self", None).nex or 0.0)


def compare(a: SparseRows, b: SparseRows) -> dict[str, float]:
    """Shares of rows with other keys, and of masses of the rows with the same keys that differ."""
    other, masses, differing = 0, 0, 0
    for i in range(len(a.rows.ptr) - 1):
        x, y = slice(*a.rows.ptr[i : i + 2]), slice(*b.rows.ptr[i : i + 2])
        if not np.array_equal(a.rows.keys[x], b.rows.keys[y]):
            other += 1
            continue
        masses += x.stop - x.start
        differing += int((a.rows.masses[x] != b.rows.masses[y]).sum())
    return {"rows": len(a.rows.ptr) - 1, "other_keys": other, "masses": int(masses), "other_masses": differing}


def main() -> None:
    folders, merger, tokenizer, problems, _ = opened("qwen3-tiny", 1)
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
    ids = encode_prompts(texts, tokenizer, PromptsConfig(file=""))
    found = []
    for name in MERGES:
        merger.load(recipes(folders)[name])
        responses = generate(merger.model, tokenizer, ids, GenerationConfig(max_new_tokens=640))
        alone = capture(merger.model, responses, SHIPPED)[0]
        for rows in ROWS:
            together = batched(merger.model, responses, rows)
            found.append({
                "merge": name, "batch": rows, **compare(alone, together),
                "nex": nex(alone), "nex_batched": nex(together),
            })  # fmt: skip
            print(found[-1], flush=True)
    with open(Path(__file__).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
