"""The definitions of weighted votes that were tried, on pools with one sample a prompt.

Symbols as in `nex_merge.measures.votes`: V variants, P prompts, C cells. `support` is float64 [V, C]. A *form* takes a
pool and gives the consensus of each variant, float64 [V].
"""

from collections.abc import Callable

import numpy as np
from evidence.pools import Pool

from nex_merge.measures.readings import readings
from nex_merge.measures.redundancy import beyond_usual, similarity
from nex_merge.measures.votes import Votes

SAME = 64  # plain similarity to this power: kin whatever is right
Form = Callable[[Votes], np.ndarray]


def votes_of(pool: Pool) -> Votes:
    return Votes(pool.conclusions, len(pool.truths))


def unweighted(votes: Votes) -> np.ndarray:
    """Dawid and Skene as it was: everybody counts one."""
    return np.nanmean(votes.fit(np.ones(len(votes.cell))).by_prompt, axis=1)


def chosen(votes: Votes) -> np.ndarray:
    """What the product does."""
    return np.nanmean(readings(votes).fit.by_prompt, axis=1)


def independent(votes: Votes) -> np.ndarray:
    """Of the two readings, the one in which variants that are alike are right."""
    return np.nanmean(readings(votes).independent.fit.by_prompt, axis=1)


def copies(votes: Votes) -> np.ndarray:
    """The one in which they are copies."""
    return np.nanmean(readings(votes).copies.fit.by_prompt, axis=1)


def power(k: float) -> Form:
    """A variant's votes count 1 over the sum of its plain similarities to the k, whatever it votes for."""

    def form(votes: Votes) -> np.ndarray:
        return _whole(votes, 1 / (_cosine(votes) ** k).sum(axis=1))[0]

    return form


def doubted(k: float, prior: float, first: float = 4, rounds: int = 3) -> Form:
    """As `power`, then similarities on the conclusions that the pool doubts, `prior` added to the denominator."""

    def form(votes: Votes) -> np.ndarray:
        values, posterior = _whole(votes, 1 / (_cosine(votes) ** first).sum(axis=1))
        for _ in range(rounds):
            values, posterior = _whole(votes, 1 / (_cosine(votes, 1 - posterior, prior) ** k).sum(axis=1))
        return values

    return form


def by_vote(k: float, prior: float | None = None, first: float = 1.5, rounds: int = 3) -> Form:
    """Each vote counts 1 over the similar votes for the same conclusion; `prior` None: plain similarity alone."""

    def form(votes: Votes) -> np.ndarray:
        _, posterior = votes.em(votes.counts(_cosine(votes) ** (k if prior is None else first)))
        for _ in range(rounds if prior is not None else 0):
            alike = _cosine(votes, 1 - posterior, prior or 0.0)
            _, posterior = votes.em(votes.counts(alike**k))
        return np.nanmean(votes.by_prompt(posterior[votes.cell]), axis=1)

    return form


def beyond(k: float, prior: float, screen: float, same: bool) -> Form:
    """As `by_vote`, of what two variants have in common beyond the usual; `same`: hardly ever different is kin."""

    def form(votes: Votes) -> np.ndarray:
        plain = _cosine(votes)
        screened = 1 / (plain**screen).sum(axis=1)
        kin = beyond_usual(plain, screened)
        for _ in range(3):
            _, posterior = votes.em(votes.counts(kin))
            kin = beyond_usual(_cosine(votes, 1 - posterior, prior), screened) ** k
            kin = np.maximum(kin, plain**SAME) if same else kin
        return np.nanmean(votes.fit(votes.counts(kin)).by_prompt, axis=1)

    return form


def _cosine(votes: Votes, weight: np.ndarray | None = None, prior: float = 0.0) -> np.ndarray:
    found = similarity(
        votes.support(), votes.asked, votes.cell_prompt, np.ones(len(votes.cells)) if weight is None else weight, prior
    )
    np.fill_diagonal(found, 1.0)
    return np.clip(found, 0, 1)


def _whole(votes: Votes, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Consensus, float64 [V], and the posterior, float64 [C], where a variant's votes count the same everywhere."""
    _, posterior = votes.em(counts[votes.variant])
    return np.nanmean(votes.by_prompt(posterior[votes.cell]), axis=1), posterior


FORMS: dict[str, Form] = {
    "unweighted": unweighted,
    "k = 2": power(2),
    "k = 3": power(3),
    "k = 4": power(4),
    "k = 6": power(6),
    "doubted, k 1, c 2": doubted(1, 2),
    "doubted, k 2, c 5": doubted(2, 5),
    "by vote, k 1": by_vote(1),
    "by vote, k 2": by_vote(2),
    "by vote, k 4": by_vote(4),
    "by vote, doubted, k 1, c 5": by_vote(1, 5),
    "by vote, doubted, k 1.5, c 10": by_vote(1.5, 10),
    "by vote, doubted, k 2, c 5": by_vote(2, 5),
    "beyond, k 1": beyond(1, 5, 4, False),
    "beyond, k 2": beyond(2, 5, 4, False),
    "beyond, all count as usual": beyond(1.5, 5, 0, False),
    "beyond, k 1.5": beyond(1.5, 5, 4, False),
    "independent": independent,
    "copies": copies,
    "chosen": chosen,
}
