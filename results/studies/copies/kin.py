"""Families whose truth is known: are the odds that the pick beats base and parents what they say?

Base and two parents answer, and 16 merges that inherit their answers. Who is to be believed differs:

noise: parents are base with some of its answers spoilt, each its own; merges inherit, and spoil a few themselves.
independent: three members whose mistakes are independent; merges inherit in proportion to their weights.
skills: each parent is right on 0.9 of one half of the prompts and 0.05 of the other; merges keep of either's skill what
  their weight of it allows, so that they are better than both.
drift: merges share one set of spoilt answers that no member has. Answers can't tell this from skills.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from nex_merge.measures.consensus import believed
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.resampling import odds_against, resamples

PROMPTS, MERGES, WRONG = 86, 16, 20
WORLDS = (
    *(("noise", share) for share in (0.05, 0.1, 0.2, 0.3, 0.5)),
    *(("independent", accuracy) for accuracy in (0.3, 0.45, 0.6)),
    *(("skills", kept) for kept in (0.6, 0.8, 1.0)),
    ("drift", 0.4),
)


def draw(kind: str, amount: float, seed: int) -> np.ndarray:
    """int64 [3 + MERGES, PROMPTS]: base, two parents, merges; 0 the right answer."""
    rng = np.random.default_rng([seed, len(kind), int(100 * amount)])
    half = np.arange(PROMPTS) < PROMPTS // 2
    if kind == "independent":
        members = [_model(rng, amount) for _ in range(3)]
    elif kind == "skills":
        members = [_model(rng, 0.1), _model(rng, np.where(half, 0.9, 0.05)), _model(rng, np.where(half, 0.05, 0.9))]
    else:
        base = _model(rng, 0.65)
        members = [base, *(_spoilt(rng, base, 0.3 if kind == "drift" else amount) for _ in range(2))]
    drift = _spoilt(rng, members[0], amount)
    merges = [_merge(rng, kind, amount, np.array(members), half, drift) for _ in range(MERGES)]
    return np.array([*members, *merges])


def rows(draws: int) -> Iterator[dict[str, Any]]:
    """A row a world: how often a claim is made (odds above 0.95), and how often a claim that is made is wrong."""
    for kind, amount in WORLDS:
        found = [odds(draw(kind, amount, seed)) for seed in range(draws)]
        lead = np.array([item["lead"] for item in found])
        row: dict[str, Any] = {"world": kind, "amount": amount, "pick_ahead": float((lead > 0).mean()),
                               "lead": float(lead.mean())}  # fmt: skip
        for way in ("as_many", "weighted", "range"):
            claimed = np.array([item[way] for item in found]) > 0.95
            row |= {f"{way}_claimed": float(claimed.mean()), f"{way}_wrong": float((claimed & (lead <= 0)).mean())}
        yield row


def odds(answers: np.ndarray) -> dict[str, float]:
    """Odds of the pick against base and parents: votes as many as there are, weighted, and the lowest of the range."""
    conclusions = [{p: [int(key)] for p, key in enumerate(row)} for row in answers]
    found, merges = readings(Votes(conclusions, PROMPTS)), np.arange(len(answers)) >= 3
    fit = found.fit
    held = {"weighted": fit.by_prompt, "as_many": found.votes.fit(np.ones(len(found.votes.cell))).by_prompt}
    held |= {f"belief {i}": other.by_prompt for i, other in enumerate(believed(found, merges))}
    counts = resamples(np.arange(PROMPTS))
    pick = int(np.argmax(fit.by_prompt[3:].mean(axis=1)))
    odds = {way: float(_odds(values, counts)[pick]) for way, values in held.items()}
    accuracy = (answers == 0).mean(axis=1)
    lead = accuracy[3 + pick] - accuracy[:3].max()
    return {"lead": float(lead), "range": min(odds.values()), **odds}


def _odds(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    drawn, mean = values @ counts.T / PROMPTS, values.mean(axis=1)
    return odds_against(mean[3:], drawn[3:], mean[:3], drawn[:3], PROMPTS)


def _model(rng: np.random.Generator, accuracy: float | np.ndarray) -> np.ndarray:
    right = rng.random(PROMPTS) < accuracy
    return np.where(right, 0, 1 + rng.integers(WRONG, size=PROMPTS))


def _spoilt(rng: np.random.Generator, answers: np.ndarray, share: float) -> np.ndarray:
    return np.where(rng.random(PROMPTS) < share, _model(rng, 0.3), answers)


def _merge(
    rng: np.random.Generator, kind: str, amount: float, members: np.ndarray, half: np.ndarray, drift: np.ndarray
) -> np.ndarray:
    weights = rng.dirichlet([0.5, 1, 1])
    inherited = members[rng.choice(3, PROMPTS, p=weights), np.arange(PROMPTS)]
    if kind == "skills":
        kept = amount * np.where(half, weights[1], weights[2]) ** 0.3
        known = (members == 0).any(axis=0) & (rng.random(PROMPTS) < kept)
        return np.where(known, 0, np.where(rng.random(PROMPTS) < 0.5, inherited, _model(rng, 0.1)))
    if kind == "drift":
        return np.where(rng.random(PROMPTS) < 0.85, drift, inherited)
    return _spoilt(rng, inherited, 0.05)
