"""Do variants that agree repeat one another, or are they right? Two readings of the same answers, and which to take.

Of n votes whose errors are correlated at rho, the sum is worth n / (1 + (n - 1) rho) independent ones (Kish, 1965, the
design effect), so that each counts 1 / (1 + the sum of rho over the others that say the same). Sequence weighting does
the same with relatives in a family of proteins (Henikoff and Henikoff, 1994, doi:10.1016/0022-2836(94)90032-9). Only
votes for the same conclusion count against one another: relatives that disagree on a prompt do not repeat each other.

rho[u, v], here called kinship, comes from what u and v conclude alike although the pool doubts it, beyond what either
has in common with most others: agreeing on what is right shows nothing. But what is doubted depends on who is kin. A
dozen copies of a bad model that are taken for independent make its mistakes the pool's conclusions; a dozen good merges
taken for copies make theirs doubtful. Within the dozen, the answers are the same in both cases; the others' are not. So
there are two readings: in one, variants that are alike are copies; in the other, all are independent but those that
conclude the same throughout. The first is taken where variants that are kin under neither predict one another's
conclusions better under it, by a margin.

Symbols as in `votes`. Pure NumPy.
"""

from dataclasses import dataclass

import numpy as np

from nex_merge.measures.redundancy import beyond_usual, similarity
from nex_merge.measures.votes import FEWEST_VARIANTS, Fit, Votes

# A pair needs several doubted conclusions in common before it is taken for kin: DOUBTS that they don't share are added
# to the denominator. A weak likeness counts less than in proportion: POWER. results/studies/copies.md has what the
# constants were chosen on.
DOUBTS, POWER, ROUNDS = 5.0, 1.5, 2
# Plain similarity to this power tells copies: of these, about one counts where it is asked what most others say.
SCREEN = 4
# Variants that are alike are taken for copies if the others predict one another's conclusions better by this then.
MARGIN = 0.03
# The version of this definition, kept with a run. 1: every variant counts as one voter, copies too. 2: as here.
DEFINITION = 2


@dataclass(frozen=True)
class Reading:
    """One way to read the answers."""

    kinship: np.ndarray  # float64 [V, V] in [0, 1], 1 on the diagonal: how far each vote of u is one of v again, by it
    fit: Fit


@dataclass(frozen=True)
class Readings:
    """Both readings of a pool's votes."""

    votes: Votes
    independent: Reading
    copies: Reading
    gained: float  # how much better variants predict those that are kin under neither, if copies: in [-1, 1]
    likeness: np.ndarray  # float64 [V, V]: plain similarity of the conclusions, 1 on the diagonal

    @property
    def are_copies(self) -> bool:
        """Whether variants that are alike are taken for copies."""
        return self.gained > MARGIN

    @property
    def chosen(self) -> Reading:
        return self.copies if self.are_copies else self.independent

    @property
    def other(self) -> Reading:
        return self.independent if self.are_copies else self.copies

    @property
    def fit(self) -> Fit:
        """What the pool concludes under the chosen reading."""
        return self.chosen.fit

    def torn(self) -> tuple[float, float]:
        """What would be if all likeness were kinship: one and the other figure that the verdict asks for.

        The share of the prompts on which the pool would conclude something else; and how much better variants predict
        those that are no kin of theirs under the chosen reading, as `gained`.
        """
        harsh = Reading(self.likeness, self.votes.fit(self.votes.counts(self.likeness)))
        one, other = self.fit.pooled, harsh.fit.pooled
        changed = sum(one[p] != other.get(p) for p in one) / max(len(one), 1)
        return changed, _gain(self.votes, self.chosen, harsh)


def readings(votes: Votes) -> Readings:
    """Both readings of a pool."""
    count = len(votes.asked)
    if count < FEWEST_VARIANTS:
        alone = Reading(np.eye(count), votes.fit(np.ones(len(votes.cell))))
        return Readings(votes, alone, alone, 0.0, np.eye(count))
    plain = similarity(votes.support(), votes.asked, votes.cell_prompt, np.ones(len(votes.cells)))
    np.fill_diagonal(plain, 1.0)
    same, screened = votes.same(), 1 / (plain**SCREEN).sum(axis=1)
    once = votes.counts(same)
    independent = Reading(_doubted(votes, once, same, screened), votes.fit(once))
    kinship = np.maximum(beyond_usual(plain, screened), same)
    for _ in range(ROUNDS):
        kinship = _doubted(votes, votes.counts(kinship), same, screened)
    copies = Reading(kinship, votes.fit(votes.counts(kinship)))
    return Readings(votes, independent, copies, _gain(votes, copies, independent), plain)


def _doubted(votes: Votes, counts: np.ndarray, same: np.ndarray, screened: np.ndarray) -> np.ndarray:
    """Kinship by what the pool doubts if votes count so, float64 [V, V]. `screened` as in `beyond_usual`."""
    _, posterior = votes.em(counts)
    doubted = similarity(votes.support(), votes.asked, votes.cell_prompt, 1 - posterior, DOUBTS)
    return np.maximum(beyond_usual(doubted, screened) ** POWER, same)


def _gain(votes: Votes, one: Reading, other: Reading) -> float:
    """How much better variants predict those that are kin under neither reading, under `one` than under `other`.

    The probability of a variant's conclusions given its non-kin's, mean over its prompts of which the truth is not
    known, then over variants, of which relatives count about once.
    """
    kinship = np.maximum(one.kinship, other.kinship)
    weight, counts = 1 / kinship.sum(axis=1), votes.counts(kinship)
    open_ = votes.asked & ~votes.known_prompts()
    predicted, otherwise = (votes.predictions(each.fit.reliability, counts, kinship) for each in (one, other))
    gained = predicted - otherwise
    means = np.where(open_, gained, 0.0).sum(axis=1) / np.maximum(open_.sum(axis=1), 1)
    return float((weight * means).sum() / weight.sum())
