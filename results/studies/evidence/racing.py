"""Races replayed on answers that are known: what ending merges early saves, and what it does to the pick.

Pools of conclusions stand for searches: three random variants are base and parents, the rest are merges in random
order. Each answers the prompts in blocks, those first on which the three disagree, and ends as `study.race` would end
it. Unraced, everything is answered, and the pick is the merge with the highest consensus.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from evidence import pretrained, public, toy, worlds
from evidence.pools import Pool, rank_correlation
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Conclusions, Fit, Votes
from nex_merge.study.race import FEWEST_RIVALS, LEVEL, chance_to_overtake

BASELINES, BLOCK = 3, 8
ENDLESS = 10**9  # of so many prompts, those that are answered are nothing


class Way(NamedTuple):
    """A way to race."""

    level: float = LEVEL
    posterior: str = "with"  # the pool's, with the merge's votes so far, or from before it
    complete_first: int = FEWEST_RIVALS  # merges
    blocks: str = "doubling"  # or equal
    of_all: bool = True  # the chance is that of overtaking on these prompts, not on all that there could be
    first: str = "baselines"  # whose disagreement puts a prompt first: the baselines', or the complete merges'


WAYS = (
    Way(), Way(level=LEVEL / 2), Way(level=2 * LEVEL), Way(blocks="equal"), Way(of_all=False),
    Way(level=LEVEL / 2, blocks="equal", of_all=False), Way(first="merges"), Way(posterior="before"),
    Way(complete_first=1),
)  # fmt: skip


def pools(draws: int) -> Iterator[tuple[str, Pool]]:
    """Simulated pools, public models on 64 prompts, and merges of families."""
    settings = worlds.worlds()
    chosen = [w for w in settings if not w["copies"] and w["share"] in (0.0, 0.6)]
    for world in chosen:
        for seed in range(draws):
            yield (
                f"simulated, {world['low']:g} to {world['high']:g}, share {world['share']:g}",
                worlds.draw(world, seed),
            )
    for benchmark in public.BENCHMARKS:
        pool = public.load(benchmark)
        for part in public.drawn(pool, list(range(len(pool.names))), 64, draws):
            yield benchmark, part
    for _ in range(draws):
        yield "pretrained family", pretrained.load()[0]
    for family in toy.measured():
        for _ in range(draws):
            yield family, toy.load(family)


def replay(pool: Pool, seed: int, way: Way) -> dict[str, Any]:
    """One race: share of the prompts answered by merges, blocks a merge, regret raced and unraced, and Spearman."""
    rng = np.random.default_rng(seed)
    prompts, order = len(pool.truths), rng.permutation(len(pool.names))
    answers = [pool.conclusions[int(i)] for i in order]
    told, complete = [dict(item) for item in answers[:BASELINES]], [False] * BASELINES
    by_baselines = _order(told, rng.permutation(prompts).tolist())
    ends = [*_ends(prompts, way.blocks), prompts]
    blocks = 0
    for merge in answers[BASELINES:]:
        asked: dict[int, Any] = {}
        rivals = [i for i, done in enumerate(complete) if done]
        asking, ended = by_baselines, False
        if way.first == "merges" and len(rivals) >= way.complete_first:
            asking = sorted(by_baselines, key=lambda p, rivals=rivals: _agreement([told[i][p] for i in rivals]))
        for end in ends:
            asked |= {p: merge[p] for p in asking[len(asked) : end]}
            blocks += 1
            if (
                len(rivals) >= way.complete_first
                and len(asked) < prompts
                and _is_behind(told, asked, rivals, prompts, way)
            ):
                ended = True
                break
        told.append(asked)
        complete.append(not ended)
    accuracy = pool.accuracy[order[BASELINES:]]
    raced, whole = _estimates(told, complete, prompts), np.nanmean(_fit(answers, prompts).by_prompt, axis=1)
    pick = max((i for i, done in enumerate(complete) if done), key=lambda i: raced[i])
    return {
        "answered": sum(len(item) for item in told[BASELINES:]) / prompts / len(accuracy),
        "blocks_each": blocks / len(accuracy),
        "complete": np.mean(complete[BASELINES:]),
        "regret": accuracy.max() - accuracy[pick - BASELINES],
        "regret_unraced": accuracy.max() - accuracy[int(np.argmax(whole[BASELINES:]))],
        "spearman": rank_correlation(raced[BASELINES:], accuracy),
        "spearman_unraced": rank_correlation(whole[BASELINES:], accuracy),
    }


def _order(baselines: Sequence[Conclusions], shuffled: list[int]) -> list[int]:
    tell = {p for p in shuffled if len({key for item in baselines for key in item[p]}) > 1}
    return sorted(shuffled, key=lambda p: p not in tell)


def _ends(prompts: int, blocks: str) -> list[int]:
    """How many prompts are answered after each block but the last."""
    if blocks == "equal":
        return list(range(BLOCK, prompts, BLOCK))
    return [BLOCK << i for i in range(prompts.bit_length()) if BLOCK << i < prompts]


def _agreement(concluded: Sequence[Sequence[Any]]) -> int:
    """The sum of squares of how many conclude the same."""
    return sum(count * count for count in Counter(key for keys in concluded for key in keys).values())


def _is_behind(told: list[dict[int, Any]], asked: dict[int, Any], rivals: list[int], prompts: int, way: Way) -> bool:
    if way.posterior == "with":
        values = _fit([*told, asked], prompts).by_prompt
        mine = values[-1]
    else:
        votes = Votes(told, prompts)
        fit = readings(votes).fit
        q = dict(zip(votes.cells, votes.posterior(fit.reliability, fit.counts).tolist(), strict=True))
        values, mine = fit.by_prompt, np.full(prompts, np.nan)
        for p, keys in asked.items():
            mine[p] = np.mean([q.get((p, key), 0.0) for key in keys])
    best = max(rivals, key=lambda i: np.nanmean(values[i]))
    both = np.isfinite(mine) & np.isfinite(values[best])
    return chance_to_overtake(mine[both] - values[best][both], prompts if way.of_all else ENDLESS) < way.level


def _fit(told: Sequence[Any], prompts: int) -> Fit:
    return readings(Votes(told, prompts)).fit


def _estimates(told: list[dict[int, Any]], complete: list[bool], prompts: int) -> np.ndarray:
    """Consensus of all, float64 [V]; of those that ended early, the best's plus the mean difference."""
    values = _fit(told, prompts).by_prompt
    whole = np.nanmean(values, axis=1)
    best = max((i for i, done in enumerate(complete) if done), key=lambda i: whole[i])
    for i, done in enumerate(complete):
        if not done and i >= BASELINES:
            both = np.isfinite(values[i])
            whole[i] = whole[best] + (values[i][both] - values[best][both]).mean()
    return whole


def rows(draws: int) -> list[dict[str, Any]]:
    """A row per pool and way, means over the draws."""
    found: dict[tuple[str, Way], list[dict[str, Any]]] = {}
    for seed, (name, pool) in enumerate(pools(draws)):
        for way in WAYS:
            found.setdefault((name, way), []).append(replay(pool, seed, way))
    return [
        {"pool": name, **way._asdict(), "draws": len(items),
         **{k: float(np.mean([i[k] for i in items if i[k] is not None])) for k in items[0]}}
        for (name, way), items in found.items()
    ]  # fmt: skip
