"""What models conclude on the same prompts, with the truth: one form for simulations, public models and families."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import nex_merge
from nex_merge.measures.ranking import Ranking
from nex_merge.measures.votes import Conclusions, Votes


@dataclass(frozen=True)
class Pool:
    """V models and P prompts. `accuracy`, float64 [V]: of the models, on these or on other problems."""

    names: Sequence[str]
    conclusions: Sequence[Conclusions]
    truths: dict[int, str | None]
    accuracy: np.ndarray

    def of(self, models: Sequence[int], prompts: Sequence[int]) -> "Pool":
        """Some of the models, on some of the prompts."""
        place = {p: i for i, p in enumerate(prompts)}
        return Pool(
            [self.names[m] for m in models],
            [{place[p]: k for p, k in self.conclusions[m].items() if p in place} for m in models],
            {place[p]: key for p, key in self.truths.items() if p in place},
            self.accuracy[list(models)],
        )

    @property
    def labelled(self) -> np.ndarray:
        """Accuracy of each model on these prompts, float64 [V]: what labels on the same prompts say."""
        return np.array([
            np.mean([np.mean([key is not None and key == self.truths[p] for key in keys]) for p, keys in item.items()])
            for item in self.conclusions
        ])  # fmt: skip

    def consensus(self) -> tuple[np.ndarray, Ranking]:
        """The product's consensus of each model, float64 [V], NaN where undefined, and its ranking with the verdict."""
        ranking = nex_merge.consensus(dict(enumerate(self.conclusions)))
        values = {row.name: row.consensus for row in ranking.rows}
        return np.array([np.nan if values[i] is None else values[i] for i in range(len(self.names))]), ranking

    def agreement(self) -> np.ndarray:
        """Plain mean pairwise agreement, float64 [V]."""
        votes = Votes(self.conclusions, len(self.truths))
        return votes.mean(votes.shares_of_others())


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Spearman's correlation; None where either is constant or has gaps."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(spearmanr(x, y)[0])  # pyright: ignore[reportArgumentType]


def regret(x: np.ndarray, accuracy: np.ndarray, top: int = 1) -> float:
    """Best accuracy minus the best among the `top` models by x."""
    order = np.argsort(-np.nan_to_num(x, nan=-np.inf), kind="stable")
    return float(accuracy.max() - accuracy[order[:top]].max())


def figures(pool: Pool) -> dict[str, Any]:
    """How well consensus, plain agreement and labels on the same prompts rank a pool, and what the verdict says."""
    values, ranking = pool.consensus()
    labelled, agreement = pool.labelled, pool.agreement()
    right = [ranking.pooled.get(p) == truth for p, truth in pool.truths.items()]
    return {
        "models": len(pool.names),
        "prompts": len(pool.truths),
        "consensus": rank_correlation(values, pool.accuracy),
        "agreement": rank_correlation(agreement, pool.accuracy),
        "labels": rank_correlation(labelled, pool.accuracy),
        "regret_1": regret(values, pool.accuracy),
        "regret_3": regret(values, pool.accuracy, 3),
        "labels_regret_1": regret(labelled, pool.accuracy),
        "error": float(np.nanmean(np.abs(values - labelled))) if np.isfinite(values).any() else None,
        "pool_right": float(np.mean(right)),
        "claimed": float(np.mean(list(ranking.claimed.values()))) if ranking.claimed else None,
        "verdict": ranking.verdict,
        "reason": ranking.reasons[0] if ranking.reasons else "",
    }


def summarize(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over draws of a pool, and how often each verdict was given."""
    means = {
        key: float(np.mean(values)) if (values := [item[key] for item in found if item[key] is not None]) else None
        for key in found[0]
        if key not in ("verdict", "reason")
    }
    levels = {level: float(np.mean([item["verdict"] == level for item in found])) for level in LEVELS}
    close = [
        item["verdict"] == "sound"
        for item in found
        if item["consensus"] is not None and item["labels"] is not None and item["consensus"] >= item["labels"] - 0.1
    ]
    return {
        **means,
        **levels,
        "close": len(close) / len(found),
        "sound_of_close": float(np.mean(close)) if close else None,
    }


LEVELS = ("sound", "weak", "insufficient")
