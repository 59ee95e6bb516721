"""Random candidates, with ties, undefined scores and empty responses."""

from itertools import pairwise

import numpy as np

from nex_merge.inspect.select import rules
from nex_merge.inspect.select.selectors import CandidatePool, Candidates
from nex_merge.records import Credits, SparseGroups


def random_scores(rng, *shape):
    """Scores with many ties and some undefined ones."""
    scores = rng.integers(0, 3, shape).astype(float)
    scores[rng.random(shape) < 0.2] = np.nan
    return scores


def random_sets(rng, count, empty=0.1):
    return [
        rng.choice(40, 0 if rng.random() < empty else rng.integers(1, 25), replace=False).astype(np.uint32)
        for _ in range(count)
    ]


def random_pool(rng, sets):
    """(masses, credit) with mass on all neurons of these sets, and credit on about half."""
    ptr = np.concatenate([[0], np.cumsum([len(own) for own in sets])])
    keys = np.concatenate([np.sort(own) for own in sets]).astype(np.uint32)
    base = SparseGroups(ptr, keys, rng.random(len(keys)).astype(np.float16))
    credited = rng.random(len(keys)) < 0.5
    bounds = np.concatenate([[0], np.cumsum(credited)])[ptr]
    effective, redundant = (rng.random(credited.sum()).astype(np.float32) for _ in range(2))
    return base, Credits(bounds, keys[credited], effective, redundant)


def random_candidates(rng, counts, **changes):
    """Random candidates, `counts` of each prompt, some of them empty."""
    sets = random_sets(rng, sum(counts))
    return assemble(rng, sets, counts, *random_pool(rng, sets), **changes)


def assemble(rng, sets, counts, base, credits, **changes):
    empty = np.array([len(own) == 0 for own in sets])
    bounds = np.concatenate([[0], np.cumsum(counts)])
    numbers = {
        name: np.where(empty, np.nan, rng.integers(1, 5, len(sets)))
        for name in ("tokens", "entropy", "self_certainty", "neurons")
    }
    found = {
        "prompts": np.repeat(np.arange(len(counts)), counts),
        "conclusions": np.where(empty, -1, rng.integers(-1, 3, len(sets))),
        "similarity": tuple(rules.similarities(sets[a:b]) for a, b in pairwise(bounds)),
        "pool": CandidatePool(base, credits),
        **numbers,
        **changes,
    }
    return Candidates(**found)
