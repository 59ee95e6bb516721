"""How phases agree with labels of tokens: what is compared, what is left out, and the statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nex_merge.inspect import agreement
from nex_merge.inspect.agreement import AgreementEstimate
from nex_merge.inspect.annotations import IS_EXPLOIT, IS_EXPLORE, UNLABELLED, Labels
from nex_merge.inspect.reading import EXPLORE, Reading
from nex_merge.terminal import console_of
from nex_merge.wording import counted


@dataclass(frozen=True)
class Level:
    """Agreement over rows, or over tokens."""

    compared: int  # units with both a phase and a label
    explore_found: float | None  # share of them that are explore in the phases
    explore_wanted: float | None  # and in the annotations
    agreed: float | None  # share with equal labels
    kappa: AgreementEstimate


@dataclass(frozen=True)
class PhaseAgreement:
    """The phases of some responses compared with annotations of their tokens."""

    responses: int  # with at least one token to compare
    rows: Level
    tokens: Level
    tolerance: int  # maximum distance of matched boundaries, in rows
    boundaries_found: int
    boundaries_wanted: int
    precision: AgreementEstimate
    recall: AgreementEstimate
    f1: AgreementEstimate
    tokens_without_label: int  # not annotated
    tokens_without_phase: int  # annotated, in a row that has no phase
    rows_without_label: int  # without an annotated token
    rows_without_phase: int  # annotated, without a phase
    rows_tied: int  # with as many explore as exploit tokens
    malformed_lines: int


def row_labels(labels: np.ndarray, reading: Reading) -> tuple[np.ndarray, int]:
    """(label of every row by majority of its tokens, int8 [rows], UNLABELLED if none or tied; number of ties)."""
    majority, ties = np.full(len(reading.rows), UNLABELLED, np.int8), 0
    for number, row in enumerate(reading.rows):
        tokens = labels[row.first_token : row.end_token]
        explore, exploit = int((tokens == IS_EXPLORE).sum()), int((tokens == IS_EXPLOIT).sum())
        if explore != exploit:
            majority[number] = IS_EXPLORE if explore > exploit else IS_EXPLOIT
        ties += explore == exploit > 0
    return majority, ties


def measure_agreement(pairs: Sequence[tuple[Reading, Labels]], tolerance: int) -> PhaseAgreement:
    """Agreement of the phases of responses with the labels of their tokens.

    Units without a phase or without a label are left out. A boundary is a row whose label differs from that of the
    previous compared row.
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
    return PhaseAgreement(
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


def print_agreement(found: PhaseAgreement) -> None:
    """The agreement on stdout."""
    from rich.table import Table

    console = console_of()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "value", "95 %", "chance", "95 % of chance", "p"):
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
                f"{level.compared} {name} compared, {level.agreed:.1%} equal; explore: {level.explore_found:.1%} in "
                f"the phases, {level.explore_wanted:.1%} in the annotations",
                highlight=False,
                soft_wrap=True,
            )
        else:
            console.print(f"no {name} to compare: none has both a phase and an annotation", highlight=False)
    lines = [
        f"Boundaries: {found.boundaries_found} in the phases, {found.boundaries_wanted} in the annotations; matched "
        f"one-to-one within {counted(found.tolerance, 'row')}",
        f"Left out: {counted(found.tokens_without_label, 'token')} without annotation, "
        f"{found.tokens_without_phase} in rows "
        f"without a phase; {counted(found.rows_without_label, 'row')} without annotation, {found.rows_tied} tied, "
        f"{found.rows_without_phase} without a phase; {counted(found.malformed_lines, 'malformed line')}",
        "95 %: bootstrap over responses. Chance: mean over circular shifts of the annotations within each response, "
        "which keep the number and length of runs. p: share of shifts that agree at least as well.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"
