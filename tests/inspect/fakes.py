"""Readings made by hand, in which every word is a token."""

from itertools import accumulate

from nex_merge.inspect.reading import Reading, Row
from nex_merge.records import Cycle, Response

PHASES = {"E": "explore", "X": "exploit", ".": None}


def reading(words, phases, width=1, cycles=(), fallback=None, score=None, prompt="a prompt", truncated=False):
    """`words` are the tokens, `width` the tokens per row; `phases` has a letter per row: E, X, or a dot for none."""
    starts = [0, *accumulate(map(len, words))]
    ends = [*range(width, len(words), width), len(words)]
    rows = tuple(
        Row(
            low, high, starts[low], starts[high], PHASES[mark],
            None if mark == "." else 1.5, None if mark == "." else 2.0 * (mark == "E") - 1,
        )
        for low, high, mark in zip([0, *ends], ends, phases, strict=False)
    )  # fmt: skip
    kept = tuple(i for i, row in enumerate(rows) if row.phase is not None)
    response = Response(0, 0, (1,), tuple(range(len(words))), "".join(words), truncated)
    return Reading(response, prompt, tuple(starts), rows, kept, tuple(cycles), fallback, score)


CYCLE = Cycle(0, 0, 1, 2, strength=0.5, consolidation=0.25, reuse=0.4, effective=0.1, redundant=0.0)
