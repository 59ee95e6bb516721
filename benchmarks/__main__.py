"""Compare the product with what a user would do without it.

    python -m benchmarks [PART...]     # parts: start scoring many merging generation trial prepared search full capture

Writes results/studies/speed.json and prints a table. Every part runs in a process of its own. Families with random
weights are made in results/benchmarks (7 GB with what the 0.6B shape's merges need on the way); torch runs with as many
threads as it finds cores.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import answering, merging, scoring, searches, trials
from benchmarks.measured import Comparison
from benchmarks.shapes import make_family

ROOT = Path("results/benchmarks")
OUT = Path("results/studies/speed.json")
TINY = Path("nex_merge/families/qwen3_tiny/weights/pairs")
COSTLY = ("ties", "dare_ties", "della", "breadcrumbs")
CHEAP = ("task_arithmetic", "linear", "slerp")


def full() -> Iterator[Comparison]:
    """The 0.6B shape; what takes mergekit minutes is done by hand once, and a seventh of it five times."""
    for runs, again, methods in ((1, 4, COSTLY), (5, 0, CHEAP)):
        yield from merging.compare("0.6B", ROOT, runs, again, merging.by_command, methods, merging.LIMITS)


PARTS = {
    "start": lambda: trials.starting(ROOT, 5),
    "scoring": lambda: [scoring.scoring(5)],
    "many": lambda: [trials.many_trials(ROOT)],
    "merging": lambda: merging.compare("seventh", ROOT, 5, 0, merging.by_function, COSTLY),
    "generation": lambda: [
        answering.mixed_lengths(TINY, "generation of mixed lengths, qwen3-tiny", 80, 16, 40, 5),
        answering.mixed_lengths(
            make_family("seventh", ROOT)["a"], "generation of mixed lengths, a seventh of 0.6B", 40, 8, 10, 5
        ),
        answering.continuous(TINY, "generation, qwen3-tiny", 16, 64, 3),
    ],
    "trial": lambda: [trials.whole_trial(ROOT, 5)],
    "prepared": lambda: trials.prepared(ROOT, 5),
    "search": lambda: [searches.whole_search(ROOT)],
    "full": full,
    "capture": lambda: [answering.capturing(ROOT, 5)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="all, unless named")
    args = parser.parse_args()
    if unknown := set(args.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    ROOT.mkdir(parents=True, exist_ok=True)
    saved: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"parts": {}}
    saved["machine"] = {
        "cores": psutil.cpu_count(logical=False), "memory_bytes": psutil.virtual_memory().total,
        "torch_threads": torch.get_num_threads(), "processor": platform.machine(),
        "versions": {name: version(name) for name in ("torch", "transformers", "mergekit", "numpy")},
    }  # fmt: skip
    OUT.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    for part in args.parts:
        if len(args.parts) == 1:
            run(part, saved)
        else:
            subprocess.run([sys.executable, "-m", "benchmarks", part], check=True)
    shutil.rmtree(ROOT / "merged", ignore_errors=True)


def run(part: str, saved: dict[str, Any]) -> None:
    """Measure a part, and put it among what is saved."""
    began, rows = time.monotonic(), []
    for found in PARTS[part]():
        rows.append(found.row() if isinstance(found, Comparison) else found)
        print(line(rows[-1]), flush=True)
    saved["parts"][part] = {"minutes": (time.monotonic() - began) / 60, "rows": rows}
    if part == "trial":
        picture(rows[0], OUT.with_name("speed.png"))
    OUT.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


def picture(row: dict[str, Any], file: Path) -> None:
    """Where a trial's time goes, by hand and here, as stacked bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 2.2), layout="constrained")
    left = [0.0, 0.0]
    for stage in ("merge", "generate", "capture", "score"):
        seconds = [row[key][stage] for key in ("stages_seconds", "stages_by_hand_seconds")]
        axes.barh(["nex-merge", "by hand"], seconds, left=left, label=stage)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    axes.set_xlabel("seconds of one trial")
    axes.set_title(row["what"])
    axes.legend(ncols=4, loc="lower right")
    figure.savefig(file, dpi=120)


def line(row: dict[str, Any]) -> str:
    """A row of the table, Markdown."""
    if "ratio" not in row:
        return f"| {row['what']} | | | | {json.dumps({k: v for k, v in row.items() if k not in ('what', 'goal')})} |"
    theirs, ours = (sorted(row[key])[len(row[key]) // 2] for key in ("baseline_seconds", "our_seconds"))
    return f"| {row['what']} | {theirs:.2f} s | {ours:.2f} s | {row['ratio']:.1f} | {row['goal']} |"


if __name__ == "__main__":
    main()
