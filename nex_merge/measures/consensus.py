"""Consensus: agreement of a variant's conclusions with those of the pool, weighted by reliability.

The one-coin model of Dawid and Skene (1979): each variant v is right with probability a[v], wrong conclusions scatter,
and EM estimates the reliabilities and the right conclusions jointly.

Symbols: V variants, P prompts, S samples of a prompt; c[v, p, s] the conclusion of a response; q[p, t] the posterior
probability that t is the right conclusion to prompt p. A response that was cut off, is empty or can't be parsed has no
conclusion, which counts as agreeing with no variant.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.answers.conclusions import Key, after_thinking, conclude, is_unfinished
from nex_merge.measures.measure import Measure, Pool, Value
from nex_merge.records import Response
from nex_merge.setup.config import NexConfig

FIRST_BOUNDS, BOUNDS = (0.05, 0.95), (0.01, 0.99)  # of reliabilities: initial, and during EM
# Wrong conclusions are assumed to scatter over at least this many.
FEWEST_OTHERS = 9
TOLERANCE, ROUNDS = 1e-6, 100
# A single variant has none to agree with.
FEWEST_VARIANTS = 2

# By prompt: the conclusions of a variant's S responses; None: no conclusion.
Conclusions = Mapping[int, Sequence[Hashable | None]]


@dataclass(frozen=True)
class Consensus(Measure):
    """Mean posterior probability of a variant's conclusions."""

    def values(self, pool: Pool) -> list[Value]:
        by_trial = {v.trial: v.observation.responses for v in pool.variants}
        match = pool.consensus.match if pool.consensus.match != "auto" else choose_match(list(by_trial.values()))
        conclusions = [_conclusions(responses, match) for responses in by_trial.values()]
        return [
            Value(None if np.isnan(row).all() else float(np.nanmean(row)), np.nan_to_num(row), np.isfinite(row) * 1.0)
            for row in agreement_with_pool(conclusions, pool.prompts)
        ]

    def is_pooled(self, nex: NexConfig) -> bool:
        return True


def agreement_with_pool(conclusions: Sequence[Conclusions], prompts: int) -> np.ndarray:
    """q of each variant's conclusions, mean over samples, float64 [V, P]; NaN for prompts without responses.

    All NaN with fewer than two variants.
    """
    undefined = np.full((len(conclusions), prompts), np.nan)
    if len(conclusions) < FEWEST_VARIANTS:
        return undefined
    votes = _Votes(conclusions, prompts)
    reliability = np.clip(votes.mean(votes.shares_of_others()), *FIRST_BOUNDS)
    for _ in range(ROUNDS):
        posterior = votes.posterior(reliability)
        previous, reliability = reliability, np.clip(votes.mean(posterior[votes.cell]), *BOUNDS)
        if np.abs(reliability - previous).max() <= TOLERANCE:
            break
    sums = np.zeros((len(conclusions), prompts))
    np.add.at(sums, (votes.variant, votes.prompt), votes.weight * votes.posterior(reliability)[votes.cell])
    return np.where(votes.asked, sums, np.nan)


class _Votes:
    """The N responses with a conclusion, as flat arrays. A *cell* is one distinct conclusion to one prompt."""

    def __init__(self, conclusions: Sequence[Conclusions], prompts: int) -> None:
        cells: dict[tuple[int, Hashable], int] = {}
        votes = [
            (v, p, cells.setdefault((p, key), len(cells)), 1 / len(keys))
            for v, by_prompt in enumerate(conclusions)
            for p, keys in by_prompt.items()
            for key in keys
            if key is not None
        ]
        self.variant, self.prompt, self.cell = (np.array([vote[i] for vote in votes], np.int64) for i in range(3))
        self.weight = np.array([vote[3] for vote in votes], np.float64)  # 1 / S
        self.asked = np.zeros((len(conclusions), prompts), bool)
        for v, by_prompt in enumerate(conclusions):
            self.asked[v, list(by_prompt)] = True
        self._cell_prompt = np.array([p for p, _ in cells], np.int64)
        distinct = np.bincount(self._cell_prompt, minlength=prompts)
        self._others = np.maximum(distinct - 1, FEWEST_OTHERS)  # by prompt

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of the votes' values, [N], over each variant's prompts, [V]; responses without conclusion count as 0."""
        total = np.bincount(self.variant, self.weight * values, minlength=len(self.asked))
        return total / np.maximum(self.asked.sum(axis=1), 1)

    def shares_of_others(self) -> np.ndarray:
        """For each vote, the share of the other variants with responses to the prompt that conclude the same, [N]."""
        mine = np.zeros((len(self.asked), len(self._cell_prompt)))
        np.add.at(mine, (self.variant, self.cell), self.weight)
        others = mine.sum(axis=0)[self.cell] - mine[self.variant, self.cell]
        return others / np.maximum(self.asked.sum(axis=0)[self.prompt] - 1, 1)

    def posterior(self, reliability: np.ndarray) -> np.ndarray:
        """q of every cell, given a[v].

        A vote adds log a to the log-likelihood of its conclusion t, and log((1 - a) / m) to that of the others. Up to a
        constant of the prompt, the log-likelihood of t is the sum of the differences over the votes for t.
        """
        a, m = reliability[self.variant], self._others[self.prompt]
        gain = self.weight * (np.log(a) - np.log((1 - a) / m))
        log_likelihood = np.bincount(self.cell, gain, minlength=len(self._cell_prompt))
        peak = np.full(len(self._others), -np.inf)
        np.maximum.at(peak, self._cell_prompt, log_likelihood)
        likelihood = np.exp(log_likelihood - peak[self._cell_prompt])
        return likelihood / np.bincount(self._cell_prompt, likelihood)[self._cell_prompt]


def choose_match(answers: Sequence[Sequence[Response]]) -> str:
    """`choice` or `number` if the last lines of most responses conclude one, else `text`."""
    ends = [after_thinking(response.text).rpartition("\n")[2] for responses in answers for response in responses]
    # An option's text may hold a number ("B) 5 N"), but a number holds no option.
    for match in ("choice", "number"):
        if 2 * sum(conclude(end, match) is not None for end in ends) > len(ends):
            return match
    return "text"


def _conclusions(responses: Sequence[Response], match: str) -> dict[int, list[Key | None]]:
    by_prompt: dict[int, list[Key | None]] = {}
    for response in responses:
        unfinished = response.truncated or is_unfinished(response.text, response.truncated, False)
        by_prompt.setdefault(response.prompt, []).append(None if unfinished else conclude(response.text, match))
    return by_prompt


CONSENSUS = Consensus(
    "consensus", 1, "", 3,
    "agreement of a variant's conclusions with those of the pool, weighted by reliability; estimates accuracy if most "
    "variants don't share their mistakes",
    heading="consensus", with_interval=True, needs_pool=True,
)  # fmt: skip
