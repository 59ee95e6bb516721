"""Searches of 40 and 100 trials by consensus: what a pool that is mostly copies of its favourite does.

Run folders lie in results/study_data/searches/FAMILY, named ARM-SEED: `unraced-0`, made with copies counted once, and
`one-voter-0`, made with everybody as one voter (at the commit before). The first 40 trials of a search of 100 are the
search of 40.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence.pools import rank_correlation
from evidence.searches import DATA, Grader
from ranking.families import FAMILIES, LATER
from ranking.measure import opened

from nex_merge import conclude
from nex_merge.families.qwen3_tiny.problems import Problem
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.runs.run import RunFolder

ARMS = {"one-voter": "one voter each", "unraced": "copies once"}
TRIALS = (40, 100)
STARTUP = 10  # trials before TPE takes over: they are spread over the space
Pool = Sequence[Mapping[int, Sequence[Any]]]


def rows() -> Iterator[dict[str, Any]]:
    for family in FAMILIES | LATER:
        folders = [f for arm in ARMS for f in sorted((DATA / family).glob(f"{arm}-?")) if (f / "trials").exists()]
        grader = Grader(family) if folders else None
        for folder in folders:
            for trials in TRIALS:
                yield {"family": family, **_measured(folder, trials, opened(family, 1).prompts, grader)}


def _measured(folder: Path, trials: int, problems: Sequence[Problem], grader: Grader | None) -> dict[str, Any]:
    """A search's first trials, ranked in every way; accuracy on its 64 prompts, and of its own pick on 1,024 others."""
    arm, _, seed = folder.name.rpartition("-")
    run = RunFolder(folder)
    results = run.results()
    members = [one.trial for one in results if one.kind != "merge"]
    merges = [
        one.trial for one in results if one.kind == "merge" and one.state == "complete" and int(one.trial) < trials
    ]
    names, right, pool = [*members, *merges], [], []
    for name in names:
        responses = run.responses(name)
        pool.append({r.prompt: [None if r.truncated else conclude(r.text, "text")] for r in responses})
        right.append(np.mean([problems[r.prompt].is_right(r.text) for r in responses]))
    accuracy, first = np.array(right)[len(members) :], len(members)
    row: dict[str, Any] = {"arm": ARMS[arm], "seed": seed, "trials": trials, "merges": len(merges)}
    row |= {"best_on_prompts": float(accuracy.max()), "equal_weights_on_prompts": float(accuracy[0])}
    ways = _ways(pool, first + sum(int(name) < STARTUP for name in merges))
    for way, values in ways.items():
        pick = int(np.argmax(values[first:]))
        row |= {f"{way}: pick": float(accuracy[pick]), f"{way}: rho": rank_correlation(values[first:], accuracy)}
    own = {"one voter each": "one voter", "copies once": "now"}[ARMS[arm]]
    pick = merges[int(np.argmax(ways[own][first:]))]
    row |= {"voters": readings(Votes(pool, len(problems))).fit.voters, "own_pick": pick}
    if grader is not None:
        row["own_pick_on_others"] = grader(f"{folder.name}-of-{trials}", run.recipe(_result(results, pick)))
    return row


def _result(results: Sequence[Any], trial: str) -> Any:
    return next(one for one in results if one.trial == trial)


def _ways(pool: Pool, standing: int) -> dict[str, np.ndarray]:
    """Values of all variants: with one voter each, now, and as only members and the first trials vote."""
    prompts = 1 + max(p for item in pool for p in item)
    votes = Votes(pool, prompts)
    alone = votes.fit(np.ones(len(votes.cell)))
    few = Votes(pool[:standing], prompts)
    fit = readings(few).fit
    posterior = dict(zip(few.cells, few.posterior(fit.reliability, fit.counts).tolist(), strict=True))
    judged = [np.mean([posterior.get((p, key), 0.0) for p, keys in item.items() for key in keys]) for item in pool]
    return {
        "one voter": np.nanmean(alone.by_prompt, axis=1),
        "now": np.nanmean(readings(votes).fit.by_prompt, axis=1),
        "standing voters": np.array(judged),
    }
