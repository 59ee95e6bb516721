"""How well consensus ranks the merges of the toy families that were measured, over prompts, pools and halves."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from evidence import toy
from evidence.pools import Pool, figures, rank_correlation, regret, summarize
from nex_merge.resampling import LEVEL

PROMPTS, SIZES, DRAWS, RESAMPLES = (16, 32, 64), (4, 6, 8, 12), 30, 1000


def rows() -> list[dict[str, Any]]:
    """A row per family and pool, means over draws."""
    return [
        {"family": family, "pool": name, **extra, **summarize([figures(part) for part in parts])}
        for family in toy.measured()
        for name, parts, extra in _pools(toy.load(family))
    ]


def _pools(pool: Pool) -> Iterator[tuple[str, list[Pool], dict[str, Any]]]:
    rng = np.random.default_rng(0)
    everyone, prompts = list(range(len(pool.names))), len(pool.truths)
    merges = [i for i in everyone if pool.names[i].isdigit()]
    members = [i for i in everyone if i not in merges]

    def some(count: int) -> list[int]:
        return [int(p) for p in rng.choice(prompts, count, replace=False)]

    for count in PROMPTS:
        parts = [pool] if count == prompts else [pool.of(everyone, some(count)) for _ in range(DRAWS)]
        yield f"all, {count} prompts", parts, _interval(pool) if count == prompts else _nothing()
    better = sorted(merges, key=lambda i: -pool.accuracy[i])[: len(merges) // 2]
    yield "better half of the merges", [pool.of(better, range(prompts))], _interval(pool.of(better, range(prompts)))
    for size in (size for size in SIZES if size < len(merges)):
        drawn = [
            pool.of([*members, *rng.choice(merges, size, replace=False).tolist()], range(prompts)) for _ in range(DRAWS)
        ]
        yield f"{size} merges, base and parents", drawn, _nothing()


def _interval(pool: Pool) -> dict[str, Any]:
    """95 % bootstrap interval, over variants, of the Spearman correlation of consensus with accuracy."""
    values, rng = pool.consensus()[0], np.random.default_rng(1)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(len(values), size=len(values))
        found = rank_correlation(values[chosen], pool.accuracy[chosen])
        drawn += [] if found is None else [found]
    low, high = np.quantile(drawn, LEVEL)
    return {"low": float(low), "high": float(high), "labels_regret_3": regret(pool.labelled, pool.accuracy, 3)}


def _nothing() -> dict[str, Any]:
    return {"low": None, "high": None, "labels_regret_3": None}
