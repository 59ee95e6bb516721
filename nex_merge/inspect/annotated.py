"""NEX's phases against labels of tokens: what is compared, what is left out, and the agreement. Composes the two."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nex_merge.inspect import agreement
from nex_merge.inspect.agreement import Estimate
from nex_merge.inspect.annotations import IS_EXPLOIT, IS_EXPLORE, UNLABELLED, Labels
from nex_merge.inspect.reading import EXPLORE, Reading


@dataclass(frozen=True)
class Level:
    """Agreement row by row, or token by token."""

    compared: int  # units with a label by both sides
    explore_found: float | None  # share of them that explore, to NEX
    explore_wanted: float | None  # and to people
    agreed: float | None  # share with the same label
    kappa: Estimate


@dataclass(frozen=True)
class Comparison:
    """NEX's phases and people's labels of some responses, held against one another."""

    responses: int  # with anything to compare
    rows: Level
    tokens: Level
    tolerance: int  # rows that matched boundaries may be apart
    boundaries_found: int
    boundaries_wanted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate
    tokens_without_label: int  # not annotated
    tokens_without_phase: int  # annotated, in a row that has no phase
    rows_without_label: int  # no token of theirs is annotated
    rows_without_phase: int  # annotated, but without a phase
    rows_tied: int  # as many tokens explore as exploit
    malformed_lines: int


def row_labels(labels: np.ndarray, reading: Reading) -> tuple[np.ndarray, int]:
    """(int8 [rows]: what most labelled tokens of each row are, UNLABELLED where none or tied; the number of ties)."""
    found, ties = np.full(len(reading.rows), UNLABELLED, np.int8), 0
    for number, row in enumerate(reading.rows):
        own = labels[row.first_token : row.end_token]
        explore, exploit = int((own == IS_EXPLORE).sum()), int((own == IS_EXPLOIT).sum())
        if explore != exploit:
            found[number] = IS_EXPLORE if explore > exploit else IS_EXPLOIT
        ties += explore == exploit > 0
    return found, ties


def compare(pairs: Sequence[tuple[Reading, Labels]], tolerance: int) -> Comparison:
    """Agreement of the readings' phases with the labels of their tokens.

    Units that one side says nothing of are left out, and boundaries lie between neighbours among those that are left:
    a boundary is a row whose label is not that of the compared row before it.
    """
    by_row, by_token = [], []
    without_label = without_phase = rows_without_label = rows_without_phase = ties = 0
    for reading, labels in pairs:
        phases = np.array([_value(row.phase) for row in reading.rows], np.int8)
        lengths = [row.end_token - row.first_token for row in reading.rows]
        token_phases = np.repeat(phases, lengths)
        wanted, tied = row_labels(labels.tokens, reading)
        without_label += int((labels.tokens == UNLABELLED).sum())
        without_phase += int(((labels.tokens != UNLABELLED) & (token_phases == UNLABELLED)).sum())
        rows_without_label += int((wanted == UNLABELLED).sum()) - tied
        rows_without_phase += int(((wanted != UNLABELLED) & (phases == UNLABELLED)).sum())
        ties += tied
        by_row.append(_both(phases, wanted))
        by_token.append(_both(token_phases, labels.tokens))
    edges = [agreement.boundary_counts(found, wanted, tolerance) for found, wanted in by_row]
    total = sum((table[0] for table in edges if len(table)), np.zeros(3, np.int64))
    estimate = partial(agreement.estimate, edges)
    return Comparison(
        responses=sum(len(found) > 0 for found, _ in by_token),
        rows=_level(by_row),
        tokens=_level(by_token),
        tolerance=tolerance,
        boundaries_found=int(total[1]),
        boundaries_wanted=int(total[2]),
        precision=estimate(agreement.precision),
        recall=estimate(agreement.recall),
        f1=estimate(agreement.f1),
        tokens_without_label=without_label,
        tokens_without_phase=without_phase,
        rows_without_label=rows_without_label,
        rows_without_phase=rows_without_phase,
        rows_tied=ties,
        malformed_lines=sum(labels.malformed for _, labels in pairs),
    )


def _value(phase: str | None) -> int:
    return UNLABELLED if phase is None else IS_EXPLORE if phase == EXPLORE else IS_EXPLOIT


def _both(found: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = (found != UNLABELLED) & (wanted != UNLABELLED)
    return found[known] == IS_EXPLORE, wanted[known] == IS_EXPLORE


def _level(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Level:
    tables = [agreement.label_counts(found, wanted) for found, wanted in pairs]
    total = sum((table[0] for table in tables if len(table)), np.zeros(4, np.int64))
    n = int(total.sum())
    return Level(
        compared=n,
        explore_found=float(total[0] + total[1]) / n if n else None,
        explore_wanted=float(total[0] + total[2]) / n if n else None,
        agreed=float(agreement.share_agreed(total)) if n else None,
        kappa=agreement.estimate(tables, agreement.kappa),
    )


def print_comparison(found: Comparison) -> None:
    """The agreement on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console = console if console.is_terminal else Console(width=120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "value", "95 %", "shifted", "95 % of shifts", "as good"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for name, item in (
        ("kappa, rows", found.rows.kappa),
        ("kappa, tokens", found.tokens.kappa),
        ("boundary precision", found.precision),
        ("boundary recall", found.recall),
        ("boundary F1", found.f1),
    ):
        table.add_row(
            name,
            _number(item.value),
            _range(item.low, item.high),
            _number(item.chance),
            _range(item.chance_low, item.chance_high),
            _number(item.as_good, 4),
        )
    console.print(table)
    for name, level in (("rows", found.rows), ("tokens", found.tokens)):
        if level.compared:
            console.print(
                f"{level.compared} {name} compared, {level.agreed:.1%} the same; {level.explore_found:.1%} explore to "
                f"NEX, {level.explore_wanted:.1%} to the annotations",
                highlight=False,
                soft_wrap=True,
            )
        else:
            console.print(f"no {name} to compare: none has both a phase and a label", highlight=False)
    lines = [
        f"Boundaries: NEX's {found.boundaries_found}, the annotations' {found.boundaries_wanted}; matched within "
        f"{found.tolerance} rows, each once",
        f"Left out: {found.tokens_without_label} tokens not annotated, {found.tokens_without_phase} in rows without a "
        f"phase; {found.rows_without_label} rows not annotated, {found.rows_tied} with as many tokens of either label, "
        f"{found.rows_without_phase} without a phase; {found.malformed_lines} malformed lines",
        "95 %: bootstrap over responses. Shifted: mean over circular shifts of the annotations within each response, "
        "what chance gives to labels of such shares and runs; as good: share of shifts that agree no less.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
