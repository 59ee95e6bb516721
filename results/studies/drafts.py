"""How far a draft should look back, and how much of it to take over: passes, tokens read and seconds of answering.

    python results/studies/drafts.py      # 10 minutes on two cores; needs the families of does-nex-rank-merges.md

Each merge answers without references, then with base's and parents' responses as references, for every setting of
CONTEXT and LONGEST in nex_merge/generation/drafts.py and of PASS_TOKENS in batches.py. A setting is chosen on CHOSEN_ON
and told for the last family. Writes drafts.csv, a line per merge and setting with the medians of RUNS.
"""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from ranking.families import FAMILIES

from nex_merge.engines.loading import load_tokenizer
from nex_merge.families.qwen3_tiny.problems import make_problems
from nex_merge.generation import batches, drafts, generate
from nex_merge.merging import Merger
from nex_merge.records import MergeRecipe, Prompt, Response
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts
from nex_merge.study.proposal import passthrough

CHOSEN_ON, TOLD = ("diffs-signs", "pairs-triples"), ("qwen3-tiny",)
# CONTEXT, LONGEST, PASS_TOKENS
SETTINGS = (
    *((context, longest, 64) for context, longest in ((1, 15), (2, 15), (4, 15), (2, 7))),
    *((2, 15, passes) for passes in (16, 32, 128)),
)
RUNS, PER_KIND, SEED = 3, 16, 11
MERGES = {
    "ties": {"weight": 0.6, "density": 0.5},
    "linear": {"weight": 0.5},
    "dare_ties": {"weight": 0.6, "density": 0.5},
}
COLUMNS = (
    "family", "merge", "context", "longest", "pass_tokens", "passes", "tokens_read", "tokens", "same", "plain_seconds",
    "seconds",
)  # fmt: skip


def merge(method: str, folders: dict[str, Path]) -> MergeRecipe:
    models = [{"model": str(path), "parameters": MERGES[method]} for name, path in folders.items() if name != "base"]
    base = {} if method == "linear" else {"base_model": str(folders["base"])}
    config = {"merge_method": method, "models": models, **base, "dtype": "float32", "out_dtype": "bfloat16"}
    return MergeRecipe("merge", method, config, 7)


def lines(family: str) -> Iterator[dict[str, Any]]:
    root, kinds = FAMILIES[family]
    folders = {name: Path(root).resolve() / name for name in ("base", *kinds)}
    merger = Merger(folders, "base", "cpu", torch.float32)
    tokenizer = load_tokenizer(folders["base"])
    problems = [p for kind in kinds for p in make_problems(kind, PER_KIND, SEED)]
    texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
    ids, settings = encode_prompts(texts, tokenizer, PromptsConfig(file="")), GenerationConfig(max_new_tokens=640)
    passes = [0, 0]
    forward = type(merger.model).forward

    def counted(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        passes[0] += 1
        passes[1] += input_ids.numel()
        return forward(self, input_ids=input_ids, **kwargs)

    def answer(references: Sequence[Response]) -> tuple[float, list[Response]]:
        passes[:] = 0, 0
        began = time.perf_counter()
        found = generate(merger.model, tokenizer, ids, settings, references=references)
        return time.perf_counter() - began, found

    said: list[Response] = []
    for name, folder in folders.items():
        merger.load(passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))
        said += answer([])[1]
    type(merger.model).forward = counted  # pyright: ignore[reportAttributeAccessIssue]
    for method in MERGES:
        merger.load(merge(method, folders))
        plain, seconds = [], {setting: [] for setting in SETTINGS}
        for _ in range(RUNS):
            took, alone = answer([])
            plain.append(took)
            counts = {}
            for setting in SETTINGS:
                drafts.CONTEXT, drafts.LONGEST, batches.PASS_TOKENS = setting
                took, drafted = answer(said)
                seconds[setting].append(took)
                counts[setting] = (*passes, drafted == alone)
        tokens = sum(len(response.token_ids) for response in alone)
        for setting in SETTINGS:
            of_passes, read, same = counts[setting]
            yield dict(
                zip(
                    COLUMNS,
                    (family, method, *setting, of_passes, read, tokens, same, f"{median(plain):.3f}",
                     f"{median(seconds[setting]):.3f}"),
                    strict=True,
                )
            )  # fmt: skip
    type(merger.model).forward = forward  # pyright: ignore[reportAttributeAccessIssue]


def tell() -> None:
    """Times as fast as without, geometric means over merges, of the families chosen on and of the one told."""
    with open(Path(__file__).with_suffix(".csv"), newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for setting in SETTINGS:
        of = [r for r in found if (int(r["context"]), int(r["longest"]), int(r["pass_tokens"])) == setting]
        means = [
            geometric_mean(float(r["plain_seconds"]) / float(r["seconds"]) for r in of if r["family"] in families)
            for families in (CHOSEN_ON, TOLD)
        ]
        print(*setting, *(f"{value:.2f}" for value in means))


def main() -> None:
    with open(Path(__file__).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for family in (*CHOSEN_ON, *TOLD):
            for line in lines(family):
                writer.writerow(line)
                file.flush()
                print(*line.values(), flush=True)
    tell()


if __name__ == "__main__":
    main()
