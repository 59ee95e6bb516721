"""What cuDNN's attention costs where lengths change with every pass, and what PASS_TOKENS should be on an accelerator.

    python results/studies/attention_kernels.py      # a minute, on a machine with a CUDA device

Merges of qwen3-tiny answer 24 prompts and are captured, each under every setting in turn. Writes attention_kernels.csv.
"""

import csv
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import trials
from benchmarks.merging import recipe
from nex_merge.engines import transformers as engine
from nex_merge.generation import batches
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.proposal import passthrough

RECIPES = (1, 2, 3)
SETTINGS = ((True, 64), (False, 64), (False, 1024), (False, 256))  # cuDNN's attention allowed, PASS_TOKENS


def main() -> None:
    if not torch.cuda.is_available():
        print("no accelerator: torch finds no CUDA device here, so nothing was measured")
        return
    run = Path("results/benchmarks/attention")
    shutil.rmtree(run, ignore_errors=True)
    plan = resolve_config(trials.CONFIG, {"output": str(run)})
    runner, folders = trials.open_runner(plan), plan.family.folders
    named: dict[str, Path] = dict(
        zip(("base", "a", "b"), (folders[name] for name in ("base", *plan.family.models)), strict=True)
    )
    without, step = engine.sdpa_kernel, batches.Batch.step
    passes = [0]

    def counted(self: batches.Batch, *args: Any) -> int:
        passes[0] += 1
        return step(self, *args)

    batches.Batch.step = counted  # pyright: ignore[reportAttributeAccessIssue]

    def row(number: int, allowed: bool, pass_tokens: int) -> list[Any]:
        engine.sdpa_kernel = (lambda kernels: nullcontext()) if allowed else without
        batches.PASS_TOKENS, passes[0] = pass_tokens, 0
        name = f"{number:04d}"
        answered = runner.answer(name, name, recipe("ties", named, number)).answered
        seconds = [f"{answered.seconds[stage]:.2f}" for stage in ("generate", "capture")]
        tokens = sum(len(response.token_ids) for response in answered.observation.responses)
        return [number, int(allowed), pass_tokens, *seconds, passes[0], tokens]

    for name, folder in folders.items():
        runner.answer(name, name, passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))
    row(0, False, 64)
    with open(Path(__file__).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["recipe", "cudnn", "pass_tokens", "generate_seconds", "capture_seconds", "passes", "tokens"])
        writer.writerows(row(number, *setting) for number in RECIPES for setting in SETTINGS)
    shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main()
