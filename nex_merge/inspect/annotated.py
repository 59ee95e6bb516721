"""How phases agree with labels of tokens: what is compared, what is left out, and the statistics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.inspect import agreement
from nex_merge.inspect.agreement import AgreementEstimate
from nex_merge.inspect.annotations import IS_EXPLOIT, IS_EXPLORE, UNLABELLED, VALUES, Labels
from nex_merge.inspect.reading import Reading
from nex_merge.terminal import console_of, echo, table
from nex_merge.wording import between, counted, decimal


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
    by_row, by_token, ties = [], [], 0
    for reading, labels in pairs:
        phases = np.array([VALUES[row.phase] for row in reading.rows], np.int8)
        wanted, tied = row_labels(labels.tokens, reading)
        by_row.append((phases, wanted))
        by_token.append((np.repeat(phases, [row.end_token - row.first_token for row in reading.rows]), labels.tokens))
        ties += tied
    rows_without_label, rows_without_phase = _left_out(by_row)
    tokens_without_label, tokens_without_phase = _left_out(by_token)
    rows, tokens = _compared(by_row), _compared(by_token)
    edges = [agreement.boundary_counts(found, wanted, tolerance) for found, wanted in rows]
    _, boundaries_found, boundaries_wanted = sum((t[0] for t in edges if len(t)), np.zeros(3, np.int64)).tolist()
    return PhaseAgreement(
        responses=sum(len(found) > 0 for found, _ in tokens),
        rows=_level(rows),
        tokens=_level(tokens),
        tolerance=tolerance,
        boundaries_found=boundaries_found,
        boundaries_wanted=boundaries_wanted,
        precision=agreement.estimate(edges, agreement.precision),
        recall=agreement.estimate(edges, agreement.recall),
        f1=agreement.estimate(edges, agreement.f1),
        tokens_without_label=tokens_without_label,
        tokens_without_phase=tokens_without_phase,
        rows_without_label=rows_without_label - ties,
        rows_without_phase=rows_without_phase,
        rows_tied=ties,
        malformed_lines=sum(labels.malformed for _, labels in pairs),
    )


def _left_out(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """The number of units without a label, and that of units with a label, but without a phase."""
    without_label = sum(int((wanted == UNLABELLED).sum()) for _, wanted in pairs)
    return without_label, sum(int(((w != UNLABELLED) & (found == UNLABELLED)).sum()) for found, w in pairs)


def _compared(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Whether phase and label are explore, of the units of every response that have both."""
    known = [(found != UNLABELLED) & (wanted != UNLABELLED) for found, wanted in pairs]
    return [(f[both] == IS_EXPLORE, w[both] == IS_EXPLORE) for (f, w), both in zip(pairs, known, strict=True)]


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
    console = console_of()
    shown = table("", "value", "95 %", "chance", "95 % of chance", "p", left=("",))
    for name, item in (
        ("kappa, rows", found.rows.kappa),
        ("kappa, tokens", found.tokens.kappa),
        ("boundary precision", found.precision),
        ("boundary recall", found.recall),
        ("boundary F1", found.f1),
    ):
        chance = (decimal(item.chance), between(item.chance_low, item.chance_high), decimal(item.as_good, ".4f"))
        shown.add_row(name, decimal(item.value), between(item.low, item.high), *chance)
    console.print(shown)
    for name, level in (("rows", found.rows), ("tokens", found.tokens)):
        if level.compared:
            line = (
                f"{level.compared} {name} compared, {level.agreed:.1%} equal; explore: {level.explore_found:.1%} in "
                f"the phases, {level.explore_wanted:.1%} in the annotations"
            )
            echo(line)
        else:
            console.print(f"no {name} to compare: none has both a phase and an annotation")
    for line in (
        f"Boundaries: {found.boundaries_found} in the phases, {found.boundaries_wanted} in the annotations; matched "
        f"one-to-one within {counted(found.tolerance, 'row')}",
        f"Left out: {counted(found.tokens_without_label, 'token')} without annotation, {found.tokens_without_phase} "
        f"in rows without a phase; {counted(found.rows_without_label, 'row')} without annotation, {found.rows_tied} "
        f"tied, {found.rows_without_phase} without a phase; {counted(found.malformed_lines, 'malformed line')}",
        "95 %: bootstrap over responses. Chance: mean over circular shifts of the annotations within each response, "
        "which keep the number and length of runs. p: share of shifts that agree at least as well.",
    ):
        echo(line)
