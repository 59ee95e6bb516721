"""How often each selector is right, with intervals, for several numbers of candidates. Pure NumPy.

Accuracy with N of a prompt's n candidates is the mean over seeded random sets of N (a single one where N = n). Where
candidates are independent draws that is, in expectation, the accuracy with the first N of them, but with less noise and
free of the order that a file has. Neuron weights are made anew from the candidates of each set. Random choice and the
oracle have closed forms. Intervals are over prompts, with the weights as they are; gains over random choice are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.inspect.select.rules import any_right, expected_right, undecided
from nex_merge.inspect.select.selectors import Candidates, score_sets
from nex_merge.nex.scoring import interval, resamples

SETS = 64
RESAMPLES = 2000
RANDOM, ORACLE = "random", "oracle"


@dataclass(frozen=True)
class Accuracy:
    """How often a selector is right; ties count as a draw among the tied."""

    accuracy: float
    low: float | None  # 95 % bootstrap interval over prompts; None with one prompt
    high: float | None
    gain: float  # accuracy minus that of random choice
    gain_low: float | None
    gain_high: float | None
    undecided: float  # share of choices where those at the top conclude differently


@dataclass(frozen=True)
class Comparison:
    """All selectors with N candidates."""

    candidates: int  # N
    prompts: int  # that have as many
    sets: int  # per prompt
    selectors: Mapping[str, Accuracy]


@dataclass(frozen=True)
class Outcome:
    """One selector with N candidates, prompt by prompt."""

    right: np.ndarray  # float64 [P]: how often it is right
    undecided: np.ndarray  # float64 [P]


def sizes(counts: np.ndarray) -> list[int]:
    """The N to compare at: powers of two that some prompt has, and the number of candidates where all have as many."""
    most = int(counts.max())
    found = [2**i for i in range(1, most.bit_length()) if 2**i <= most]
    return sorted({*found, most}) if most > 1 and counts.min() == most else found


def draw_sets(starts: np.ndarray, size: int, count: int = SETS, seed: int = 0) -> list[np.ndarray]:
    """`count` random sets of `size` candidates, int64 [count, size], of every prompt that has as many.

    They are cut from random orders of a prompt's candidates: each is in as many, where `size` divides their number.
    """
    counts = np.diff(starts)
    if (counts[counts >= size] == size).all():
        count = 1
    rng = np.random.default_rng([seed, size])
    found = []
    for low, n in zip(starts[:-1], counts, strict=True):
        if n >= size:
            cuts = n // size
            orders = rng.permuted(np.tile(np.arange(n), (-(-count // cuts), 1)), axis=1)[:, : cuts * size]
            found.append(low + np.sort(orders.reshape(-1, size)[:count], axis=1))
    return found


def outcomes(
    scores: Mapping[str, Sequence[np.ndarray]], candidates: Candidates, right: np.ndarray, sets: Sequence[np.ndarray]
) -> dict[str, Outcome]:
    """Selectors, random choice and the oracle on the sets of P prompts, from `right`, bool [R].

    `scores` are those that selectors give these sets, float64 [S, n] a prompt.
    """
    found = {
        name: Outcome(
            np.array([expected_right(s, right[own]).mean() for s, own in zip(given, sets, strict=True)]),
            np.array([undecided(s, candidates.conclusions[own]).mean() for s, own in zip(given, sets, strict=True)]),
        )
        for name, given in scores.items()
    }
    size, starts = sets[0].shape[1], candidates.starts
    prompts = [int(candidates.prompts[own.flat[0]]) for own in sets]
    theirs = [right[starts[p] : starts[p + 1]] for p in prompts]
    never = np.zeros(len(sets))
    return {
        RANDOM: Outcome(np.array([own.mean() for own in theirs]), never),
        **found,
        ORACLE: Outcome(np.array([any_right(len(own), int(own.sum()), size) for own in theirs]), never),
    }


def compare(candidates: Candidates, right: np.ndarray, size: int, count: int = SETS, seed: int = 0) -> Comparison:
    """All selectors with `size` candidates, from whether each candidate is right, bool [R]."""
    sets = draw_sets(candidates.starts, size, count, seed)
    return summarize(outcomes(score_sets(candidates, sets), candidates, right, sets), size, len(sets[0]))


def summarize(found: Mapping[str, Outcome], size: int, sets: int) -> Comparison:
    """Means over prompts with their intervals; the same resamples of the prompts serve all selectors."""
    prompts = len(found[RANDOM].right)
    counts = resamples(np.arange(prompts), RESAMPLES)
    result = {}
    for name, outcome in found.items():
        gain = outcome.right - found[RANDOM].right
        low, high = interval(counts @ outcome.right / prompts, prompts)
        gain_low, gain_high = interval(counts @ gain / prompts, prompts)
        result[name] = Accuracy(
            float(outcome.right.mean()), low, high, float(gain.mean()), gain_low, gain_high,
            float(outcome.undecided.mean()),
        )  # fmt: skip
    return Comparison(size, prompts, sets, result)
