"""The tables of the write-up, as Markdown on stdout."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ranking.families import CALIBRATIONS, CHOSEN_ON, FAMILIES, SHIPPED, WINDOWS, Choice

Row = dict[str, Any]


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_tables(rows: list[Row], choice: Choice, families: list[Any], stability: list[Row], curves: list[Row]) -> None:
    """Everything that the write-up shows, from the rows of the CSV files."""
    nex = [row for row in rows if row["what"] == "nex"]
    sound = [row for row in nex if row["variants"] == "sound"]
    families_table(families)
    for window in ("", *WINDOWS):
        calibrations_table([row for row in sound if row["window"] == window], window)
    ways = {
        "NEX, paper: logit_contribution, 64, `self`": Choice(SHIPPED, "self", ""),
        **{
            f"NEX, chosen setting ({choice.setting.score}, {choice.setting.slice_tokens}, {choice.setting.top_k}), "
            f"`{calibration}`{f', {window} rows' if window else ''}": Choice(choice.setting, calibration, window)
            for window in dict.fromkeys(["", choice.window])
            for calibration in CALIBRATIONS
        },
    }
    print("chosen:", choice)
    agreement_table(rows, ways, choice)
    reliability_table(stability)
    curves_table(curves)


def families_table(families: list[Any]) -> None:
    def line(v: Any) -> list[str]:
        merge = np.array([about["kind"] == "merge" for about in v.about.values()])
        accuracy = v.accuracy[merge]
        own = [f"{v.about[name]['accuracy']:.2f}" for name in ("base", *FAMILIES[v.family][1])]
        gone = v.accuracy[v.collapsed]
        return [v.family, str(merge.sum()), f"{accuracy.min():.2f} to {accuracy.max():.2f}", ", ".join(own),
                str(len(gone)), f"{gone.max():.2f}" if len(gone) else "-"]  # fmt: skip

    table(["family", "merges", "accuracy of merges", "base, experts", "collapsed", "best accuracy among collapsed"],
          [line(v) for v in families])  # fmt: skip


def calibrations_table(rows: list[Row], window: str) -> None:
    print(f"rows scored: {window or 'all'}")

    def line(calibration: str) -> list[str]:
        cells: list[str] = []
        for family in CHOSEN_ON:
            values = [r["spearman"] for r in rows if r["family"] == family and r["calibration"] == calibration]
            cells.append(f"{np.median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})")
        for key, form in (("spearman_with_tokens", "+.2f"), ("spearman_given_tokens", "+.2f"), ("auc_within", ".2f")):
            medians = [
                np.median([r[key] for r in rows if r["family"] == family and r["calibration"] == calibration])
                for family in CHOSEN_ON
            ]
            cells.append(", ".join(format(value, form) for value in medians))
        return [f"`{calibration}`", *cells]

    table(["calibration", *CHOSEN_ON, "with mean tokens", "given mean tokens", "AUC of responses"],
          [line(calibration) for calibration in CALIBRATIONS])  # fmt: skip


def agreement_table(rows: list[Row], ways: dict[str, Choice], choice: Choice) -> None:
    def cells(wanted: list[Row]) -> list[str]:
        found = {row["family"]: row for row in wanted if row["variants"] == "sound"}
        return [
            f"{r['spearman']:+.2f} [{r['spearman_low']:+.2f}, {r['spearman_high']:+.2f}], {r['regret_1']:.2f}"
            if (r := found.get(family)) and r["spearman"] is not None
            else "-"
            for family in FAMILIES
        ]

    def of(setting: Any, row: Row) -> bool:
        return (row["score"], row["slice_tokens"], row["top_k"]) == (setting.score, setting.slice_tokens, setting.top_k)

    lines = []
    for name, way in ways.items():
        wanted = [
            r for r in rows
            if r["what"] == "nex" and of(way.setting, r) and (r["calibration"], r["window"]) == way[1:]
        ]  # fmt: skip
        lines.append([name, *cells(wanted)])
    signs = {row["what"]: row["sign"] for row in rows if row["what"] != "nex"}
    for rival, sign in signs.items():
        wanted = [r for r in rows if r["what"] == rival and ("score" not in r or of(choice.setting, r))]
        lines.append([f"{'-' if sign < 0 else ''}{rival}", *cells(wanted)])
    table(["", *FAMILIES], lines)


def reliability_table(stability: list[Row]) -> None:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    counts = sorted({row["prompts"] for row in stability})
    lines = [
        [str(count), *(
            "; ".join(number(r["split_half"]) for r in stability if r["prompts"] == count and r["family"] == family)
            for family in FAMILIES
        )]
        for count in counts
    ]  # fmt: skip
    table(["prompts", *FAMILIES], lines)


def curves_table(curves: list[Row]) -> None:
    table(
        ["family", "over", "AIC linear, quadratic", "vertex", "inverted U"],
        [
            [c["family"], c["over"], f"{c['aic_linear']:.1f}, {c['aic_quadratic']:.1f}",
             f"{c['vertex_value']:.3g} [{c['vertex_low']:.3g}, {c['vertex_high']:.3g}]",
             "yes" if c["inverted_u"] else "no"]
            for c in curves
        ],
    )  # fmt: skip
