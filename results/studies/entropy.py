"""How accuracy relates to token entropy, novelty and the share of exploring, over every variant of four families.

    python results/studies/entropy.py             # figures and picture, from entropy_variants.csv beside this file
    python results/studies/entropy.py variants    # make that CSV again from what does_nex_rank_merges.py measured

Whether accuracy follows an inverted U is asked as `nex-merge correlate` asks it: a parabola against a line, by AIC.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from nex_merge.labels.statistics import correlations, curve

HERE = Path(__file__).parent
TABLE = HERE / "entropy_variants.csv"
MEASURES = ("entropy", "entropy_spread", "novelty", "explore_share")
FAMILIES = ("qwen3-tiny", "diffs-signs", "pairs-triples", "diffs-triples")
FITTED, HELD_OUT = FAMILIES[:3], FAMILIES[3]


def write_variants() -> None:
    from ranking.families import SHIPPED
    from ranking.tables import Variants

    rows = []
    for family in FAMILIES:
        found = Variants(family)
        columns = {name: found.column(name) for name in ("entropy", "entropy_spread", "mean_tokens")}
        columns |= {name: found.setting_column(name, SHIPPED) for name in ("novelty", "explore_share")}
        for i, name in enumerate(found.names):
            about = {"family": family, "variant": name, "kind": found.about[name]["kind"]}
            about |= {"collapsed": int(found.collapsed[i]), "accuracy": round(float(found.accuracy[i]), 4)}
            rows.append(about | {key: round(float(values[i]), 5) for key, values in columns.items()})
    with open(TABLE, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_variants() -> list[dict[str, Any]]:
    with open(TABLE, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = ("family", "variant", "kind")
    return [{key: value if key in texts else float(value) for key, value in row.items()} for row in rows]


def columns(rows: list[dict[str, Any]], *names: str) -> list[np.ndarray]:
    return [np.array([row[name] for row in rows]) for name in names]


def given_tokens(x: np.ndarray, y: np.ndarray, tokens: np.ndarray) -> float:
    """Spearman of x and y once the ranks of both are freed of those of the mean tokens."""
    ranks = [rankdata(values) for values in (x, y, tokens)]
    freed = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    return float(np.corrcoef(*freed)[0, 1])


def pooled(rows: list[dict[str, Any]], measure: str, families: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(x, y): a measure in standard deviations of its family, accuracy less its family's mean."""
    xs, ys = [], []
    for family in families:
        x, y = columns([row for row in rows if row["family"] == family], measure, "accuracy")
        xs.append((x - x.mean()) / x.std())
        ys.append(y - y.mean())
    return np.concatenate(xs), np.concatenate(ys)


def explained(coefficients: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    """1 - residual / total sum of squares, about y's mean; below 0: worse than that mean."""
    return float(1 - np.square(y - np.polyval(coefficients, x)).sum() / np.square(y - y.mean()).sum())


def shape(x: np.ndarray, y: np.ndarray) -> str:
    found = curve(x, y)
    assert found is not None
    vertex = found["vertex"]
    turn = f"{vertex['value']:.3g} [{vertex['low']:.3g}, {vertex['high']:.3g}]"
    word = "yes" if found["inverted_u"] else "no"
    return f"{found['aic_linear']:.1f}, {found['aic_quadratic']:.1f} | {turn} | {word}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("all", "variants"), default="all")
    if parser.parse_args().part == "variants":
        write_variants()
    everything = read_variants()
    for what, rows in (("sound", [row for row in everything if not row["collapsed"]]), ("all", everything)):
        print(f"\n## {what}: {len(rows)} variants\n")
        print("| family | over | Spearman | given tokens | AIC linear, quadratic | vertex | inverted U |")
        print("|---|---|---|---|---|---|---|")
        for family in FAMILIES:
            own = [row for row in rows if row["family"] == family]
            for measure in MEASURES:
                x, y, tokens = columns(own, measure, "accuracy", "mean_tokens")
                item = correlations(x, y)["spearman"]
                rho = f"{item['value']:+.2f} [{item['low']:+.2f}, {item['high']:+.2f}]"
                print(f"| {family} | {measure} | {rho} | {given_tokens(x, y, tokens):+.2f} | {shape(x, y)} |")
        print("\n| three families together, over | AIC linear, quadratic | vertex | inverted U ", end="")
        print(f"| explained: line, parabola | on {HELD_OUT}: line, parabola |\n|---|---|---|---|---|---|")
        for measure in MEASURES:
            x, y = pooled(rows, measure, FITTED)
            held = pooled(rows, measure, (HELD_OUT,))
            fits = [np.polyfit(x, y, degree) for degree in (1, 2)]
            own = ", ".join(f"{explained(fit, x, y):.2f}" for fit in fits)
            other = ", ".join(f"{explained(fit, *held):.2f}" for fit in fits)
            print(f"| {measure} | {shape(x, y)} | {own} | {other} |")
    picture(everything)


def picture(rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(FAMILIES), len(MEASURES), figsize=(12, 10), layout="constrained", sharey="row")
    for line, family in zip(axes, FAMILIES, strict=True):
        own = [row for row in rows if row["family"] == family]
        sound = [row for row in own if not row["collapsed"]]
        for place, measure in zip(line, MEASURES, strict=True):
            for part, mark, colour in ((sound, "o", "#2b6cb0"), ([r for r in own if r["collapsed"]], "x", "#c05621")):
                x, y = columns(part, measure, "accuracy")
                place.scatter(x, y, s=16, marker=mark, color=colour, alpha=0.8)
            x, y = columns(sound, measure, "accuracy")
            grid = np.linspace(x.min(), x.max(), 100)
            place.plot(grid, np.polyval(np.polyfit(x, y, 2), grid), color="#4a5568", linewidth=1)
            place.grid(alpha=0.25)
            if family == FAMILIES[-1]:
                place.set_xlabel(measure.replace("_", " "))
        line[0].set_ylabel(f"{family}\naccuracy")
    figure.suptitle("Accuracy of 172 variants; o sound, x collapsed; the parabola is fitted to the sound ones")
    figure.savefig(HERE / "entropy.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
