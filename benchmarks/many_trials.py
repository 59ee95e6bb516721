"""What a search itself takes, and whether that grows with its trials: an engine that takes no time, and no model.

    python -m benchmarks.many_trials [TRIALS...] [--profile]     # 100 300 1000

Searches the space of configs/qwen3_ties.yaml for the objectives nex and consensus, with one short response to each of
eight prompts, every search in a process of its own. Seconds are the process's own on the CPU, which other processes on
the same cores hardly change; those of a trial are means over the last twenty trials. Writes
results/studies/many_trials.csv; with --profile, prints instead which functions the time of a search goes to.
"""

import argparse
import cProfile
import csv
import hashlib
import multiprocessing
import pstats
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from functools import wraps
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.measured import PeakMemory
from nex_merge.engines.contracts import Captured, Engine
from nex_merge.records import MergeRecipe, Response, SparseGroups, SparseRows, TokenStats
from nex_merge.report import write_report
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.optuna_study import MergeStudy
from nex_merge.study.search import run_search
from nex_merge.study.trial import TrialRunner

OUT = Path("results/studies/many_trials.csv")
CONFIG = "configs/qwen3_ties.yaml"
TRIALS = (100, 300, 1000)
SETTINGS: dict[str, dict[str, Any]] = {
    "nex": {},
    "consensus": {"study": {"objective": "consensus"}, "activations": {"capture": "none"}},
}
PROMPTS, LAST = 8, 20
# What of a search is timed: the column, and the method that does it.
TIMED = {"ask": (MergeStudy, "proposal"), "finish": (TrialRunner, "finish"), "tell": (MergeStudy, "tell")}


class Steady(Engine):
    """Answers and activations follow from the recipe; better recipes say more often what the others say."""

    def load(self, recipe: MergeRecipe) -> str:
        named = re.sub(r"'[^']*/", "'", repr(sorted(recipe.config.items())))  # wherever the models are
        found = hashlib.sha256(named.encode()).hexdigest()
        self._seed = int(found[:8], 16)
        return found

    def encode(self, prompts: Any, config: Any, max_new_tokens: int) -> list[list[int]]:
        return [[10 + i] for i in range(len(prompts))]

    def answer(
        self, prompts: Any, config: Any, drafts: Any = (), notify: Any = None, only: Any = None
    ) -> list[Response]:
        rng = np.random.default_rng(self._seed)
        said = np.where(rng.random(len(prompts)) < rng.uniform(0.2, 0.9), 1, rng.integers(10, size=len(prompts)))
        return [
            Response(i, 0, tuple(ids), (n, 20, 21, 22, 23, 24), f"The answer is {n}.", False)
            for i, (ids, n) in enumerate(zip(prompts, said.tolist(), strict=True))
            if only is None or i in only
        ]

    def capture(self, responses: Any, config: Any, notify: Any = None) -> Captured:
        """Six rows of one token and 40 neurons for every response."""
        rows, neurons, count = 6, 40, len(responses)
        rng = np.random.default_rng(self._seed)
        keys = np.sort(rng.permuted(np.tile(np.arange(200, dtype=np.uint32), (rows * count, 1)), axis=1)[:, :neurons])
        groups = []
        for width in (neurons, neurons * rows):
            found = keys if width == neurons else np.sort(keys.reshape(count, -1), axis=1)
            groups.append(_groups(found, rng))
        return Captured(
            SparseRows(np.arange(0, rows * count + 1, rows), np.arange(rows * count + 1), *groups),
            [TokenStats(0.5, 0.1, 2.0, -0.4)] * count, 200,
        )  # fmt: skip

    def logits(self, token_ids: Any, last: int = 0) -> np.ndarray:
        return np.eye(64, dtype=np.float32)[list(token_ids)[-last:]]


def _groups(keys: np.ndarray, rng: np.random.Generator) -> SparseGroups:
    """Groups of the distinct keys of every line of uint32 [groups, keys], with masses."""
    distinct = [np.unique(line) for line in keys]
    masses = rng.random(sum(map(len, distinct))).astype(np.float16)
    return SparseGroups(np.cumsum([0, *map(len, distinct)]), np.concatenate(distinct), masses)


def on_the_cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds of this process on the CPU, what the work gives)"""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def clocked(method: Callable[..., Any], spent: list[float], begun: list[float]) -> Callable[..., Any]:
    """A method that keeps how long its calls took, and when they began, in seconds on the CPU."""

    @wraps(method)
    def timing(*args: Any, **kwargs: Any) -> Any:
        begun.append(time.process_time())
        seconds, found = on_the_cpu(lambda: method(*args, **kwargs))
        spent.append(seconds)
        return found

    return timing


def one_search(objective: str, trials: int, profile: bool = False) -> dict[str, Any]:
    """Seconds on the CPU, and megabytes, of a search from its start to its report."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        given = SETTINGS[objective]
        study = {**given.get("study", {}), "trials": trials}
        plan = resolve_config(CONFIG, {"output": str(out), "prompts": {"limit": PROMPTS}, **given, "study": study})
        spent: dict[str, list[float]] = defaultdict(list)
        begun: dict[str, list[float]] = defaultdict(list)
        profiler = cProfile.Profile(time.process_time)
        with ExitStack() as stack, PeakMemory() as peak:
            for name, (owner, method) in TIMED.items():
                stack.enter_context(
                    patch.object(owner, method, clocked(getattr(owner, method), spent[name], begun[name]))
                )
            began = time.process_time()
            (profiler.runcall if profile else (lambda work, *args: work(*args)))(run_search, plan, False, (), Steady())
            whole = time.process_time() - began
            run = RunFolder(out)
            leaderboard, _ = on_the_cpu(lambda: rescore_run(run, run.config.nex))
            report, _ = on_the_cpu(
                lambda: write_report(run, out / "report.html", datetime.now().astimezone(), lambda text: None)
            )
        if profile:
            pstats.Stats(profiler).sort_stats("cumulative").print_stats("nex_merge|optuna|scipy|copy", 45)
        asked = begun["ask"][:trials]
        return {
            "objective": objective, "trials": trials, "start_s": asked[0] - began,
            **{f"{name}_s": mean(seconds[:trials][-LAST:]) for name, seconds in spent.items()},
            "trial_s": (asked[-1] - asked[-LAST - 1]) / LAST, "search_s": whole,
            "leaderboard_s": leaderboard, "report_s": report, "peak_mb": peak.resident / 1e6,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", type=int, default=list(TRIALS))
    parser.add_argument("--objective", choices=list(SETTINGS), action="append")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    rows = []
    for objective in args.objective or SETTINGS:
        for trials in args.trials:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                rows.append(alone.submit(one_search, objective, trials, args.profile).result())
            print(
                *(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                sep=", ",
                flush=True,
            )
    if args.profile:
        return
    with args.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
