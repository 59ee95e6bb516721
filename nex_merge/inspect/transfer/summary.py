"""The effects of a transfer with intervals, as JSON and as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nex_merge.inspect.transfer.experiment import Transfer, Transplant
from nex_merge.inspect.transfer.outcomes import Outcome, differences, quantities
from nex_merge.terminal import console_of, echo, table
from nex_merge.wording import between, decimal

# Pairs of sets that are compared at the same number of neurons.
CONTRASTS = (("effective", "random"), ("effective", "redundant"), ("redundant", "random"), ("alike", "redundant"))


@dataclass(frozen=True)
class Effect:
    """The effect of a set of neurons on one measure, or the difference between the effects of two sets."""

    count: int
    neurons: str  # a set, or "set - other set"
    measure: str
    after: float | None  # mean over seeds; None: a difference between two sets
    change: float | None  # from the unmodified recipient, or the difference between two changes
    low: float | None  # 95 % bootstrap interval over problems and seeds
    high: float | None
    seeds: int


def compute_effects(
    found: Transfer, kinds: Sequence[str], contrasts: Sequence[tuple[str, str]] = CONTRASTS
) -> list[Effect]:
    """All effects and contrasts, by count, then set, then measure."""
    before = quantities([found.before], kinds)
    rows = []
    for count, sets in group_by_count(found.transplants).items():
        after = {name: quantities([item.outcome for item in items], kinds) for name, items in sets.items()}
        seeds = max(len(items) for items in sets.values())
        gaps = [(name, values, differences(values, before)) for name, values in after.items()]
        for one, other in contrasts:
            if one in after and other in after:
                gaps.append((f"{one} - {other}", {}, differences(after[one], after[other])))
        for name, values, changes in gaps:
            for measure, gap in changes.items():
                mean = values[measure].value if values else None  # a difference between two sets has none
                rows.append(Effect(count, name, measure, mean, gap.value, *gap.interval(), seeds))
    return rows


def group_by_count(transplants: Sequence[Transplant]) -> dict[int, dict[str, list[Transplant]]]:
    """count -> set -> its transplants, one per seed."""
    found: dict[int, dict[str, list[Transplant]]] = {}
    for item in transplants:
        found.setdefault(item.chosen.count, {}).setdefault(item.chosen.neurons, []).append(item)
    return found


def stability(items: Sequence[Transplant]) -> float | None:
    """Mean Jaccard overlap between the sets that different seeds chose; None for a single seed."""
    keys = [item.chosen.keys for item in items]
    pairs = [(a, b) for i, a in enumerate(keys) for b in keys[:i]]
    if not pairs:
        return None
    return float(np.mean([len(np.intersect1d(a, b)) / len(np.union1d(a, b)) for a, b in pairs]))


def as_mapping(found: Transfer, kinds: Sequence[str], about: Mapping[str, Any]) -> dict[str, Any]:
    """The data of --json."""

    def outcome(item: Outcome) -> dict[str, float | None]:
        return {name: quantity.value for name, quantity in quantities([item], kinds).items()}

    return {
        **about,
        "problems": len(kinds),
        "before": outcome(found.before),
        "donor": outcome(found.donor),
        "comparisons": [asdict(row) for row in compute_effects(found, kinds)],
        "transplants": [
            {
                "neurons": item.chosen.neurons,
                "count": item.chosen.count,
                "seed": item.chosen.seed,
                "layers": item.chosen.layers,
                "mean_norm": item.chosen.mean_norm,
                "mean_mass": item.chosen.mean_mass,
                "changed": item.changed,
                **outcome(item.outcome),
            }
            for item in found.transplants
        ],
    }


NOTES = (
    "change: from the unmodified recipient; set - other set: difference between two changes.",
    "95 %: paired bootstrap over problems and seeds.",
    "changed: norm of the change relative to copying all neurons; overlap: Jaccard overlap between seeds.",
)


def print_transfer(found: Transfer, kinds: Sequence[str], title: str) -> None:
    """The transfer as tables on stdout."""
    console = console_of()
    before, donor = quantities([found.before], kinds), quantities([found.donor], kinds)
    echo(title)
    rows = compute_effects(found, kinds)
    for measure in before:
        echo()
        form = {"tokens": ".1f", "entropy": ".4f"}.get(measure, ".3f")
        ends = (decimal(before[measure].value, form), decimal(donor[measure].value, form))
        echo(f"{measure}: recipient {ends[0]}, donor {ends[1]}")
        shown = table("count", "neurons", "after", "change", "95 %", left=("neurons",))
        for row in rows:
            if row.measure == measure:
                after = "" if " - " in row.neurons else decimal(row.after, form)
                interval = between(row.low, row.high, f"+{form}")
                shown.add_row(str(row.count), row.neurons, after, decimal(row.change, f"+{form}"), interval)
        console.print(shown)
    echo()
    echo("Copied neurons (means over seeds)")
    columns = ("count", "neurons", "norm", "mass", "changed", "overlap", "by layer")
    shown = table(*columns, left=("neurons", "by layer"))
    for count, sets in group_by_count(found.transplants).items():
        for name, items in sets.items():
            layers = ", ".join(
                f"{layer}: {np.mean([item.chosen.layers.get(layer, 0) for item in items]):.0f}"
                for layer in sorted({layer for item in items for layer in item.chosen.layers})
            )
            shown.add_row(
                str(count), name,
                f"{np.mean([item.chosen.mean_norm for item in items]):.3g}",
                f"{np.mean([item.chosen.mean_mass for item in items]):.0f}",
                f"{np.mean([item.changed for item in items]):.3f}",
                decimal(stability(items), ".2f"), layers,
            )  # fmt: skip
    console.print(shown)
    for line in NOTES:
        echo(line)
