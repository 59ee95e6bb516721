"""A trial where there is an accelerator: qwen3-tiny against doing it by hand, and the shape of Qwen3-4B.

    python -m benchmarks.accelerator

Writes results/studies/speed_accelerator.json and prints it. The 4B shape has random weights: 25 GB of disk, made on the
spot, and its merges are task arithmetic. Where torch finds no CUDA device, it says so and measures nothing.
"""

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import trials
from benchmarks.measured import timed
from benchmarks.merging import recipe
from benchmarks.shapes import make_family
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.proposal import passthrough

ROOT = Path("results/benchmarks")
OUT = Path("results/studies/speed_accelerator.json")
PROMPTS, TOKENS = 64, 256


def large_trials(root: Path, runs: int) -> Iterator[dict[str, Any]]:
    """Trials of the 4B shape, after its base and experts have answered; random weights never end a response."""
    folders = make_family("4B", root, "cuda")
    plan = resolve_config(
        {
            "family": {"base": str(folders["base"]), "models": {"a": str(folders["a"]), "b": str(folders["b"])}},
            "search_space": "ties",
            "prompts": {"file": str(root / "prompts.jsonl")},
            "generation": {"max_new_tokens": TOKENS},
            "output": str(root / "large"),
        }
    )
    shutil.rmtree(root / "large", ignore_errors=True)
    seconds, runner = timed(lambda: trials.open_runner(plan))
    yield {"what": "open the family", "seconds": seconds}
    made = [
        (name, passthrough("base" if name == "base" else "parent", name, folders[name], "bfloat16")) for name in folders
    ]
    made += [(f"{number:04d}", recipe("task_arithmetic", folders, number)) for number in range(runs)]
    for name, each in made:
        torch.cuda.reset_peak_memory_stats()
        result = runner.finish(runner.answer(name, name, each), None)
        yield {
            "what": f"Qwen3-4B shape, {PROMPTS} prompts x {TOKENS} tokens, {each.method} {name}",
            "tokens": int(PROMPTS * float(result.value("mean_tokens") or 0)),
            "seconds": dict(result.seconds),
            "peak_device_bytes": torch.cuda.max_memory_allocated(),
        }
    shutil.rmtree(root / "large", ignore_errors=True)


def main() -> None:
    if not torch.cuda.is_available():
        print("no accelerator: torch finds no CUDA device here, so nothing was measured")
        return
    ROOT.mkdir(parents=True, exist_ok=True)
    prompts = [json.dumps({"prompt": f"Count down from {number} to zero, and explain."}) for number in range(PROMPTS)]
    (ROOT / "prompts.jsonl").write_text("\n".join(prompts), encoding="utf-8")
    saved: dict[str, Any] = {
        "machine": {
            "accelerator": torch.cuda.get_device_name(), "cores": psutil.cpu_count(logical=False),
            "torch_threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "mergekit", "numpy")},
        },
        "rows": [],
    }  # fmt: skip

    def keep(row: dict[str, Any]) -> None:
        saved["rows"].append(row)
        print(json.dumps(row), flush=True)
        OUT.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")

    keep(trials.whole_trial(ROOT, 3).row())
    for row in large_trials(ROOT, 2):
        keep(row)


if __name__ == "__main__":
    main()
