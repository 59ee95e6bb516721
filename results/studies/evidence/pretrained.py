"""The pretrained family's variants, from the CSV files of pretrained_family.py."""

import csv
from pathlib import Path

import numpy as np

from evidence.pools import Pool, rank_correlation, regret

HERE = Path(__file__).parents[1]
# Oriented so that more is better, as the measures are.
RIVALS = {"nex": 1, "entropy": -1, "self_certainty": 1, "mean_tokens": -1, "truncated": -1}


def load() -> tuple[Pool, list[dict[str, str]]]:
    """The pool, and the variants' rows in its order."""
    with open(HERE / "pretrained_variants.csv", newline="", encoding="utf-8") as file:
        variants = list(csv.DictReader(file))
    conclusions: dict[str, dict[int, list[str | None]]] = {row["variant"]: {} for row in variants}
    truths: dict[int, str | None] = {}
    with open(HERE / "pretrained_conclusions.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truths[int(row["prompt"])] = row["gold"]
            if row["variant"] in conclusions:
                conclusions[row["variant"]][int(row["prompt"])] = [row["conclusion"] or None]
    accuracy = np.array([float(row["accuracy"]) for row in variants])
    return Pool(list(conclusions), list(conclusions.values()), truths, accuracy), variants


def rivals(variants: list[dict[str, str]], accuracy: np.ndarray) -> dict[str, tuple[float | None, float]]:
    """(Spearman with accuracy, regret of the top pick) of other measures."""
    found = {}
    for name, sign in RIVALS.items():
        x = sign * np.array([float(row[name]) if row[name] else np.nan for row in variants])
        found[name] = rank_correlation(x, accuracy), regret(x, accuracy)
    return found
