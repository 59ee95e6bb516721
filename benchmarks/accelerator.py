"""A trial where there is an accelerator, stage by stage, against doing it by hand and against what the device can do.

    python -m benchmarks.accelerator           # at most eight minutes, 30 GB of disk
    python -m benchmarks.accelerator --tiny    # whether it runs, on whatever there is; its figures are of no use

Writes results/studies/speed_accelerator.json after every row, and prints it. Families have random weights, made on the
spot, and say nothing alike, so drafts win nothing. Where torch finds no CUDA device, it says so and measures nothing.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import trials
from benchmarks.by_hand import by_hand
from benchmarks.measured import timed
from benchmarks.merging import recipe
from benchmarks.shapes import make_family
from nex_merge.merging import Merger
from nex_merge.records import MergeRecipe
from nex_merge.setup.resolve import ResolvedConfig, resolve_config
from nex_merge.study.proposal import passthrough
from nex_merge.workers.job import done_here

ROOT = Path("results/benchmarks")
OUT = Path("results/studies/speed_accelerator.json")
SECONDS = 8 * 60
METHODS = ("task_arithmetic", "linear", "slerp", "ties", "dare_ties", "della", "breadcrumbs")


@dataclass(frozen=True)
class Size:
    """What is measured."""

    large: str  # shape of a whole trial
    sorted: str  # shape of merges that sort, which takes minutes for the large one
    prompts: int
    tokens: int
    long: int  # tokens of a long answer


@dataclass(frozen=True)
class Can:
    """What the device can do, measured."""

    bytes_per_second: float  # read and written by a copy on the device
    flops: float  # of a product of bfloat16 matrices
    hashed_per_second: float  # bytes, on all cores


WHOLE = Size("4B", "0.6B", 64, 256, 4096)
TINY = Size("seventh", "seventh", 4, 96, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not (torch.cuda.is_available() or args.tiny):
        print("no accelerator: torch finds no CUDA device here, so nothing was measured")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ROOT.mkdir(parents=True, exist_ok=True)
    began, out = time.monotonic(), ROOT / "tiny.json" if args.tiny else OUT
    saved: dict[str, Any] = {"machine": _machine(device), "rows": []}
    for number, part in enumerate(_parts(TINY if args.tiny else WHOLE, device)):
        if time.monotonic() - began > 0.75 * SECONDS:
            saved["rows"].append({"what": f"part {number + 1} and what follows", "skipped": "no time was left"})
            break
        for row in part():
            row["at_seconds"] = time.monotonic() - began
            saved["rows"].append(row)
            print(json.dumps(row), flush=True)
            out.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    out.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "accelerator": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "cores": psutil.cpu_count(logical=False), "torch_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "mergekit", "numpy")},
    }  # fmt: skip


def _parts(size: Size, device: torch.device) -> Iterator[Callable[[], Iterator[dict[str, Any]]]]:
    can = _can(device)
    yield lambda: iter([{"what": "the device", **vars(can)}])
    yield lambda: _bits(device)
    yield lambda: _large(size, device, can)
    yield lambda: _sorted(size, device, can)
    yield lambda: iter([trials.whole_trial(ROOT, 3, size.prompts).row()])
    yield lambda: _large_by_hand(size, device)
    yield lambda: _vllm(size, device)


def _seconds(device: torch.device, work: Callable[[], object], times: int = 3) -> float:
    """The quickest of a few times."""
    found = []
    for _ in range(times):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - began)
    return min(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _can(device: torch.device) -> Can:
    count, side = (1 << 30, 8192) if device.type == "cuda" else (1 << 24, 1024)
    one, other = (torch.empty(count, dtype=torch.bfloat16, device=device) for _ in range(2))
    copied = 4 * count / _seconds(device, lambda: other.copy_(one))
    a = torch.randn(side, side, device=device).to(torch.bfloat16)
    flops = 2 * side**3 / _seconds(device, lambda: a @ a)
    part = bytes(1 << 26)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        jobs = 2 * torch.get_num_threads()
        hashing = _seconds(device, lambda: list(pool.map(lambda _: hashlib.sha256(part).digest(), range(jobs))), 1)
    return Can(copied, flops, jobs * len(part) / hashing)


def _bits(device: torch.device) -> Iterator[dict[str, Any]]:
    """Whether every method gives, on the device, the weights that it gives on the CPU."""
    plan = resolve_config(trials.CONFIG)
    folders = trials.three_of(plan)
    here, there = (Merger(folders, "base", name, torch.bfloat16) for name in ("cpu", str(device)))
    made = {method: recipe(method, folders, 1) for method in METHODS}
    equal = {method: there.load(each) == here.load(each) for method, each in made.items()}
    yield {"what": "SHA-256 of merges on the device, as on the CPU", "equal": equal}


def _plan(size: Size, folders: dict[str, Path], tokens: int, engine: str = "transformers") -> ResolvedConfig:
    prompts = [json.dumps({"prompt": f"Count from {number} to zero, and explain."}) for number in range(size.prompts)]
    (ROOT / "prompts.jsonl").write_text("\n".join(prompts), encoding="utf-8")
    shutil.rmtree(ROOT / "large", ignore_errors=True)
    return resolve_config(
        {
            "family": {"base": str(folders["base"]), "models": {"a": str(folders["a"]), "b": str(folders["b"])}},
            "search_space": "ties",
            "prompts": {"file": str(ROOT / "prompts.jsonl")},
            # All at once: 40 GB of keys and values for long answers of the 4B shape, where auto takes 4 GiB.
            "generation": {"max_new_tokens": tokens, "batch_tokens": size.prompts * (tokens + 64)},
            "runtime": {"dtype": "bfloat16", "engine": engine},
            "output": str(ROOT / "large"),
        }
    )


def _large(size: Size, device: torch.device, can: Can) -> Iterator[dict[str, Any]]:
    """Whole trials, and long answers."""
    folders = make_family(size.large, ROOT, str(device))
    seconds, (runner, engine) = timed(lambda: trials.open_runner(_plan(size, folders, size.tokens)))
    yield {"what": f"open the family, {size.large}", "seconds": seconds}
    made: list[tuple[str, MergeRecipe]] = [
        (name, passthrough("base" if name == "base" else "parent", name, folders[name], "bfloat16"))
        for name in ("base", "a")
    ]
    merges = [*(["task_arithmetic"] * 2), *(["linear"] * 2)]
    made += [(f"{number:04d}", recipe(method, folders, number)) for number, method in enumerate(merges)]
    weights = sum(parameter.nbytes for parameter in engine.resident.model.parameters())
    pace = 0.0
    for name, each in made:
        _forget_peak(device)
        result = runner.finish(done_here(runner.work(name, name, each), engine), None)
        longest = size.tokens  # random weights never end a response
        pace = result.seconds["generate"] / longest
        tokens = result.tokens
        yield {
            "what": f"{size.large}, {size.prompts} prompts x {size.tokens} tokens, {each.method} {name}",
            "tokens": tokens, "seconds": dict(result.seconds), "all_seconds": sum(result.seconds.values()),
            "limits": {
                "merge": weights * 4 / can.bytes_per_second,
                "hash": weights / can.hashed_per_second,
                "generate": longest * weights / can.bytes_per_second,
                "capture": weights * (tokens + sum(map(len, runner.terms.prompt_ids))) / can.flops,
            },
            "tokens_per_second": tokens / result.seconds["generate"],
            "share_of_bandwidth": longest * weights / result.seconds["generate"] / can.bytes_per_second,
            "peak_device_bytes": _peak(device),
        }  # fmt: skip
    tokens = size.long if pace * size.long < 100 else size.long // 4
    config = _plan(size, folders, tokens).config
    _forget_peak(device)
    seconds, answers = timed(lambda: engine.answer(runner.terms.prompt_ids, config.generation))
    said = sum(len(answer.token_ids) for answer in answers)
    yield {
        "what": f"{size.large}, {size.prompts} prompts x {tokens} tokens, generated", "seconds": seconds,
        "tokens": said, "tokens_per_second": said / seconds,
        "limit": tokens * weights / can.bytes_per_second, "peak_device_bytes": _peak(device),
    }  # fmt: skip


def _sorted(size: Size, device: torch.device, can: Can) -> Iterator[dict[str, Any]]:
    """Merges by methods that sort once and compare from then on, or draw random masks."""
    folders = make_family(size.sorted, ROOT)
    merger = Merger(folders, "base", str(device), torch.bfloat16)
    merger.keep_ranks(ROOT / "orders")
    weights = sum(parameter.nbytes for parameter in merger.model.parameters())
    for method in ("ties", "dare_ties"):
        seconds = []
        for number in range(3):
            each = recipe(method, folders, number)
            merged, sha256 = timed(lambda each=each: merger.begin(each))
            seconds.append((merged, timed(sha256)[0]))
        yield {
            "what": f"merge {size.sorted}, {method}: first, second, third", "merge_and_hash_seconds": seconds,
            "limit": 4 * weights / can.bytes_per_second,
        }  # fmt: skip
    shutil.rmtree(ROOT / "orders", ignore_errors=True)


def _large_by_hand(size: Size, device: torch.device) -> Iterator[dict[str, Any]]:
    """One merge of the large shape as one would do it without the product."""
    folders = make_family(size.large, ROOT, str(device))
    runner, engine = trials.open_runner(_plan(size, folders, size.tokens))
    config = runner.terms.config
    spent, _ = by_hand(recipe("task_arithmetic", folders, 0), runner.terms.prompt_ids, config, engine, ROOT / "merged")
    yield {"what": f"{size.large}, task_arithmetic, by hand", "seconds": spent, "all_seconds": sum(spent.values())}
    shutil.rmtree(ROOT / "merged", ignore_errors=True)


def _vllm(size: Size, device: torch.device) -> Iterator[dict[str, Any]]:
    """A merge that vLLM answers for, the second one, as the first compiles."""
    if find_spec("vllm") is None:
        yield {"what": "vLLM", "skipped": "not installed here"}
        return
    folders = make_family(size.large, ROOT, str(device))
    runner, engine = trials.open_runner(_plan(size, folders, size.tokens, "vllm"))
    for number in range(2):
        name, each = f"{number:04d}", recipe("task_arithmetic", folders, number)
        result = runner.finish(done_here(runner.work(name, name, each), engine), None)
        yield {"what": f"{size.large}, vLLM, task_arithmetic {number}", "seconds": dict(result.seconds)}


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


if __name__ == "__main__":
    main()
