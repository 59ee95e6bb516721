"""Do longer responses, or finished ones, go with accuracy? On published figures of 28 Qwen3 models.

    python results/studies/length_and_finishing.py        # prints the tables of docs/length-and-finishing.md

mi_qwen3_merges.csv has the published figures of arXiv 2510.10977, Tables 2 and 5: accuracy in percent, mean tokens, and
the percentage of responses that close their thinking, of the Qwen3-4B and Qwen3-30B-A3B Instruct and Thinking 2507
models and merges of the two. MI-0.6 is an interpolation with weight 0.6 for the Thinking model.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nex_merge.labels.statistics import correlations

FIGURES = Path(__file__).with_name("mi_qwen3_merges.csv")
COMPARED = {"tokens": "tokens", "closes its thinking": "think_ratio_pct"}
WEIGHT = "weight of Thinking"
ENDS = {"Instruct": 0.0, "Thinking": 1.0}


def read(file: Path = FIGURES) -> list[dict[str, str]]:
    """The published figures; of models that interpolate between Instruct and Thinking, these included, with WEIGHT."""
    with open(file, newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        kind, _, weight = row["variant"].partition("-")
        if kind == "MI" or row["variant"] in ENDS:
            row[WEIGHT] = weight or str(ENDS[kind])
    return rows


def correlation_table(rows: Sequence[Mapping[str, str]], compared: Mapping[str, str]) -> str:
    """Spearman with accuracy, and its 95 % bootstrap interval over models, as a Markdown table.

    compared: label -> column.
    """
    # "AIME25 mean@64/pass@64" -> "AIME25"
    benchmarks = list(dict.fromkeys(row["benchmark"].split()[0] for row in rows))
    printed = [f"| models | | {' | '.join(benchmarks)} |", "|---|---|" + "---|" * len(benchmarks)]
    for family in dict.fromkeys(row["family"] for row in rows):
        models = len({row["variant"] for row in rows if row["family"] == family})
        for label, column in compared.items():
            cells = []
            for benchmark in benchmarks:
                part = [row for row in rows if row["family"] == family and row["benchmark"].split()[0] == benchmark]
                x, y = (np.array([float(row[name]) for row in part]) for name in (column, "mean_acc"))
                found = correlations(x, y)["spearman"]
                cells.append(f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]")
            printed.append(f"| {family.split()[0]} ({models}) | {label} | {' | '.join(cells)} |")
    return "\n".join(printed)


def tables() -> tuple[str, str]:
    """Of all models, and of the interpolations, where the weight alone is compared as well."""
    rows = read()
    interpolated = [row for row in rows if WEIGHT in row]
    return correlation_table(rows, COMPARED), correlation_table(interpolated, {**COMPARED, WEIGHT: WEIGHT})


if __name__ == "__main__":
    print("\n\n".join(tables()))
