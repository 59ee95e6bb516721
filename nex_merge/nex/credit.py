"""Step 4 of NEX: credit. Neurons introduced in an explore phase earn credit by their reuse in the next exploit phase.

Symbols: s slopes, float32 [K]; reuse of a cycle, the share of its exploit mass on neurons that it introduced; m, the
median reuse of the response; progress = reuse - m (arXiv 2602.05805). Credit is additive over responses.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from nex_merge.nex.phases import runs
from nex_merge.records import Credit, Cycle, Novelty, Phases

EPSILON = 1e-6


def response_cycles(novelty: Novelty, phases: Phases) -> tuple[Cycle, ...]:
    """The cycles of one response, with their reuse, consolidation and scales of credit."""
    found = runs(phases.explore)
    spans = [(*a, *b) for a, b in pairwise(found) if phases.explore[a[0]]]
    measured = [_measure(novelty, span) for span in spans]
    reuses = np.array([reuse for *_, reuse in measured if reuse is not None], np.float32)
    # Without any reuse, the centre has no effect.
    centre = float(np.median(reuses)) if len(reuses) else 0.0
    return tuple(
        Cycle(*span, strength, consolidation, reuse, *_scales(reuse, centre, consolidation))
        for span, (strength, consolidation, reuse) in zip(spans, measured, strict=True)
    )


def _measure(novelty: Novelty, span: tuple[int, int, int, int]) -> tuple[float, float, float | None]:
    """(strength, consolidation, reuse) of a cycle; reuse is None if undefined.

    `span`: first and last explore row, first and last exploit row.
    """
    first_e, last_e, first_x, last_x = span
    slope_e = float(np.median(novelty.slopes[first_e : last_e + 1]))
    slope_x = float(np.median(novelty.slopes[first_x : last_x + 1]))
    strength = slope_e - float(np.median(novelty.slopes))
    consolidation = min(max(1 - slope_x / (slope_e + EPSILON), 0.0), 1.0) if slope_e > 0 else 0.0
    explore = slice(novelty.row_ptr[first_e], novelty.row_ptr[last_e + 1])
    exploit = slice(novelty.row_ptr[first_x], novelty.row_ptr[last_x + 1])
    introduced = novelty.keys[explore][novelty.is_new[explore]]
    masses = novelty.masses[exploit].astype(np.float64)
    total = masses.sum()
    if strength <= 0 or len(introduced) == 0 or total <= 0:
        return strength, consolidation, None
    reused = masses[np.isin(novelty.keys[exploit], introduced, kind="table")].sum()
    return strength, consolidation, float(reused / (total + EPSILON))


def _scales(reuse: float | None, centre: float, consolidation: float) -> tuple[float, float]:
    """(effective, redundant) scales of a cycle's credit."""
    if reuse is None:
        return 0.0, 0.0
    progress = reuse - centre
    if progress > 0 and consolidation > 0:
        return progress * consolidation, 0.0
    return 0.0, abs(progress)


def response_credit(novelty: Novelty, cycles: Sequence[Cycle]) -> Credit:
    """The credit of every neuron in one response: its mass in the row that introduced it, times its cycle's scales."""
    parts = []
    for cycle in cycles:
        if cycle.effective == 0 and cycle.redundant == 0:
            continue
        rows = slice(novelty.row_ptr[cycle.first_explore], novelty.row_ptr[cycle.last_explore + 1])
        new = novelty.is_new[rows]
        masses = novelty.masses[rows][new]
        scales = np.float32(cycle.effective), np.float32(cycle.redundant)
        parts.append(Credit(novelty.keys[rows][new], masses * scales[0], masses * scales[1]))
    return sum_credit(parts)


def sum_credit(parts: Sequence[Credit]) -> Credit:
    """The sum of credits by neuron, float32, keys ascending."""
    keys = np.concatenate([np.zeros(0, np.uint32), *(part.keys for part in parts)])
    unique, inverse = np.unique(keys, return_inverse=True)
    totals = [
        np.bincount(inverse, np.concatenate([np.zeros(0), *values]), minlength=len(unique)).astype(np.float32)
        for values in ([part.effective for part in parts], [part.redundant for part in parts])
    ]
    return Credit(unique, *totals)
