"""Figures on how a pool's variants contradict one another, which the verdict on consensus rests on.

Symbols as in `votes`: V variants, P prompts, a[v] the reliability of variant v, m conclusions that wrong ones
scatter over.
"""

from collections.abc import Sequence

import numpy as np

from nex_merge.measures.votes import Fit, Votes

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
    weight = votes.in_cells(votes.weight * fit.counts).sum(axis=0)  # relatives that agree are about one voter
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
        "voters": fit.voters,  # in effect
    }
    shared = _agreed_by_anchors(votes, support, anchors)
    figures["anchors_agree"] = len(shared)
    against = sum(fit.pooled.get(p) != votes.cells[cell][1] for p, cell in shared.items())
    figures["anchors_contradict"] = against / len(shared) if shared else None
    return figures


def _agreed_by_anchors(votes: Votes, support: np.ndarray, anchors: Sequence[int]) -> dict[int, int]:
    """By prompt, the conclusion (as a cell) on which most of base and parents, and at least two of them, agree."""
    if len(anchors) < 2:
        return {}
    behind = support[list(anchors)].sum(axis=0)
    asked = votes.asked[list(anchors)].sum(axis=0)
    return {
        int(p): cell for cell, p in enumerate(votes.cell_prompt) if behind[cell] >= 2 and behind[cell] > asked[p] / 2
    }
