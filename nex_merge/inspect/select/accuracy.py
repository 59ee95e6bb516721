"""Accuracy of each selector, with intervals, by the number of candidates. Pure NumPy.

Accuracy with N of a prompt's n candidates is the mean over all subsets of size N where there are few, else over seeded
random ones in which every candidate is equally often. For independent samples this equals, in expectation, the accuracy
with the first N, with less noise and independent of their order. Neuron weights are estimated from the candidates of
each subset. Random choice and the oracle are computed in closed form, and gains over random choice within each subset,
so that a choice among ties gains nothing. Intervals are over prompts for fixed weights; gains are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, gcd

import numpy as np

from nex_merge.inspect.select.rules import DECIMALS, any_right, expected_right, undecided
from nex_merge.inspect.select.selectors import Candidates, score_sets
from nex_merge.one_thread import on_one_thread
from nex_merge.resampling import FEWEST_PROMPTS, interval, resamples

SETS = 64  # random subsets of a prompt's candidates, at least
ALL = 100  # up to so many subsets, all are taken
RESAMPLES = 2000
RANDOM, ORACLE = "random", "oracle"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a selector. Ties count as a random choice among the tied candidates."""

    accuracy: float
    low: float | None  # 95 % bootstrap interval over prompts; None: too few prompts
    high: float | None
    gain: float  # accuracy minus that of random choice
    gain_low: float | None
    gain_high: float | None
    undecided: float  # share of choices where the top candidates conclude differently


@dataclass(frozen=True)
class SelectorComparison:
    """All selectors with N candidates per prompt."""

    candidates: int  # N
    prompts: int  # with at least N candidates
    sets: int  # subsets per prompt, at most
    selectors: Mapping[str, Accuracy]


@dataclass(frozen=True)
class SelectorOutcome:
    """One selector with N candidates, by prompt."""

    right: np.ndarray  # float64 [P]: probability of a correct choice
    undecided: np.ndarray  # float64 [P]


def subset_sizes(counts: np.ndarray) -> list[int]:
    """The numbers of candidates to compare at: powers of two, and the full number if all prompts have equally many."""
    most = int(counts.max())
    found = [2**i for i in range(1, most.bit_length()) if 2**i <= most]
    return sorted({*found, most}) if most > 1 and counts.min() == most else found


def draw_sets(starts: np.ndarray, size: int, count: int = SETS) -> list[np.ndarray]:
    """Subsets of `size` candidates, int64 [S, size], for every prompt that has enough: all of them if there are few.

    Else they are `count` random ones, or a few more, and each candidate is in equally many: windows of random orders,
    taken as circles.
    """
    rng = np.random.default_rng([0, size])
    found = []
    for low, n in zip(starts[:-1].tolist(), np.diff(starts).tolist(), strict=True):
        if n < size:
            continue
        if comb(n, size) <= ALL:
            # In random order, because the i-th subsets of all prompts are scored together.
            found.append(low + rng.permutation(np.array(list(combinations(range(n), size)))))
            continue
        windows = n // gcd(n, size)
        orders = rng.permuted(np.tile(np.arange(n), (-(-count // windows), 1)), axis=1)
        at = (np.arange(windows)[:, None] * size + np.arange(size)) % n
        found.append(low + np.sort(orders[:, at].reshape(-1, size), axis=1))
    return found


def selector_outcomes(
    scores: Mapping[str, Sequence[np.ndarray]], candidates: Candidates, right: np.ndarray, sets: Sequence[np.ndarray]
) -> dict[str, SelectorOutcome]:
    """Selectors, random choice and the oracle on subsets of the candidates of P prompts.

    `scores`: by selector, the scores of the subsets, one float64 [S, n] per prompt. `right`: whether each candidate is
    correct, bool [R].
    """
    size, starts = sets[0].shape[1], candidates.starts
    prompts = [int(candidates.prompts[drawn.flat[0]]) for drawn in sets]
    of_prompt = [right[starts[p] : starts[p + 1]] for p in prompts]
    never, by_chance = np.zeros(len(sets)), np.array([group.mean() for group in of_prompt])
    at_best = np.array([any_right(len(group), int(group.sum()), size) for group in of_prompt])
    found = {RANDOM: SelectorOutcome(by_chance, never)}
    for name, by_prompt in scores.items():
        pairs = list(zip(by_prompt, sets, strict=True))
        gains = [_gain(expected_right(own, right[drawn]), right[drawn]) for own, drawn in pairs]
        ties = np.array([undecided(own, candidates.conclusions[drawn]).mean() for own, drawn in pairs])
        found[name] = SelectorOutcome(by_chance + gains, ties)
    return {**found, ORACLE: SelectorOutcome(at_best, never)}


def _gain(chosen: np.ndarray, right: np.ndarray) -> float:
    """Mean gain over a random choice in the same subsets, float64 [S] and bool [S, n]; rounding errors are no gain."""
    return round(float((chosen - right.mean(axis=1)).mean()), DECIMALS)


def compare_selectors(candidates: Candidates, right: np.ndarray, size: int) -> SelectorComparison:
    """All selectors with `size` candidates. `right`: whether each candidate is correct, bool [R]."""
    sets = draw_sets(candidates.starts, size)
    found = selector_outcomes(score_sets(candidates, sets), candidates, right, sets)
    return summarize(found, size, max(map(len, sets)))


@on_one_thread
def summarize(found: Mapping[str, SelectorOutcome], size: int, sets: int) -> SelectorComparison:
    """Means over prompts with intervals from the same resamples for all selectors."""
    prompts = len(found[RANDOM].right)
    counts = resamples(np.arange(prompts), RESAMPLES)
    result = {}
    for name, outcome in found.items():
        gain = np.round(outcome.right - found[RANDOM].right, DECIMALS)
        low, high = _bounds(counts @ outcome.right / prompts, prompts)
        gain_low, gain_high = _bounds(counts @ gain / prompts, prompts)
        result[name] = Accuracy(
            float(outcome.right.mean()), low, high, float(gain.mean()), gain_low, gain_high,
            float(outcome.undecided.mean()),
        )  # fmt: skip
    return SelectorComparison(size, prompts, sets, result)


def _bounds(drawn: np.ndarray, prompts: int) -> tuple[float | None, float | None]:
    return interval(drawn, prompts) if prompts >= FEWEST_PROMPTS else (None, None)
