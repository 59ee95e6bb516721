"""Scatter plots of accuracy over measures, as PNG files and as text. No statistics."""

from collections.abc import Sequence
from pathlib import Path

from nex_merge.errors import InputError
from nex_merge.measures.registry import NEX, measure_title
from nex_merge.runs.rows import Row

WIDTH, HEIGHT = 60, 14
_MARKS = {"base": "B", "parent": "P", "merge": "o"}


def scatter_text(rows: Sequence[Row], measure: str) -> str:
    """Accuracy over a measure: B base, P parent, o merge, x collapsed."""
    points = [(row.column(measure), row.accuracy, row) for row in rows if row.column(measure) is not None]
    points = [(x, y, row) for x, y, row in points if y is not None]
    if not points:
        return ""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for x, y, row in points:
        column = round((x - min(xs)) / ((max(xs) - min(xs)) or 1) * (WIDTH - 1))
        line = HEIGHT - 1 - round((y - min(ys)) / ((max(ys) - min(ys)) or 1) * (HEIGHT - 1))
        grid[line][column] = "x" if row.state == "collapsed" else _MARKS[row.kind]
    lines = [f"{'accuracy':>8} |"]
    for i, line in enumerate(grid):
        label = f"{max(ys):.3f}" if i == 0 else f"{min(ys):.3f}" if i == HEIGHT - 1 else ""
        lines.append(f"{label:>8} |{''.join(line).rstrip()}")
    lines.append(" " * 9 + "+" + "-" * WIDTH)
    low, high = f"{min(xs):.4g}", f"{max(xs):.4g}"
    lines.append(" " * 10 + low + measure.center(WIDTH - len(low) - len(high)) + high)
    lines.append(" " * 10 + "B base, P parent, o merge, x collapsed")
    return "\n".join(lines)


def write_scatters(rows: Sequence[Row], measures: Sequence[str], folder: Path) -> list[Path]:
    """One PNG per measure: accuracy over the measure, with intervals of accuracy and NEX. Returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    if folder.exists() and not folder.is_dir():
        raise InputError(f"--plots: expected a folder, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for measure in measures:
        measured = [row for row in rows if row.accuracy is not None and row.column(measure) is not None]
        figure, axes = pyplot.subplots(figsize=(6, 4.2), dpi=150)
        for kind, state, colour, label in (
            ("merge", "complete", "#2b6cb0", "merge"),
            ("merge", "infeasible", "#b7791f", "infeasible merge"),
            ("merge", "collapsed", "#c05621", "collapsed merge"),
            ("parent", "complete", "#2f855a", "parent"),
            ("base", "complete", "#4a5568", "base"),
        ):
            part = [row for row in measured if row.kind == kind and row.state == state]
            if part:
                axes.errorbar(
                    [row.column(measure) for row in part], [row.column("accuracy") for row in part],
                    label=label, color=colour,
                    xerr=_bars(part, measure, f"{measure}_low", f"{measure}_high") if measure == NEX.name else None,
                    yerr=_bars(part, "accuracy", "accuracy_low", "accuracy_high"),
                    fmt="o", markersize=4, elinewidth=0.6, alpha=0.85,
                )  # fmt: skip
        axes.set_xlabel(measure_title(measure))
        axes.set_ylabel("accuracy")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        files.append(folder / f"{measure}.png")
        figure.savefig(files[-1])
        pyplot.close(figure)
    return files


def _bars(rows: Sequence[Row], value: str, low: str, high: str) -> list[list[float]] | None:
    found = [[row.column(name) for name in (low, value, high)] for row in rows]
    if any(below is None for below, _, _ in found):
        return None
    # A percentile interval need not contain the value.
    return [[max(at - below, 0) for below, at, _ in found], [max(above - at, 0) for _, at, above in found]]
