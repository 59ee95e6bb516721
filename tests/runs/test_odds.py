"""Odds against base and parents: a range where they hang on how far merges vouch for one another, and no claim then."""

from dataclasses import replace

import numpy as np
import pytest

from nex_merge.measures.consensus import TOGETHER, believed
from nex_merge.measures.estimates import Objective, score_pool
from nex_merge.measures.measure import Pool, Rules
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.records import Estimate, Observation, Response, Variant
from nex_merge.runs.odds import better, is_open, odds
from nex_merge.setup.config import ConsensusConfig
from tests.rows import row_of

PROMPTS = 48


def row(low, most, equal=0.6, equal_most=0.62):
    found = Estimate(
        0.5, beats_parent=low, beats_parent_most=most, beats_equal=equal, beats_equal_most=equal_most,
    )  # fmt: skip
    return replace(row_of("0000"), estimates={"consensus": found})


@pytest.mark.parametrize(
    ("low", "most", "told", "said"),
    [
        (0.0, 0.998, "0% to 100%", "not settled"),
        (0.6, 0.97, "60% to 97%", ""),
        (0.96, 0.99, "96%", "sound, at 96% or more"),
        (0.01, 0.4, "1% to 40%", ""),
        (0.5, 0.9, "50% to 90%", ""),
    ],
)
def test_where_the_order_flips_nothing_is_claimed(low, most, told, said):
    pick = row(low, most)
    assert odds(pick, "consensus") == [f"confidence that it beats base and every parent {told}, equal weights 60%"]
    lines = list(better(pick, "consensus"))
    assert bool(lines) == bool(said) and all(said in line for line in lines)
    assert is_open(pick, "consensus") == (said == "not settled")
    unvoted = replace(row_of("0000"), estimates={"nex": Estimate(0.5, beats_parent=0.99)})
    assert list(better(unvoted, "nex")) == [], "only consensus hangs on kin"


def variant(name, keys):
    responses = tuple(Response(p, 0, (1,), (1,), f"The answer is {key}.", False) for p, key in enumerate(keys))
    kind = "merge" if name.isdigit() else "base" if name == "base" else "parent"
    return Variant(name, kind, True, Observation(responses))


def pool(answers):
    """Right is 0. `answers`, by name, of ints."""
    variants = [variant(name, [str(key) for key in keys]) for name, keys in answers.items()]
    return Pool(variants, Rules(consensus=ConsensusConfig(match="number")))


def family(damaged):
    """Base is right on two thirds; merges share their damage or, if not damaged, have the skills of both parents."""
    rng = np.random.default_rng(0)
    numbers = iter(range(1, 10_000))
    base = [0 if rng.random() < 0.66 else next(numbers) for _ in range(PROMPTS)]
    if damaged:  # what is spoilt is spoilt alike in all merges
        spoilt = [next(numbers) if rng.random() < 0.6 else key for key in base]
        parents = [[next(numbers) if rng.random() < 0.3 else key for key in base] for _ in range(2)]
        merges = [[key if rng.random() < 0.95 else next(numbers) for key in spoilt] for _ in range(12)]
    else:
        parents = [[0 if (p % 2 == i or rng.random() < 0.2) else next(numbers) for p in range(PROMPTS)] for i in (0, 1)]
        merges = [[0 if rng.random() < 0.97 else next(numbers) for _ in range(PROMPTS)] for _ in range(12)]
    names = [f"{i:04d}" for i in range(12)]
    return {"base": base, "a": parents[0], "b": parents[1]} | dict(zip(names, merges, strict=True))


def test_merges_that_share_their_damage_are_not_said_to_beat_base():
    found = pool(family(damaged=True))
    estimates = score_pool(found, Objective("consensus", 1)).estimates
    item = max((estimates[f"{i:04d}"]["consensus"] for i in range(12)), key=lambda each: each.value)
    assert item.beats_parent < 0.05 and item.beats_parent_most > 0.95, "it flips with how many voters merges are"


def test_merges_that_have_the_skills_of_both_are():
    found = pool(family(damaged=False))
    estimates = score_pool(found, Objective("consensus", 1)).estimates
    best = max((estimates[f"{i:04d}"]["consensus"] for i in range(12)), key=lambda each: each.value)
    assert best.beats_parent > 0.95 and best.beats_parent_most >= best.beats_parent


def test_merges_count_together_as_few_voters_in_some_of_the_beliefs():
    answers = family(damaged=True)
    found = readings(Votes([{p: [key] for p, key in enumerate(keys)} for keys in answers.values()], PROMPTS))
    merges = np.array([name.isdigit() for name in answers])
    fits = believed(found, merges)
    together = [np.nansum(found.votes.by_prompt(fit.counts)[merges]) / PROMPTS for fit in fits]
    counted = np.nansum(found.votes.by_prompt(found.fit.counts)[merges]) / PROMPTS
    assert together[1] == pytest.approx(12), "everybody is one voter"
    assert together[2:] == pytest.approx([few for few in TOGETHER if few < counted])
    assert believed(found, np.ones(15, bool)) == [], "without members there is nothing to weigh merges against"
