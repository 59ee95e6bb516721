"""Conclusions of a pool -> how reliable each variant is, and what the pool concludes.

The one-coin model of Dawid and Skene (1979, doi:10.2307/2346806): each variant v is right with probability a[v], wrong
conclusions scatter evenly, and EM estimates the reliabilities and the right conclusions jointly. Here each vote counts
so much; `readings` says how much, as variants may be copies. Pure NumPy.

Symbols: V variants, P prompts, S samples of a prompt; c[v, p, s] the conclusion of a response; q[p](t) the posterior
probability that t is the right conclusion to prompt p. A *cell* is one distinct conclusion to one prompt.
"""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from nex_merge.one_thread import on_one_thread

FIRST_BOUNDS, BOUNDS = (0.05, 0.95), (0.01, 0.99)  # of reliabilities: initial, and during EM
# Wrong conclusions are assumed to scatter over at least this many, where the number of options is not known.
FEWEST_OTHERS = 9
TOLERANCE, ROUNDS = 1e-6, 100
# A single variant has none to agree with.
FEWEST_VARIANTS = 2

Key = Hashable
# By prompt: the conclusions of a variant's S responses; None: no conclusion. A prompt that was not asked is missing.
Conclusions = Mapping[int, Sequence[Key | None]]


@dataclass(frozen=True)
class Fit:
    """What EM found. All NaN, and no pooled conclusions, with fewer than two variants."""

    reliability: np.ndarray  # float64 [V]: a[v]
    by_prompt: np.ndarray  # float64 [V, P]: q[p] of a variant's conclusions, mean over samples; NaN: not asked
    pooled: Mapping[int, Key] = field(default_factory=dict)  # by prompt: the most probable conclusion
    claimed: Mapping[int, float] = field(default_factory=dict)  # by prompt: its posterior probability
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))  # float64 [N]: what each vote counts
    voters: float = 0.0  # what the votes on a prompt count together, mean over prompts: how many voters in effect


class Votes:
    """The N responses with a conclusion, as flat arrays."""

    def __init__(
        self,
        conclusions: Sequence[Conclusions],
        prompts: int,
        options: Mapping[int, int] | None = None,
        truths: Mapping[int, Key | None] | None = None,
    ) -> None:
        """`options`: how many options a prompt offers, where known. `truths`: the right conclusions that are known;
        None: no conclusion of the pool is right."""
        cells: dict[tuple[int, Key], int] = {}
        votes = [
            (v, p, cells.setdefault((p, key), len(cells)), 1 / len(keys))
            for v, by_prompt in enumerate(conclusions)
            for p, keys in by_prompt.items()
            for key in keys
            if key is not None
        ]
        self.cells = list(cells)  # (prompt, conclusion)
        self.variant, self.prompt, self.cell = (np.array([vote[i] for vote in votes], np.int64) for i in range(3))
        self.weight = np.array([vote[3] for vote in votes], np.float64)  # 1 / S
        self.asked = np.zeros((len(conclusions), prompts), bool)
        for v, by_prompt in enumerate(conclusions):
            self.asked[v, list(by_prompt)] = True
        self.cell_prompt = np.array([p for p, _ in cells], np.int64)
        distinct = np.bincount(self.cell_prompt, minlength=prompts)
        # By prompt: m, over how many conclusions wrong ones scatter.
        self.others = np.maximum(distinct - 1, FEWEST_OTHERS).astype(np.float64)
        for p, count in (options or {}).items():
            if p < prompts:
                self.others[p] = max(count - 1, 1)
        truths = truths or {}
        self._is_known = np.isin(self.cell_prompt, list(truths))
        self._truth = np.array([float(p in truths and truths[p] == key) for p, key in cells], np.float64)

    def on(self, prompts: np.ndarray) -> "Votes":
        """The votes on some of the prompts, whose numbers are int64 [n]; the others count as not asked."""
        wanted = np.zeros(self.asked.shape[1], bool)
        wanted[prompts] = True
        kept, voted = wanted[self.cell_prompt], wanted[self.prompt]
        part = copy(self)
        part.cells = [cell for cell, keep in zip(self.cells, kept.tolist(), strict=True) if keep]
        part.cell_prompt, part._is_known, part._truth = self.cell_prompt[kept], self._is_known[kept], self._truth[kept]
        part.variant, part.prompt, part.weight = self.variant[voted], self.prompt[voted], self.weight[voted]
        part.cell = (np.cumsum(kept) - 1)[self.cell[voted]]
        part.asked = self.asked & wanted
        return part

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of the votes' values, [N], over each variant's prompts, [V]; responses without conclusion count as 0."""
        total = np.bincount(self.variant, self.weight * values, minlength=len(self.asked))
        return total / np.maximum(self.asked.sum(axis=1), 1)

    def by_prompt(self, values: np.ndarray) -> np.ndarray:
        """Sums of the votes' weighted values, [N], by variant and prompt, float64 [V, P]; NaN where not asked."""
        place = self.variant * self.asked.shape[1] + self.prompt
        sums = np.bincount(place, self.weight * values, minlength=self.asked.size).reshape(self.asked.shape)
        return np.where(self.asked, sums, np.nan)

    def support(self) -> np.ndarray:
        """Weight of each variant's votes for each cell, float64 [V, cells]."""
        return self.in_cells(self.weight)

    def in_cells(self, values: np.ndarray) -> np.ndarray:
        """Sums of the votes' values, [N], by variant and cell, float64 [V, cells]."""
        shape = (len(self.asked), len(self.cell_prompt))
        return np.bincount(self.variant * shape[1] + self.cell, values, minlength=shape[0] * shape[1]).reshape(shape)

    def shares_of_others(self, counts: np.ndarray | None = None) -> np.ndarray:
        """For each vote, the share of the other variants that were asked and conclude the same, float64 [N].

        With `counts`, what each vote counts, float64 [N]: the share of what the others' votes count.
        """
        if counts is None:
            mine = self.support()
            others = mine.sum(axis=0)[self.cell] - mine[self.variant, self.cell]
            return others / np.maximum(self.asked.sum(axis=0)[self.prompt] - 1, 1)
        mine = self.in_cells(self.weight * counts)
        total = mine.sum(axis=0)
        everyone = np.bincount(self.cell_prompt, total, minlength=len(self.others))
        own = mine[self.variant, self.cell]
        return (total[self.cell] - own) / np.maximum(everyone[self.prompt] - own, 1e-12)

    @on_one_thread
    def counts(self, kinship: np.ndarray) -> np.ndarray:
        """What each vote counts, float64 [N]: 1 over 1 and the votes of the others that repeat it.

        `kinship`, float64 [V, V], 1 on the diagonal: how far each vote of u is one of v again.
        """
        others = kinship - np.eye(len(kinship))
        return 1 / (1 + (others @ self.support())[self.variant, self.cell])

    def same(self) -> np.ndarray:
        """Which variants were asked the same and conclude the same throughout, float64 [V, V] of 0 and 1."""
        rows = [a.tobytes() + b.tobytes() for a, b in zip(self.support(), self.asked, strict=True)]
        places = {row: place for place, row in enumerate(rows)}
        group = np.array([places[row] for row in rows])
        return (group[:, None] == group).astype(np.float64)

    def posterior(self, reliability: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """q of every cell, given a[v] and what each vote counts, float64 [N]; 1 or 0 where the truth is known.

        A vote adds log a to the log-likelihood of its conclusion t, and log((1 - a) / m) to that of the others. Up to a
        constant of the prompt, the log-likelihood of t is the sum of the differences over the votes for t.
        """
        gains = self._gains(reliability, counts)
        log_likelihood = np.bincount(self.cell, gains, minlength=len(self.cell_prompt))
        peak = np.full(len(self.others), -np.inf)
        np.maximum.at(peak, self.cell_prompt, log_likelihood)
        likelihood = np.exp(log_likelihood - peak[self.cell_prompt])
        posterior = likelihood / np.bincount(self.cell_prompt, likelihood)[self.cell_prompt]
        return np.where(self._is_known, self._truth, posterior)

    def em(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reliabilities, float64 [V], and posteriors of the cells, under what each vote counts, float64 [N].

        Starts from the shares of the other votes that agree, until no a[v] moves by more than 1e-6, or 100 rounds.
        """
        reliability = np.clip(self.mean(self.shares_of_others(counts)), *FIRST_BOUNDS)
        for _ in range(ROUNDS):
            posterior = self.posterior(reliability, counts)
            previous, reliability = reliability, np.clip(self.mean(posterior[self.cell]), *BOUNDS)
            if np.abs(reliability - previous).max() <= TOLERANCE:
                break
        return reliability, self.posterior(reliability, counts)

    def known_prompts(self) -> np.ndarray:
        """The prompts of which the right conclusion is known, bool [P]."""
        known = np.zeros(self.asked.shape[1], bool)
        known[self.cell_prompt[self._is_known]] = True
        return known

    @on_one_thread
    def predictions(self, reliability: np.ndarray, counts: np.ndarray, kinship: np.ndarray) -> np.ndarray:
        """The probability of a variant's conclusions given the votes of those that are no kin of it, float64 [V, P].

        The mean over its samples; one without conclusion counts as 0. `kinship`, float64 [V, V] in [0, 1], 1 on the
        diagonal, takes away that share of each vote. That none of the pool's conclusions is right is possible, too.
        """
        order = np.argsort(self.cell_prompt, kind="stable")
        present, first = np.unique(self.cell_prompt[order], return_index=True)
        predicted = np.zeros(self.asked.shape)
        if not len(present):
            return predicted
        gains = self.in_cells(self._gains(reliability, counts))[:, order]
        logs = (1 - kinship) @ gains
        peak = np.maximum(np.maximum.reduceat(logs, first, axis=1), 0.0)
        sizes = np.diff([*first, len(order)])
        likelihood = np.exp(logs - np.repeat(peak, sizes, axis=1))
        elsewhere = np.maximum(self.others[present] + 1 - sizes, 0.0) * np.exp(-peak)
        total = np.add.reduceat(likelihood, first, axis=1) + elsewhere
        agreed = np.add.reduceat(likelihood * self.support()[:, order], first, axis=1)
        predicted[:, present] = agreed / total
        return predicted

    def _gains(self, reliability: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """What each vote adds to the log-likelihood of its conclusion, beyond what it adds to the others', [N]."""
        a, m = reliability[self.variant], self.others[self.prompt]
        return self.weight * counts * (np.log(a) - np.log((1 - a) / m))

    def fit(self, counts: np.ndarray) -> Fit:
        """What the pool concludes, given what each vote counts, float64 [N]; all 1: everybody is one voter."""
        if len(self.asked) < FEWEST_VARIANTS:
            return Fit(np.full(len(self.asked), np.nan), np.full(self.asked.shape, np.nan))
        reliability, posterior = self.em(counts)
        pooled: dict[int, Key] = {}
        claimed: dict[int, float] = {}
        for (p, key), q in zip(self.cells, posterior.tolist(), strict=True):
            if q > claimed.get(p, 0.0):
                pooled[p], claimed[p] = key, q
        voters = float((self.weight * counts).sum() / max(self.asked.any(axis=0).sum(), 1))
        return Fit(reliability, self.by_prompt(posterior[self.cell]), pooled, claimed, counts, voters)
