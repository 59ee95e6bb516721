"""The neurons of a trial as tables, as a mapping for JSON, and as a figure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nex_merge.inspect.neurons import Neurons, TrialNeurons
from nex_merge.nex.good_mass import EPSILON
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.terminal import console_of, echo, table
from nex_merge.wording import counted

_GOOD, _BAD, _REST = "#2b6cb0", "#c05621", "#cbd5e0"
SIGNS = ("effective", "redundant")
_SOURCES = {
    "self": "the trial's own responses",
    "crossfit": "all of the trial's own responses (scoring uses those of the other folds only)",
    "parents": "the responses of the baselines (base and parents)",
    "pool": "the responses of the baselines and all complete merges",
}


def as_mapping(found: TrialNeurons, top: int) -> dict[str, Any]:
    """The data of --json, with the top `top` neurons of either sign."""
    is_effective = found.neurons.is_effective
    return {
        "trial": found.trial,
        "calibration": found.scoring.calibration,
        "rho": found.scoring.rho,
        "min_run": found.scoring.min_run,
        "teachers": found.teachers,
        "effective": int(is_effective.sum()),
        "redundant": int((~is_effective).sum()),
        "layers": [asdict(layer) for layer in found.layers],
        "variants": found.variants,
        "top": {sign: [asdict(item) for item in found.top(sign == "effective", top)] for sign in SIGNS},
        "overlaps": [asdict(item) for item in found.overlaps],
    }


def print_neurons(found: TrialNeurons, run: Path, top: int) -> None:
    """The neurons as tables on stdout; `run` is the run folder."""
    console = console_of()

    def show(head: str, rows: Iterable[Sequence[str]]) -> None:
        shown = table(*head.split("|"), left=("trial",))
        for row in rows:
            shown.add_row(*row)
        console.print(shown)

    scoring, is_effective = found.scoring, found.neurons.is_effective
    redundant = counted(int((~is_effective).sum()), "redundant neuron")
    echo(f"{run}, {trial_name(found.trial)}: {is_effective.sum()} effective and {redundant}")
    echo(
        f"Weights: calibration {scoring.calibration}, from {_SOURCES[scoring.calibration]} (rho {scoring.rho:g}, "
        f"min_run {scoring.min_run})"
    )
    echo()
    total = sum(layer.mass for layer in found.layers)
    show(
        "layer|effective|redundant|E credit|R credit|mass %|effective mass %|redundant mass %",
        (
            (
                str(layer.layer), str(layer.effective), str(layer.redundant), f"{layer.effective_credit:.4g}",
                f"{layer.redundant_credit:.4g}", _percent(layer.mass, total),
                _percent(layer.effective_mass, layer.mass), _percent(layer.redundant_mass, layer.mass),
            )
            for layer in found.layers
        ),
    )  # fmt: skip
    for sign in SIGNS:
        shown, every = found.top(sign == "effective", top), int((is_effective == (sign == "effective")).sum())
        echo()
        echo(f"Top {len(shown)} of {every} {sign} neurons by |weight| x mass")
        show(
            f"layer|unit|weight|E credit|R credit|mass|mass %|effective in|redundant in (of {len(found.variants)})",
            (
                (
                    str(item.layer), str(item.unit), f"{item.weight:+.4f}", f"{item.effective_credit:.4g}",
                    f"{item.redundant_credit:.4g}", f"{item.mass:.4g}", _percent(item.mass, total),
                    str(item.effective_in), str(item.redundant_in),
                )
                for item in shown
            ),
        )  # fmt: skip
    echo()
    echo("effective in, redundant in: number of scored variants, each under the credit of its own responses")
    if not found.overlaps:
        return
    shared = [item.jaccard for item in found.overlaps]
    above = sum(item.jaccard > item.chance_high for item in found.overlaps)
    echo()
    echo(
        f"Overlap of effective neurons with the other {counted(len(shared), 'variant')}, each under its own credit: "
        f"Jaccard {min(shared):.3f} to {max(shared):.3f}, above chance for {above}"
    )
    show(
        "trial|effective|shared|Jaccard|chance|95 % of chance",
        (
            (
                trial_label(item.trial), str(item.effective), str(item.shared), f"{item.jaccard:.3f}",
                f"{item.chance:.3f}", f"{item.chance_low:.3f}-{item.chance_high:.3f}",
            )
            for item in found.overlaps[:top]
        ),
    )  # fmt: skip
    echo(
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
