"""Where the time of a merge goes: what every thread was at, as a picture and as thread-seconds by stage.

    python -m benchmarks.merge_profile [SHAPE]      # 0.6B; two minutes on two cores

Prints a table and writes docs/images/merge-profile.png. Profiled are second variants, whose orders are there.
"""

import functools
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.merging import recipe
from benchmarks.shapes import make_family
from nex_merge.merging import Merger, merger, streamer, workspace

ROOT = Path("results/benchmarks")
OUT = Path("docs/images/merge-profile.png")
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")
STAGES = ("plan", "combine", "draw masks", "check", "write", "hash")

Span = tuple[str, str, float, float]  # stage, thread, begin and end in seconds


class Spans:
    """What was done when, by which thread."""

    def __init__(self) -> None:
        self.found: list[Span] = []

    def of(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def spanned(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.found.append((stage, threading.current_thread().name, began, time.perf_counter()))

        return spanned

    @contextmanager
    def watching(self) -> Any:
        """While it lasts, what a merge is made of is noted."""
        off, draws = workspace.work_off, workspace._draw_thread()
        submit = draws.submit
        copy = torch.nn.Parameter.copy_
        with (
            patch.object(workspace, "work_off", lambda work, items: off(self.of("combine", work), items)),
            patch.object(draws, "submit", lambda work, *args: submit(self.of("draw masks", work), *args)),
            patch.object(streamer, "planned", self.of("plan", streamer.planned)),
            patch.object(merger, "_finite", self.of("check", merger._finite)),
            patch.object(merger, "tensor_digest", self.of("hash", merger.tensor_digest)),
            patch.object(torch.nn.Parameter, "copy_", self.of("write", copy), create=True),
        ):
            yield


def main() -> None:
    shape = (sys.argv[1:] or ["0.6B"])[0]
    folders = make_family(shape, ROOT)
    profiles: dict[str, tuple[float, list[Span]]] = {}
    for method in METHODS:
        made = Merger(folders, "base", "cpu", torch.float32)
        made.keep_ranks(ROOT / "orders")
        made.load(recipe(method, folders, 0))
        spans = Spans()
        with spans.watching():
            began = time.perf_counter()
            made.load(recipe(method, folders, 1))
            wall = time.perf_counter() - began
        profiles[method] = wall, [(stage, thread, a - began, b - began) for stage, thread, a, b in spans.found]
        shutil.rmtree(ROOT / "orders", ignore_errors=True)
        print(_row(method, wall, profiles[method][1]), flush=True)
    _draw(shape, profiles)


def _row(method: str, wall: float, spans: list[Span]) -> str:
    """Markdown: seconds, and thread-seconds by stage."""
    spent: dict[str, float] = defaultdict(float)
    for stage, _, begin, end in spans:
        spent[stage] += end - begin
    busy = sum(spent.values()) / wall
    return f"| {method} | {wall:.2f} | " + " | ".join(f"{spent[stage]:.2f}" for stage in STAGES) + f" | {busy:.1f} |"


def _draw(shape: str, profiles: dict[str, tuple[float, list[Span]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(STAGES, pyplot.get_cmap("tab10").colors, strict=False))  # pyright: ignore[reportAttributeAccessIssue]
    threads = {method: sorted({span[1] for span in spans}) for method, (_, spans) in profiles.items()}
    heights = [len(names) for names in threads.values()]
    figure, rows = pyplot.subplots(
        len(profiles), figsize=(10, 0.4 * sum(heights) + 2), sharex=True, layout="constrained", height_ratios=heights
    )
    for axes, (method, (wall, spans)) in zip(rows, profiles.items(), strict=True):
        for stage in STAGES:
            for number, thread in enumerate(threads[method]):
                bars = [(a, b - a) for of, at, a, b in spans if (of, at) == (stage, thread)]
                axes.broken_barh(bars, (number - 0.4, 0.8), color=colours[stage], label=stage if number == 0 else None)
        axes.set_title(f"{method}, {wall:.1f} s", loc="left", fontsize=10)
        axes.set_yticks(range(len(threads[method])), [_short(name) for name in threads[method]], fontsize=8)
        axes.invert_yaxis()
    rows[0].legend(ncols=len(STAGES), fontsize=8, loc="lower right", bbox_to_anchor=(1, 1.05))
    rows[-1].set_xlabel(f"seconds of a merge, {shape} shape, {torch.get_num_threads()} cores")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=110)


def _short(thread: str) -> str:
    kind, _, number = thread.replace("ThreadPoolExecutor-", "checks ").partition("_")
    kind = kind.split(" ")[0] if kind.startswith("checks") else kind
    return "main" if thread == "MainThread" else f"{kind} {number}".strip()


if __name__ == "__main__":
    main()
