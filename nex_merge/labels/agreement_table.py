"""Agreement with accuracy on a terminal, and in words. Computes nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from nex_merge.labels.correlate import TOPS
from nex_merge.runs.files import trial_label, trial_name
from nex_merge.terminal import console_of
from nex_merge.wording import counted

WIDTH = 80  # where stdout is no terminal and COLUMNS says nothing
# Headings in order of importance: what does not fit is left out from the right.
_HEADINGS = (
    "measure", "Spearman", "better\nhalf", "top\npick", "its\nacc.", "regret", "over\nparent", "over =", "Kendall",
    "Pearson", f"regret\n{', '.join(map(str, TOPS[1:]))}", "overlap\n5",
)  # fmt: skip
_LEFT = ("measure", "top\npick")
_FOLDED = {"top\npick": 10}  # where a parent's name is longer, it takes more lines rather than another column's place
INTERVALS = "Spearman with accuracy, and in brackets its 95 % bootstrap over variants:"
LEGEND = (
    "better half: Spearman within the variants of at least median accuracy. top pick: the measure's first variant; "
    "regret: best accuracy minus its; over parent, over =: its accuracy minus that of the best parent, of equal "
    "weights (above 0 is better); regret k: best accuracy minus the best of the measure's top k.",
    "A minus before a measure: less is better. rank: the leaderboard, infeasible and collapsed variants last.",
)
BASELINE_LEGEND = (
    "* trivial baselines, from recipes alone, which a measure has to beat. distance: of a merge's coefficients from "
    "those of parent {parent}, which ranks first under the objective; lambda: the sum of its coefficients (1 where the "
    "method divides by the sum of weights)."
)


def print_agreement(result: Mapping[str, Any], title: str = "") -> None:
    """The agreement as a table on stdout, at most as wide as the terminal, with the noise ceiling below it."""
    from rich.table import Table
    from rich.text import Text

    console = console_of(WIDTH)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    parent = result["best_parent_accuracy"]
    collapsed = f" ({result['collapsed']} collapsed)" if result["collapsed"] else ""
    say(
        f"{title}{counted(result['trials'], 'variant')} with accuracy{collapsed}; best "
        f"{result['best_accuracy']:.3f} ({trial_name(result['best_trial'])})"
        + ("" if parent is None else f", best parent {parent:.3f}")
    )
    say(INTERVALS)
    lines = [_cells(name, item) for name, item in result["scores"].items()]
    lines += [_cells(f"{name} *", item) for name, item in result["baselines"].items()]
    columns, left_out = _fitting(lines, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in columns:
        justify = "left" if heading in _LEFT else "right"
        table.add_column(heading, justify=justify, overflow="fold", max_width=_FOLDED.get(heading))
    for cells in lines:
        table.add_row(*(Text(cells[heading]) for heading in columns))
    console.print(table)
    if left_out:
        names = ", ".join(heading.replace("\n", " ") for heading in left_out)
        say(f"{counted(len(left_out), 'column')} left out for want of width: {names}")
    if result["left_out"]:
        say(f"Left out, undefined for some variants: {', '.join(result['left_out'])}")
    for name, item in result["baselines"].items():
        if missing := result["trials"] - item["variants"]:
            say(f"{name} is without {missing} of {result['trials']} variants, whose recipes have no weights")
    if result["baselines_left_out"]:
        say(f"Baselines left out, undefined for most variants: {', '.join(result['baselines_left_out'])}")
    if result["noise_ceiling"] is not None:
        say(ceiling_in_words(result["noise_ceiling"]))
    for name, item in result["curves"].items():
        shape = "an inverted U" if item["inverted_u"] else "no inverted U"
        vertex = item["vertex"]
        say(
            f"Accuracy over {name}: {shape} (AIC {item['aic_quadratic']:.1f} quadratic, {item['aic_linear']:.1f} "
            f"linear; vertex {vertex['value']:.3g} [{vertex['low']:.3g}, {vertex['high']:.3g}])"
        )


def print_tasks(by_task: Mapping[str, Mapping[str, Any]], source: str) -> None:
    """Spearman's correlation of every measure and baseline with the accuracy on each task, on stdout.

    `source`: what the accuracy of the table above was measured on.
    """
    from rich.table import Table
    from rich.text import Text

    console = console_of(WIDTH)
    console.print(f"\nThe accuracy above is the last one measured: {source}", markup=False, highlight=False)
    console.print(
        "Spearman with the accuracy on each task, as last measured, by measure:", markup=False, highlight=False
    )
    names = list(dict.fromkeys(name for result in by_task.values() for name, _ in _measures(result)))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("measure")
    for task in by_task:
        table.add_column(Text(task), justify="right", overflow="fold")
    columns = [dict(_measures(result)) for result in by_task.values()]
    for name in names:
        table.add_row(Text(name), *(Text(_correlation(column[name]) if name in column else "-") for column in columns))
    console.print(table)


def _measures(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name as the table has it, Spearman's correlation) of every measure and baseline."""
    for name, item in result["scores"].items():
        yield ("" if item["direction"] == "higher is better" else "-") + name, item["spearman"]
    for name, item in result["baselines"].items():
        yield ("" if item["direction"] == "higher is better" else "-") + f"{name} *", item["spearman"]


def print_legend(result: Mapping[str, Any]) -> None:
    """What the table's columns and marks mean, on stdout."""
    console = console_of(WIDTH)
    baselines = [BASELINE_LEGEND.format(parent=result["distance_from"] or "-")] if result["baselines"] else []
    for line in [*LEGEND, *baselines]:
        console.print(line, markup=False, highlight=False)


def ceiling_in_words(ceiling: Mapping[str, Any]) -> str:
    """What the noise ceiling is, what it rests on, and what it means."""
    problems, samples = ceiling["problems"], ceiling["samples"]
    where = f"labels on the same {counted(ceiling['prompts'], 'prompt')} x {counted(samples, 'sample')}"
    if ceiling["value"] is None:
        behind = "" if problems is None else f" on {problems} problems"
        return (
            f"Noise ceiling: undefined. The accuracies{behind} differ by no more than chance, so no measure can be "
            "judged by them; measure accuracy on more problems."
        )
    figure = f"{ceiling['value']:.2f} [{ceiling['low']:.2f}, {ceiling['high']:.2f}]"
    if problems is None or ceiling["shared_noise"] is None:
        reach, meaning = "about", "judge measures from these prompts by that, not by 1"
    else:
        reach, meaning = (
            "at most" if samples > 1 else "",
            "no measure from these prompts can be expected above this range",
        )
    text = f"Noise ceiling: {where} would reach {reach} {figure}; {meaning}.".replace("  ", " ")
    if problems is None:
        text += (
            " How many problems are behind the accuracies is not known, so their own noise is not removed, which "
            "raises the figure; give it as n in the accuracy file."
        )
    if ceiling["shared_noise"] is None:
        text += (
            " Which problems each variant solved is not known, so all are taken to err independently, which lowers the "
            "figure."
        )
    if ceiling["accuracy_ranks_at"] is not None:
        text += (
            f" The accuracies themselves, on {problems} problems, rank the variants at about "
            f"{ceiling['accuracy_ranks_at']:.2f}."
        )
    return text


def _fitting(lines: list[dict[str, str]], width: int) -> tuple[list[str], list[str]]:
    """The headings that fit into `width` columns, measure and Spearman at least, and the rest."""
    used, kept = -1, 0
    for heading in _HEADINGS:
        widest = max(len(text) for text in [*heading.split("\n"), *(cells[heading] for cells in lines)])
        used += 1 + min(widest, _FOLDED.get(heading, widest))
        if used > width and kept >= 2:
            break
        kept += 1
    return list(_HEADINGS[:kept]), list(_HEADINGS[kept:])


def _cells(name: str, item: Mapping[str, Any]) -> dict[str, str]:
    regrets = [f"{item['regret'][str(k)]:.3f}" for k in TOPS]
    cells = (
        ("" if item["direction"] == "higher is better" else "-") + name,
        _correlation(item["spearman"]),
        _number(item["spearman_better_half"]["value"], ".2f"),
        trial_label(item["top_trial"]),
        f"{item['top_accuracy']:.3f}",
        regrets[0],
        _number(item["gain_over_best_parent"], "+.3f"),
        _number(item["gain_over_equal_weights"], "+.3f"),
        _correlation(item["kendall"]),
        _correlation(item["pearson"]),
        " ".join(regrets[1:]),
        f"{item['overlap']['5']:.1f}",
    )
    return dict(zip(_HEADINGS, cells, strict=True))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _correlation(item: Mapping[str, float | None]) -> str:
    if item["value"] is None:
        return "-"
    return f"{item['value']:.2f} [{item['low']:.2f}, {item['high']:.2f}]"
