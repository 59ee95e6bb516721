"""Several trials at once: how busy workers are, what late knowledge costs a search, how fast two workers are; plans.

python results/studies/scale.py busy         # seconds
python results/studies/scale.py late         # five minutes of a core
python results/studies/scale.py throughput   # five pairs of searches, on an idle machine with two cores
python results/studies/scale.py searches FAMILY FOLDER KIND KIND   # ten whole searches of a toy family, half an hour
python results/studies/scale.py plans        # seconds; computed

Each prints the rows of its table in scale.md. `searches` takes a folder with `base` and a model for each kind, as
`python -m toy.train --kinds pairs triples --seed 3 --stages base pairs triples` makes them; what is done is kept in
results/study_data/scale and not done again.
"""

import heapq
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import optuna
import pandas as pd
import torch
from sklearn.ensemble import RandomForestRegressor
from transformers import Qwen3Config, Qwen3ForCausalLM

from nex_merge.generation import AUTO_BATCH_BYTES, BUFFER_SHARE, token_bytes
from nex_merge.merging import rank_bytes
from nex_merge.setup.config import ActivationsConfig
from nex_merge.study.estimate import _ENTRY_BYTES, _PROCESS
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


def pick_of(root: Path, kinds: Sequence[str], parallel: int, seed: int, out: Path) -> tuple[str, float]:
    """The pick of a whole search by consensus, and its accuracy on 256 problems of each kind that no search saw."""
    import nex_merge
    from nex_merge.families.qwen3_tiny.problems import make_problems
    from nex_merge.labels.benchmark import benchmark
    from nex_merge.labels.item_grader import ItemGrader
    from nex_merge.labels.items import Item
    from nex_merge.records import Prompt
    from nex_merge.runs.leaderboard import best_merge
    from nex_merge.runs.run import RunFolder

    prompts = out.with_suffix(".jsonl")
    prompts.parent.mkdir(parents=True, exist_ok=True)
    problems = [problem for kind in kinds for problem in make_problems(kind, 16, 1000 + seed)]
    prompts.write_text("".join(json.dumps({"prompt": problem.prompt}) + "\n" for problem in problems))
    settings = {
        "family": {"base": str(root / "base"), "models": {kind: str(root / kind) for kind in kinds}},
        "search_space": "ties", "prompts": {"file": str(prompts)}, "generation": {"max_new_tokens": 640},
        "study": {"objective": "consensus", "trials": 32, "seed": seed, "parallel": parallel},
        "activations": {"capture": "none"}, "output": str(out),
    }  # fmt: skip
    nex_merge.search(settings)
    run = RunFolder(out)
    trial = best_merge(run).trial
    held_out = [problem for kind in kinds for problem in make_problems(kind, 256, 2)]
    texts = [Prompt(({"role": "user", "content": problem.prompt},), problem.prompt) for problem in held_out]
    items = [Item(text, p.answer, p.is_right, p.kind) for text, p in zip(texts, held_out, strict=True)]
    benchmark(run, ItemGrader(items, "held out"), [trial], lambda text: None)
    return trial, json.loads((out / "trials" / trial / "accuracy.json").read_text())["accuracy"]


def show_searches(name: str, root: str, *kinds: str) -> None:
    """Picks of searches with L = 1 and 8, of the same seeds and prompts, in turns."""
    data = HERE.parent / "study_data" / "scale" / name
    one, eight = [], []
    for seed in range(5):
        for parallel, found in ((1, one), (8, eight)):
            kept = data / f"{parallel}-{seed}.json"
            if not kept.exists():
                trial, accuracy = pick_of(Path(root), kinds, parallel, seed, data / f"{parallel}-{seed}")
                kept.write_text(json.dumps([trial, accuracy]))
            found.append(json.loads(kept.read_text())[1])
        print(f"{name}, seed {seed}: {one[-1]:.3f} with L = 1, {eight[-1]:.3f} with L = 8", flush=True)
    lost = np.array(one) - np.array(eight)
    spread = f"{lost.mean():+.3f} ({lost.min():+.3f} to {lost.max():+.3f})"
    print(f"| {name} | {mean(one):.3f} | {mean(eight):.3f} | {spread} |")


# Of the public config.json of Qwen3-4B, -8B and -32B. All: 151,936 tokens, 8 heads of keys and values, heads of 128.
QWEN3 = {
    "4B": dict(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32),
    "8B": dict(hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36, num_attention_heads=32),
    "32B": dict(hidden_size=5120, intermediate_size=25_600, num_hidden_layers=64, num_attention_heads=64),
}
TIED = ("4B",)  # output layer and embeddings are one
VOCABULARY, KEY_HEADS, HEAD = 151_936, 8, 128
MEMBERS, PROMPTS, PROMPT_TOKENS, TOKENS = 3, 64, 128, 1024  # a prompt's tokens are assumed
# Seconds of a trial of the 4B shape by task arithmetic, 64 x 256 tokens, on an H200, speed_accelerator.json
MERGE, GENERATE, CAPTURE, MEASURED_TOKENS = 12.5, 7.6, 3.4, 256
# Bytes of a variant of the tour besides its rows' size, docs/costs.md: its credit by its rows, and text by a token.
CREDIT, TEXT = 162 / 750, 12


@dataclass(frozen=True)
class Plan:
    """What a family of a size takes. Sizes in bytes."""

    parameters: int
    layers: int
    at_once: int  # responses in a batch
    keys_values: int
    merging: int  # on the host

    @property
    def weights(self) -> int:
        """In bfloat16."""
        return 2 * self.parameters

    def trial(self, four: "Plan", at_once: int | None = None) -> tuple[float, float]:
        """Seconds of a trial: where a pass takes what its layers take to launch, and where its parameters do."""
        more = self.parameters / four.parameters
        waves = math.ceil(PROMPTS / (at_once or self.at_once))
        generate = GENERATE * waves * TOKENS / MEASURED_TOKENS
        rest = MERGE * more + CAPTURE * more * TOKENS / MEASURED_TOKENS
        return generate * self.layers / four.layers + rest, generate * more + rest


def plan_of(size: str) -> Plan:
    """By the product's own rules for batches and memory."""
    config = Qwen3Config(
        **QWEN3[size], vocab_size=VOCABULARY, num_key_value_heads=KEY_HEADS, head_dim=HEAD,
        tie_word_embeddings=size in TIED,
    )  # fmt: skip
    with torch.device("meta"):
        shapes = [parameter.shape for parameter in Qwen3ForCausalLM(config).parameters()]
    longest = PROMPT_TOKENS + TOKENS
    at_once = min(PROMPTS, AUTO_BATCH_BYTES // token_bytes(config, 2) // longest)
    keys_values = int(BUFFER_SHARE * at_once * longest * token_bytes(config, 2))
    merging = 4 * max(map(math.prod, shapes)) * (MEMBERS - 1 + 2)  # as `estimate` has it
    return Plan(sum(map(math.prod, shapes)), config.num_hidden_layers, at_once, keys_values, merging)


def variant_bytes() -> tuple[int, int]:
    """Of a variant in the run folder at most: with activations by row, and without."""
    defaults = ActivationsConfig()
    rows = PROMPTS * math.ceil(TOKENS / defaults.slice_tokens) * defaults.top_k * _ENTRY_BYTES // 2
    text = PROMPTS * TOKENS * TEXT
    return int(2 * rows + CREDIT * rows + text), int(rows + CREDIT * rows + text)


def between(ends: Sequence[float]) -> str:
    """A range with two significant digits, or more before the point; one figure where both ends are the same."""
    low, high = (f"{end:.0f}" if end >= 10 else f"{end:.2g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def show_plans() -> None:
    plans = {size: plan_of(size) for size in QWEN3}
    print("| | " + " | ".join(plans) + " |\n|---|" + "---|" * len(plans))
    for what, value in {
        "parameters": lambda p: f"{p.parameters / 1e9:.2f} x 10^9",
        "GPU: resident weights": lambda p: f"{p.weights / 1e9:.1f} GB",
        "GPU: keys and values": lambda p: f"{p.keys_values / 1e9:.1f} GB ({p.at_once} responses at once)",
        "GPU: together": lambda p: f"{(p.weights + p.keys_values) / 1e9:.1f} GB",
        "GPU: in the rehearsal": lambda p: f"{2 * p.weights / 1e9:.1f} GB",
        "host: parents, mapped, once a node": lambda p: f"{MEMBERS * p.weights / 1e9:.0f} GB",
        "host: a merge, each worker": lambda p: f"{(p.merging + _PROCESS) / 1e9:.1f} GB",
        "disk: checkpoints": lambda p: f"{MEMBERS * p.weights / 1e9:.0f} GB",
        "disk: sorted weights (TIES), once a node": lambda p: (
            f"{sum(rank_bytes('ties').values()) * (MEMBERS - 1) * p.parameters / 1e9:.0f} GB"
        ),
        "a trial": lambda p: f"{between(p.trial(plans['4B']))} s",
        "a trial with all prompts in one batch": lambda p: f"{between(p.trial(plans['4B'], PROMPTS))} s",
    }.items():
        print(f"| {what} | " + " | ".join(map(value, plans.values())) + " |")
    whole, bare = variant_bytes()
    print(f"\nrun folder: {whole / 1e6:.1f} MB a variant, {bare / 1e6:.1f} MB without rows\n")
    print(f"| trials | tokens | run folder | GPUs | busy | {' | '.join(f'{size}, hours' for size in plans)} |")
    print("|---|---|---|---|---|" + "---|" * len(plans))
    for trials in (40, 400):
        tokens, folder = ((trials + MEMBERS) * each for each in (PROMPTS * TOKENS, whole))
        for gpus in (1, 8, 64):
            share = busy(recorded()["SmolLM2"], gpus, 2 * gpus, trials)
            # Base answers alone, then the parents at once, if there are two GPUs.
            rounds = trials / (gpus * share) + (3 if gpus == 1 else 2)
            hours = (between([s * rounds / 3600 for s in plan.trial(plans["4B"])]) for plan in plans.values())
            cells = [f"{tokens / 1e6:.1f} x 10^6", f"{folder / 1e9:.1f} GB", gpus, f"{share:.2f}", *hours]
            print(f"| {trials} | {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    modes = {
        "busy": show_busy, "late": show_late, "throughput": show_throughput, "searches": show_searches,
        "plans": show_plans,
    }  # fmt: skip
    modes[sys.argv[1]](*sys.argv[2:])
