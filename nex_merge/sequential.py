"""A sign test that may be looked at after every single comparison, and stopped at any: its error stays at 5 %.

Two variants are compared on prompts in random order; each comparison, a *look*, prefers the first, the second, or
neither of them (a tie). Ties say nothing of which is better, so that the test is on the d looks that decide: of these
a prefer one and b = d - a the other. Under "neither is better", p = 1/2, and the evidence against it is

    e(a, b) = 2^d B(a + s, b + s) / B(s, s),    s = 2,

the likelihood ratio of a Beta(s, s) mixture of p and p = 1/2 (Robbins, 1970, doi:10.1214/aoms/1177696786), a
martingale. By Ville's inequality, it ever reaches 20 with probability 1/20 at most. How many prompts there are is known
before the first look, so that this bound is sharpened: `bound` is the lowest that e reaches within that many decisions
with probability 1/20 at most, computed exactly. results/studies/compare.md has error and looks of this test and others.

Knows nothing of prompts, models or judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lgamma, log

import numpy as np

ERROR = 0.05
SHAPE = 2.0  # s
# Beyond so many prompts, Ville's bound, which holds for any number.
EXACT = 1000
# Agreement of so many looks out of as many settles it; of fewer, none does.
FEWEST = 6


@dataclass(frozen=True)
class State:
    """Where a comparison stands."""

    winner: int  # 1: the first is better, -1: the second is; 0: not settled
    settled_at: int | None  # the look that settled it, counted from 1; None: none did
    at_least: int | None  # further looks until it can be settled, if all prefer the same; None: it can't be any more
    at_most: int  # further looks after which it is over, whatever they say

    @property
    def is_over(self) -> bool:
        """Whether no further look can change the state."""
        return self.at_most == 0


def stand(outcomes: Sequence[int], prompts: int) -> State:
    """The state after looks, in their order: 1 prefers the first, -1 the second, 0 is a tie.

    `prompts`: how many looks there can be in all, fixed before the first. What was settled once stays so: looks beyond
    don't count. Raises ValueError if there are more looks than prompts.
    """
    if len(outcomes) > prompts:
        raise ValueError(f"expected at most {prompts} looks, got {len(outcomes)}")
    needed = majorities(prompts)
    first = second = 0
    for look, outcome in enumerate(outcomes, 1):
        first, second = first + (outcome > 0), second + (outcome < 0)
        if max(first, second) >= needed[first + second]:
            return State(1 if first > second else -1, look, 0, 0)
    left = prompts - len(outcomes)
    decided, most = first + second, max(first, second)
    at_least = next((k for k in range(1, left + 1) if most + k >= needed[decided + k]), None)
    return State(0, None, at_least, 0 if at_least is None else left)


@lru_cache(maxsize=16)
def majorities(prompts: int) -> tuple[int, ...]:
    """For d = 0 to `prompts` looks that decide, how many of them have to prefer the same to settle it.

    More than d where none suffice.
    """
    bound = -log(ERROR) if prompts > EXACT else _bound(prompts)
    found = []
    for decided in range(prompts + 1):
        evidence = _evidence(decided)
        enough = np.flatnonzero(evidence[(decided + 1) // 2 :] >= bound - _SLACK)
        found.append((decided + 1) // 2 + int(enough[0]) if len(enough) else decided + 1)
    return tuple(found)


_SLACK = 1e-9  # of logarithms


@lru_cache(maxsize=2048)
def _evidence(decided: int) -> np.ndarray:
    """log e(a, d - a) for a = 0 to d, float64 [d + 1]."""
    parts = np.array([lgamma(a + SHAPE) for a in range(decided + 1)])
    constant = lgamma(2 * SHAPE) - 2 * lgamma(SHAPE) - lgamma(decided + 2 * SHAPE) + decided * log(2)
    return constant + parts + parts[::-1]


def _bound(prompts: int) -> float:
    """The lowest bound that the log-evidence reaches within so many decisions in 5 % of all cases at most."""
    values = np.unique(np.concatenate([_evidence(decided) for decided in range(prompts + 1)]).round(9))
    low, high = 0, len(values)  # the last place: never
    while low < high:
        middle = (low + high) // 2
        if _reaches(prompts, values[middle] - _SLACK) <= ERROR:
            high = middle
        else:
            low = middle + 1
    return float(values[low]) if low < len(values) else float("inf")


def _reaches(prompts: int, bound: float) -> float:
    """The probability that the log-evidence reaches a bound within so many decisions, where p = 1/2."""
    open_, reached = np.ones(1), 0.0  # by a: the probability of being there without having reached it
    for decided in range(1, prompts + 1):
        moved = np.zeros(decided + 1)
        moved[1:] += open_ / 2
        moved[:-1] += open_ / 2
        is_there = _evidence(decided) >= bound
        reached += float(moved[is_there].sum())
        moved[is_there] = 0.0
        open_ = moved
    return reached
