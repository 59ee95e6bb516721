"""Several trials at once: how busy workers are, what late knowledge costs a search, how fast two workers are.

python results/studies/scale.py busy         # seconds
python results/studies/scale.py late         # five minutes of a core
python results/studies/scale.py throughput   # five pairs of searches, on an idle machine with two cores

Each prints the rows of its table in scale.md.
"""

import heapq
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import optuna
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from nex_merge.study.samplers import MergeSampler, Start

HERE = Path(__file__).parent
DIMENSIONS = {"weight.a": (0.0, 1.2), "density.a": (0.1, 1.0), "weight.b": (0.0, 1.2), "density.b": (0.1, 1.0)}
FAMILIES = ("qwen3-tiny", "pairs-triples", "diffs-triples")


def recorded() -> dict[str, list[float]]:
    """What trials took, in seconds where they were kept, else in tokens a response, which they are near to."""
    variants = pd.read_csv(HERE / "ranking_variants.csv")
    merges = variants[variants.kind == "merge"]
    found = {name: merges[merges.family == name].mean_tokens.tolist() for name in FAMILIES[:2]}
    seconds = pd.read_csv(HERE / "pretrained_variants.csv")
    return found | {"SmolLM2": seconds[seconds.kind == "merge"].seconds.tolist()}


def busy(times: Sequence[float], workers: int, parallel: int, trials: int = 2000) -> float:
    """The share of time that workers are busy, where trial i begins once 0 … i-parallel are kept, in order."""
    draw = random.Random(0)
    free = [0.0] * workers
    kept: list[float] = []  # when each trial was kept
    work = 0.0
    for i in range(trials):
        took = draw.choice(times)
        begins = max(heapq.heappop(free), kept[i - parallel] if i >= parallel else 0.0)
        heapq.heappush(free, begins + took)
        kept.append(max(begins + took, kept[-1] if kept else 0.0))
        work += took
    return work / (workers * kept[-1])


def landscape(family: str) -> RandomForestRegressor:
    """A surrogate of accuracy by weights and densities, fitted on 40 recorded merges; a missing density is 1."""
    variants = pd.read_csv(HERE / "ranking_variants.csv")
    merges = variants[(variants.kind == "merge") & (variants.family == family)]
    rows, values = [], []
    for text, accuracy in zip(merges.parameters, merges.accuracy, strict=True):
        given = json.loads(text)
        weights = [value for key, value in given.items() if key.startswith("weight")]
        densities = [value for key, value in given.items() if key.startswith("density")] or [1.0, 1.0]
        if len(weights) == 2 and len(densities) == 2:
            rows.append([weights[0], densities[0], weights[1], densities[1]])
            values.append(accuracy)
    print(f"{family}: fitted on {len(rows)} merges", file=sys.stderr)
    return RandomForestRegressor(300, min_samples_leaf=2, random_state=0).fit(rows, values)


def best_of(surrogate: RandomForestRegressor, parallel: int, seed: int, trials: int = 64) -> float:
    """The best value among the trials of a study whose n-th knows 0 … n-parallel."""
    guess = {name: 0.5 for name in DIMENSIONS}
    sampler = MergeSampler("tpe", seed, Start([guess], {"ties": list(DIMENSIONS)}), parallel=parallel)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    open_: list[tuple[optuna.Trial, float]] = []
    best = 0.0
    for n in range(trials):
        if n >= parallel:
            study.tell(*open_[n - parallel])
        trial = study.ask()
        point = [trial.suggest_float(name, *bounds) for name, bounds in DIMENSIONS.items()]
        open_.append((trial, float(surrogate.predict([point])[0])))
        best = max(best, open_[-1][1])
    return best


def show_busy() -> None:
    print("| recorded trials | workers | parallel = N | 1.5 N | 2 N | 3 N | 4 N |\n|---|---|---|---|---|---|---|")
    for name, times in recorded().items():
        for workers in (1, 2, 4, 8, 16, 32, 64):
            shares = [busy(times, workers, max(workers, round(workers * factor))) for factor in (1, 1.5, 2, 3, 4)]
            print(f"| {name} | {workers} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")


def show_late() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        "| landscape | parallel | best of 64, mean over 20 seeds | less than with 1, 95 % interval |\n|---|---|---|---|"
    )
    for family in FAMILIES:
        surrogate = landscape(family)
        one: list[float] = []
        for parallel in (1, 4, 16, 64):
            found = [best_of(surrogate, parallel, seed) for seed in range(20)]
            one = one or found
            lost = np.array(one) - np.array(found)
            drawn = np.random.default_rng(0).choice(lost, (4000, len(lost))).mean(axis=1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            print(
                f"| {family} | {parallel} | {mean(found):.4f} | {lost.mean():.4f} ({low:.4f} to {high:.4f}) |",
                flush=True,
            )


def show_throughput(pairs: int = 5, merges: int = 12) -> None:
    """Merges a minute of whole searches with 1 worker (this process) and with 2, a thread each, in turns."""
    settings = ["study.parallel=4", f"study.trials={merges}", "prompts.limit=24"]
    rates: dict[str, list[float]] = {"1 worker": [], "2 workers": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(pairs):
            for name, found in rates.items():
                run = Path(folder) / "run"
                shutil.rmtree(run, ignore_errors=True)
                command = [sys.executable, "-m", "nex_merge", "search", "configs/qwen3_ties.yaml", "--out", str(run)]
                for item in (*settings, f"runtime.workers={name[0]}"):
                    command += ["--set", item]
                began = time.monotonic()
                subprocess.run(command, check=True, capture_output=True)
                found.append(60 * merges / (time.monotonic() - began))
    ratio = [two / one for one, two in zip(*rates.values(), strict=True)]
    for name, found in rates.items():
        print(f"| {name} | {median(found):.1f} | {', '.join(f'{rate:.1f}' for rate in found)} |")
    print(f"median of the ratios {median(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})")


if __name__ == "__main__":
    {"busy": show_busy, "late": show_late, "throughput": show_throughput}[sys.argv[1]]()
