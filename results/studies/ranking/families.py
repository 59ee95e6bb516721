"""The families, their variants, and the ways to score them."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from nex_merge.merging import method_specs
from nex_merge.setup.config import ActivationsConfig
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import passthrough, propose

HERE = Path(__file__).parents[1]
DATA = HERE.parent / "study_data"
FAMILIES = {
    "qwen3-tiny": ("nex_merge/families/qwen3_tiny/weights", ("pairs", "signs")),
    "diffs-signs": ("results/families/diffs-signs/shipped", ("diffs", "signs")),
    "pairs-triples": ("results/families/pairs-triples/shipped", ("pairs", "triples")),
    "diffs-triples": ("results/families/diffs-triples/shipped", ("diffs", "triples")),
}
# Made once consensus with copies counted once was settled, for figures that nothing was chosen on.
# `python -m toy.train --kinds signs triples --seed 4 --stages base signs triples`
LATER = {"signs-triples": ("results/families/signs-triples/shipped", ("signs", "triples"))}
HELD_OUT = "diffs-triples"
CHOSEN_ON = tuple(name for name in FAMILIES if name != HELD_OUT)
# Random draws from good to ruinous: weights go far beyond what merges well.
WIDE = {"low": 0.0, "high": 1.5}
SPACES: tuple[tuple[int, dict[str, Any]], ...] = (
    (8, {"methods": ["task_arithmetic"], "parameters": {"weight": WIDE}}),
    (10, {"methods": ["ties"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 1.0}}}),
    (6, {"methods": ["dare_ties"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 1.0}}}),
    (6, {"methods": ["della"],
         "parameters": {"weight": WIDE, "density": {"low": 0.25, "high": 0.85}, "epsilon": 0.1}}),
    (4, {"methods": ["breadcrumbs"], "parameters": {"weight": WIDE, "density": {"low": 0.2, "high": 0.95}}}),
    (3, {"methods": ["linear"], "parameters": {"weight": {"low": 0.05, "high": 1.0}}}),
    (3, {"methods": ["slerp"], "parameters": {"t": {"low": 0.0, "high": 1.0}}, "layer_groups": 3}),
)  # fmt: skip
PROMPTS_SEED, PROBLEMS_SEED = 1, 2
PROMPTS_PER_KIND = 32
SETTINGS = [
    ActivationsConfig(score=name, slice_tokens=width, top_k=k)
    for name in ("logit_contribution", "magnitude", "activation")
    for width in (5, 10)
    for k in (32, 64, 128)
]
# What the shipped configurations use for these families: the paper's score and calibration, with rows made shorter.
SHIPPED = ActivationsConfig(score="logit_contribution", slice_tokens=5, top_k=64)
CALIBRATIONS = ("self", "crossfit", "parents", "pool")
RHO, MIN_RUN = 0.95, 2


# Besides whole responses, scored under the same weights: the first and the last 32 rows of 5 tokens of each.
WINDOW_ROWS = 32
WINDOWS = ("first", "last")
WINDOWED = [setting for setting in SETTINGS if setting.slice_tokens == 5 and setting.top_k >= 64]


class Choice(NamedTuple):
    """One way to score."""

    setting: ActivationsConfig
    calibration: str
    window: str  # "": whole responses


def label(setting: ActivationsConfig) -> str:
    return f"{setting.score}/{setting.slice_tokens}/{setting.top_k}"


def recipes(folders: dict[str, Path]) -> dict[str, Any]:
    """base, parents and the 40 variants by name."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = {
        name: passthrough("base" if name == "base" else "parent", name, folder, "bfloat16")
        for name, folder in folders.items()
    }
    models, number = [name for name in folders if name != "base"], 0
    for count, space in SPACES:
        checked = load_space(space, method_specs(), models)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
        for _ in range(count):
            found[f"{number:04d}"] = propose(checked, folders, "bfloat16", study.ask(), 1000 + number)
            number += 1
    return found


def write_csv(name: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(HERE / name, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
