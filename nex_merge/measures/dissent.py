"""Figures on how a pool's variants contradict one another, which the verdict on consensus rests on.

Symbols as in `votes`: V variants, P prompts, a[v] the reliability of variant v, m conclusions that wrong ones
scatter over.
"""

from collections.abc import Sequence

import numpy as np

from nex_merge.measures.votes import BOUNDS, Fit, Votes

# A rival conclusion has two votes or more, and this share of those for the pool's.
RIVAL_VOTES, RIVAL_SHARE = 2, 0.4
# Fewer prompts on which any two variants conclude the same: there is no consensus to speak of.
FEWEST_AGREED, AGREED_SHARE = 1, 0.1


def is_defined(votes: Votes) -> bool:
    """Whether enough prompts have a conclusion that two variants share."""
    supporters = np.count_nonzero(votes.support(), axis=0)
    agreed = len(set(votes.cell_prompt[supporters >= 2].tolist()))
    return agreed >= max(FEWEST_AGREED, AGREED_SHARE * votes.asked.any(axis=0).sum())


def dissent_figures(votes: Votes, fit: Fit, anchors: Sequence[int]) -> dict[str, float | None]:
    place = {cell: i for i, cell in enumerate(votes.cells)}
    pooled = np.zeros(len(votes.cells), bool)
    pooled[[place[p, key] for p, key in fit.pooled.items()]] = True
    prompts = votes.asked.shape[1]
    support = votes.support()
    weight = support.sum(axis=0)
    dissent = np.where(pooled, 0.0, weight)
    by_prompt = np.bincount(votes.cell_prompt, dissent, minlength=prompts)
    same = (dissent * np.maximum(dissent - 1, 0)).sum()
    pairs = by_prompt * np.maximum(by_prompt - 1, 0)
    by_chance = (pairs / votes.others).sum()
    top, rival = np.zeros(prompts), np.zeros(prompts)
    np.maximum.at(top, votes.cell_prompt[pooled], weight[pooled])
    np.maximum.at(rival, votes.cell_prompt[~pooled], weight[~pooled])
    has_rival = (rival >= RIVAL_VOTES) & (rival >= RIVAL_SHARE * top)
    asked = int(votes.asked.any(axis=0).sum())  # fewer than there are where some are kept for a final
    by = fit.by_prompt
    agrees = np.where(np.isnan(by), 0, by > 0.5).any(axis=0)
    differs = np.where(np.isnan(by), 0, by < 0.5).any(axis=0)
    figures: dict[str, float | None] = {
        "telling": int((agrees & differs).sum()),
        "pool_accuracy": float(np.nanmean(by)) if np.isfinite(by).any() else None,
        "claimed": float(np.mean(list(fit.claimed.values()))) if fit.claimed else None,
        # Beyond chance, as in Cohen's kappa.
        "concentration": float((same - by_chance) / (pairs.sum() - by_chance)) if pairs.sum() else None,
        "rivals": float(has_rival.sum() / asked) if asked else None,
        # The pool concludes something else than the most variants do: a few who are taken for reliable outvote them.
        "overruled": float((rival > top).sum() / asked) if asked else None,
        "voters": _voters(votes, fit, support),
    }
    shared = _agreed_by_anchors(votes, support, anchors)
    figures["anchors_agree"] = len(shared)
    against = sum(fit.pooled.get(p) != votes.cells[cell][1] for p, cell in shared.items())
    figures["anchors_contradict"] = against / len(shared) if shared else None
    return figures


def _voters(votes: Votes, fit: Fit, support: np.ndarray) -> float | None:
    """Effective number of independent voters: Kish's V^2 / sum of r[u, v].

    r is the agreement of u and v beyond what the fitted reliabilities let expect, (observed - expected) / (1 -
    expected), at least 0; expected is a[u] a[v] + (1 - a[u]) (1 - a[v]) / m, mean over the prompts.
    """
    count = len(support)
    if count < 2 or not np.isfinite(fit.reliability).all():
        return None
    a = np.clip(fit.reliability, *BOUNDS)
    asked = votes.asked.astype(float)
    both = np.maximum(asked @ asked.T, 1)
    observed = (support @ support.T) / both
    scatter = (asked / votes.others) @ asked.T / both
    expected = np.outer(a, a) + np.outer(1 - a, 1 - a) * scatter
    beyond = np.clip((observed - expected) / np.maximum(1 - expected, 1e-9), 0, 1)
    np.fill_diagonal(beyond, 1.0)
    return float(count**2 / beyond.sum())


def _agreed_by_anchors(votes: Votes, support: np.ndarray, anchors: Sequence[int]) -> dict[int, int]:
    """By prompt, the conclusion (as a cell) on which most of base and parents, and at least two of them, agree."""
    if len(anchors) < 2:
        return {}
    behind = support[list(anchors)].sum(axis=0)
    asked = votes.asked[list(anchors)].sum(axis=0)
    return {
        int(p): cell for cell, p in enumerate(votes.cell_prompt) if behind[cell] >= 2 and behind[cell] > asked[p] / 2
    }
