"""Measure the family: accuracy of its members and of a grid of merges, and the length and phases of responses.

    python -m toy.measure --out figures.json

The source of the figures in the family's README. Grid merges are merged as in a search.
"""

import argparse
import json
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.families.qwen3_tiny.problems import KINDS, Problem, make_problems
from nex_merge.records import MergeRecipe, Prompt
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PhasesConfig,
    PromptsConfig,
    RuntimeConfig,
    find_file,
)
from nex_merge.setup.families import open_family, read_family
from nex_merge.setup.prompts import load_prompts
from nex_merge.study.proposal import MERGE_DTYPE, passthrough

# The search's prompts use seed 1, `correlate --accuracy builtin` seed 2.
SEED = 3
GRID = (0.25, 0.5, 0.75, 1.0)
BATCH_TOKENS = 131_072


class Bench:
    """The family's resident model and encoded problems."""

    def __init__(self, per_kind: int) -> None:
        self.family = open_family("qwen3-tiny", None)
        self.engine = FamilyEngine(self.family, RuntimeConfig(device="cpu", dtype="float32"))
        defaults = read_family("qwen3-tiny")[0].defaults
        self.generation = GenerationConfig(**defaults["generation"], batch_tokens=BATCH_TOKENS)
        self.activations = ActivationsConfig(**defaults["activations"])
        self.problems: list[Problem] = [p for kind in KINDS for p in make_problems(kind, per_kind, SEED)]
        prompts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in self.problems]
        self.encoded = self.engine.encode(prompts, PromptsConfig(file=""), self.generation.max_new_tokens)

    def load(self, name: str) -> None:
        self.engine.load(passthrough("parent", name, self.family.folders[name], "bfloat16"))

    def accuracy(self) -> dict[str, float]:
        """Exact-match accuracy of the loaded variant by kind of problem and overall, and its mean response length."""
        settings = ObserveSettings(self.generation, None, PhasesConfig())
        responses = observe(self.engine, self.encoded, settings).responses
        right = np.array([p.is_right(r.text) for p, r in zip(self.problems, responses, strict=True)])
        kinds = np.array([p.kind for p in self.problems])
        tokens = np.array([len(r.token_ids) for r in responses])
        found = {kind: float(right[kinds == kind].mean()) for kind in KINDS}
        return {**found, "both": float(right.mean()), "tokens": float(tokens.mean())}

    def grid_recipe(self, pairs: float, signs: float) -> MergeRecipe:
        folders = {name: str(folder) for name, folder in self.family.folders.items()}
        models = [{"model": folders[n], "parameters": {"weight": w}} for n, w in (("pairs", pairs), ("signs", signs))]
        config = {
            "merge_method": "task_arithmetic",
            "base_model": folders["base"],
            "models": models,
            "dtype": MERGE_DTYPE,
            "out_dtype": "bfloat16",
        }
        return MergeRecipe("merge", "task_arithmetic", config, 0)

    def phases(self) -> dict[str, Any]:
        """Rows, cycles and the decay of novelty of the loaded variant on the search's prompts."""
        file = find_file("configs/prompts/qwen3_tiny.jsonl")
        prompts = PromptsConfig(file=str(file))
        encoded = self.engine.encode(load_prompts(prompts), prompts, self.generation.max_new_tokens)
        observed = observe(
            self.engine, encoded, ObserveSettings(self.generation, self.activations, PhasesConfig(rho=0.95, min_run=2))
        )
        assert observed.rows is not None and observed.analyses is not None and observed.phases is not None
        cycles = observed.phases.cycles
        quarters = [
            [float(np.mean(part)) for part in np.array_split(a.novelty.slopes, 4)]
            for a in observed.analyses
            if a.novelty is not None
        ]
        return {
            "tokens": float(np.mean([len(r.token_ids) for r in observed.responses])),
            "rows": float(np.mean(np.diff(observed.rows.sample_row_ptr))),
            "cycles": float(cycles.mean()),
            "two_cycles": float((cycles >= 2).mean()),
            "credited": float(observed.phases.credited.mean()),
            "novelty_by_quarter": np.mean(quarters, axis=0).round(2).tolist(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=256, help="number of fresh problems of each kind")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    began = time.monotonic()
    bench = Bench(args.problems)
    figures: dict[str, Any] = {"problems": 2 * args.problems, "members": {}, "phases": {}, "grid": []}
    for name in bench.family.folders:
        bench.load(name)
        figures["members"][name] = bench.accuracy()
        figures["phases"][name] = bench.phases()
        print(name, figures["members"][name], figures["phases"][name], flush=True)
    for pairs, signs in product(GRID, GRID):
        bench.engine.load(bench.grid_recipe(pairs, signs))
        figures["grid"].append({"weight.pairs": pairs, "weight.signs": signs, **bench.accuracy()})
        print(figures["grid"][-1], flush=True)
    figures["seconds"] = time.monotonic() - began
    if args.out is not None:
        args.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
