"""The neurons of a trial as tables, as a mapping for JSON, and as a figure."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.inspect.neurons import Neurons, TrialNeurons
from nex_merge.nex.good_mass import EPSILON
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.terminal import console_of
from nex_merge.wording import counted

_GOOD, _BAD, _REST = "#2b6cb0", "#c05621", "#cbd5e0"
_SOURCES = {
    "self": "the trial's own responses",
    "crossfit": "all of the trial's own responses (scoring uses those of the other folds only)",
    "parents": "the responses of the baselines (base and parents)",
    "pool": "the responses of the baselines and all complete merges",
}


def as_mapping(found: TrialNeurons, top: int) -> dict[str, Any]:
    """The data of --json, with the top `top` neurons of either sign."""
    neurons = found.neurons
    return {
        "trial": found.trial,
        "calibration": found.scoring.calibration,
        "rho": found.scoring.rho,
        "min_run": found.scoring.min_run,
        "teachers": list(found.teachers),
        "effective": int(neurons.is_effective.sum()),
        "redundant": int((~neurons.is_effective).sum()),
        "layers": [dataclasses.asdict(layer) for layer in found.layers],
        "variants": list(found.variants),
        "top": {
            name: [_neuron(found, at) for at in neurons.ranked(name == "effective")[:top].tolist()]
            for name in ("effective", "redundant")
        },
        "overlaps": [dataclasses.asdict(item) for item in found.overlaps],
    }


def _neuron(found: TrialNeurons, at: int) -> dict[str, Any]:
    neurons = found.neurons
    return {
        "layer": int(neurons.layer[at]),
        "unit": int(neurons.unit[at]),
        "weight": float(neurons.weights[at]),
        "effective_credit": float(neurons.effective[at]),
        "redundant_credit": float(neurons.redundant[at]),
        "mass": float(neurons.masses[at]),
        "effective_in": int(found.effective_in[at]),
        "redundant_in": int(found.redundant_in[at]),
    }


def print_neurons(found: TrialNeurons, run: Path, top: int) -> None:
    """The neurons as tables on stdout; `run` is the run folder."""
    from rich.table import Table

    console = console_of()

    def say(text: str = "") -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(head: str, *rows: tuple[str, ...]) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in head.split("|"):
            table.add_column(column, justify="left" if column == "trial" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)

    neurons, scoring, variants = found.neurons, found.scoring, len(found.variants)
    good, bad = neurons.is_effective, ~neurons.is_effective
    say(f"{run}, {trial_name(found.trial)}: {good.sum()} effective and {counted(int(bad.sum()), 'redundant neuron')}")
    say(
        f"Weights: calibration {scoring.calibration}, from {_SOURCES[scoring.calibration]} (rho {scoring.rho:g}, "
        f"min_run {scoring.min_run})"
    )
    say()
    total = sum(layer.mass for layer in found.layers)
    show(
        "layer|effective|redundant|E credit|R credit|mass %|effective mass %|redundant mass %",
        *(
            (
                str(layer.layer), str(layer.effective), str(layer.redundant), f"{layer.effective_credit:.4g}",
                f"{layer.redundant_credit:.4g}", _percent(layer.mass, total),
                _percent(layer.effective_mass, layer.mass), _percent(layer.redundant_mass, layer.mass),
            )
            for layer in found.layers
        ),
    )  # fmt: skip
    for name in ("effective", "redundant"):
        order = neurons.ranked(name == "effective")
        say()
        say(f"Top {min(top, len(order))} of {len(order)} {name} neurons by |weight| x mass")
        show(
            f"layer|unit|weight|E credit|R credit|mass|mass %|effective in|redundant in (of {variants})",
            *(
                (
                    str(neurons.layer[at]), str(neurons.unit[at]), f"{neurons.weights[at]:+.4f}",
                    f"{neurons.effective[at]:.4g}", f"{neurons.redundant[at]:.4g}", f"{neurons.masses[at]:.4g}",
                    _percent(float(neurons.masses[at]), total), str(found.effective_in[at]),
                    str(found.redundant_in[at]),
                )
                for at in order[:top].tolist()
            ),
        )  # fmt: skip
    say()
    say("effective in, redundant in: number of scored variants, each under the credit of its own responses")
    if not found.overlaps:
        return
    shared = [item.jaccard for item in found.overlaps]
    above = sum(item.jaccard > item.chance_high for item in found.overlaps)
    say()
    say(
        f"Overlap of effective neurons with the other {counted(len(shared), 'variant')}, each under its own "
        f"credit: Jaccard "
        f"{min(shared):.3f} to {max(shared):.3f}, above chance for {above}"
    )
    show(
        "trial|effective|shared|Jaccard|chance|95 % of chance",
        *(
            (
                trial_label(item.trial), str(item.effective), str(item.shared), f"{item.jaccard:.3f}",
                f"{item.chance:.3f}", f"{item.chance_low:.3f}-{item.chance_high:.3f}",
            )
            for item in found.overlaps[:top]
        ),
    )  # fmt: skip
    say(
        "chance: random sets of the neurons active anywhere in the run, with equal numbers per layer. Active neurons "
        "earn credit more often, so some overlap above chance is expected."
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole > 0 else "-"


def draw_neurons(found: TrialNeurons, path: Path) -> None:
    """A PNG of four panels: mass and number of neurons by layer, credit, overlaps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((mass, counts), (scatter, overlap)) = pyplot.subplots(2, 2, figsize=(11, 8), dpi=130)
    neurons = found.neurons
    layers = [layer.layer for layer in found.layers]
    total = sum(layer.mass for layer in found.layers) or 1.0
    good = np.array([layer.effective_mass for layer in found.layers]) * 100 / total
    bad = np.array([layer.redundant_mass for layer in found.layers]) * 100 / total
    rest = np.array([layer.mass for layer in found.layers]) * 100 / total - good - bad
    mass.bar(layers, good, color=_GOOD, label="effective neurons")
    mass.bar(layers, bad, bottom=good, color=_BAD, label="redundant neurons")
    mass.bar(layers, rest, bottom=good + bad, color=_REST, label="no weight")
    mass.set(title="Activation mass by layer", xlabel="layer", ylabel="% of total mass")
    width = 0.4
    counts.bar([i - width / 2 for i in layers], [i.effective for i in found.layers], width, color=_GOOD)
    counts.bar([i + width / 2 for i in layers], [i.redundant for i in found.layers], width, color=_BAD)
    counts.set(title="Effective and redundant neurons by layer", xlabel="layer", ylabel="neurons")
    for axes in (mass, counts):
        axes.xaxis.get_major_locator().set_params(integer=True)
    _scatter(scatter, neurons)
    _overlap(overlap, found)
    handles, names = mass.get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=3, frameon=False, fontsize=9)
    names = {"self": "its own weights", "crossfit": "its own weights, all folds"}
    under = names.get(found.scoring.calibration, f"shared weights ({found.scoring.calibration})")
    figure.suptitle(f"Neurons of {trial_name(found.trial)} under {under}")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def _scatter(axes: Any, neurons: Neurons) -> None:
    """Effective against redundant credit; values below EPSILON, which affect no weight, are drawn at EPSILON."""
    floor, largest = EPSILON, float(max(neurons.effective.max(), neurons.redundant.max(), EPSILON))
    size = 2 + 40 * neurons.masses / (neurons.masses.max() or 1.0)
    for group, colour in ((neurons.is_effective, _GOOD), (~neurons.is_effective, _BAD)):
        axes.scatter(
            np.maximum(neurons.redundant[group], floor), np.maximum(neurons.effective[group], floor), size[group],
            color=colour, alpha=0.35, linewidths=0,
        )  # fmt: skip
    ends = [floor, largest * 1.5]
    axes.plot(ends, ends, color="#4a5568", linewidth=0.7, linestyle="--")
    axes.set(
        title="Credit of every neuron (dashed: w = 0; area: mass)", xscale="log", yscale="log",
        xlabel="redundant credit R (left edge: 1e-6 or less)", ylabel="effective credit E (lower edge: 1e-6 or less)",
    )  # fmt: skip


def _overlap(axes: Any, found: TrialNeurons) -> None:
    """Jaccard overlap with the other variants, and its chance interval."""
    shown = found.overlaps[:30][::-1]
    places = np.arange(len(shown))
    axes.barh(
        places, [i.chance_high - i.chance_low for i in shown], left=[i.chance_low for i in shown], height=0.8,
        color=_REST, label="chance, 95 %",
    )  # fmt: skip
    axes.plot([i.jaccard for i in shown], places, "o", color=_GOOD, markersize=4, label="observed")
    axes.set_yticks(places, [trial_label(i.trial) for i in shown], fontsize=7)
    axes.set(title="Effective neurons shared with other variants", xlabel="Jaccard overlap", ylabel="trial")
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.25)
    if shown:
        axes.legend(frameon=False, fontsize=8)
