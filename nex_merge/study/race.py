"""Racing: a merge answers the prompts in blocks, and ends early where it is unlikely to overtake the best so far.

Deterministic: the order of the prompts follows from the study's seed and the baselines' answers, and a decision from
the answers of the trials before and of the blocks so far. So an interrupted trial goes on as if it had not been.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.constraints import Constraint
from nex_merge.measures.estimates import Objective
from nex_merge.measures.guard import collapse
from nex_merge.measures.measure import Pool, Rules, Value
from nex_merge.measures.registry import MEASURES, OBJECTIVES
from nex_merge.records import Observation, Variant
from nex_merge.setup.config import RunConfig
from nex_merge.study.terms import Terms
from nex_merge.wording import counted

# A merge ends below this chance to overtake the best, after each block, not corrected for there being several: ending a
# good merge costs one of many, and going on with bad ones costs most of the tokens. What that does to the pick is in
# results/studies/search-efficiency.md.
LEVEL = 0.2
# Merges that have to have answered all prompts first, infeasible ones included. With fewer, base, parents and a few
# merges near one of them make up a pool that ranks little (Spearman with accuracy 0.70 with 4 merges, 0.95 with 6,
# results/studies/ranking.md), and it would end what is better than all of them.
FEWEST_RIVALS = 6
# Of a few responses the guard would take some sound merges for collapsed: before all are there, a merge has to exceed
# the allowance by as much again.
RUINED = 1.0
EXACT = 50  # differences up to which the test's distribution is computed exactly


@dataclass(frozen=True)
class Stop:
    """Why a trial ended before it had answered all prompts."""

    state: str  # pruned | collapsed
    reason: str
    violation: float | None = None  # if collapsed
    lost_to: str | None = None  # if pruned


def check_race(config: RunConfig, prompts: int, objective: Objective, constraints: Sequence[Constraint]) -> None:
    """Raise InputError if the pruner can't work with the objective, or has no block to stop after."""
    if config.study.pruner == "none":
        return
    if objective.others:
        raise InputError(
            "study.pruner: wilcoxon ends merges that are worse by one objective, and with study.objectives they may be "
            "on the front. Use study.pruner: none, or study.objective with study.constraints"
        )
    if not objective.measure.can_race(config.nex):
        able = ", ".join(name for name, measure in OBJECTIVES.items() if measure.can_race(config.nex))
        raise InputError(
            f"study.pruner: wilcoxon compares merges prompt by prompt from their answers, and {objective.name} is "
            f"defined only once all prompts are answered and captured. Use study.pruner: none, or study.objective: one "
            f"of {able}"
        )
    for name in [each.measure for each in constraints]:
        if not MEASURES[name].is_by_prompt(config.nex):
            raise InputError(
                f"study.pruner: wilcoxon ends merges before all prompts are answered, and {name} is defined only then, "
                f"so they can't be held to study.constraints.{name}. Use study.pruner: none, or leave that bound out"
            )
    if config.study.block >= prompts:
        raise InputError(
            f"study.block: expected fewer than the {counted(prompts, 'prompt')}, as a merge can end early only "
            f"between blocks, "
            f"got {config.study.block}. Use a smaller block or study.pruner: none"
        )


class Race:
    """The order of the prompts, and whether to go on after a block of them."""

    def __init__(self, terms: Terms, baselines: Sequence[Variant], rules: Rules) -> None:
        self._config, self._rules, self._objective = terms.config, rules, terms.objective
        self._order = _order(Pool(baselines, rules), terms.asked, terms.config)

    def blocks(self) -> Iterator[list[int]]:
        """The prompts, block by block: from the second on, each doubles the prompts that are answered.

        A block costs the passes of its longest response, however few prompts it has; and fewer looks end fewer merges
        by chance.
        """
        start, end = 0, self._config.study.block
        while start < len(self._order):
            yield self._order[start:end]
            start, end = end, 2 * end

    def stop(self, earlier: Sequence[Variant], merge: Variant) -> Stop | None:
        """Whether a merge that has answered some of the prompts should end; `earlier`: the variants before it."""
        return self._ruined(earlier, merge) or self._beaten(earlier, merge)

    def _pool(self, variants: Sequence[Variant], match: str | None = None) -> Pool:
        if match is None:
            return Pool(variants, self._rules)
        consensus = self._rules.consensus.model_copy(update={"match": match})
        return Pool(variants, replace(self._rules, consensus=consensus))

    def _ruined(self, earlier: Sequence[Variant], merge: Variant) -> Stop | None:
        """The guard's judgement on the prompts answered so far: the first ones are harder than the rest."""
        asked = _prompts(merge)
        references = [_on(variant, asked) for variant in earlier if variant.kind != "merge"]
        violation, reason = collapse(self._pool([*references, merge], self._pool([*earlier, merge]).match))
        return Stop("collapsed", reason, violation) if reason is not None and violation > RUINED else None

    def _beaten(self, earlier: Sequence[Variant], merge: Variant) -> Stop | None:
        """Whether the merge is unlikely to overtake the best complete one, by the prompts that both have answered.

        Both are valued in one pool, which the merge is part of: under one posterior, where consensus is the objective.
        """
        pool = self._pool([*earlier, merge])
        values, sign = self._objective.measure.values(pool), self._objective.sign
        rivals = [i for i, v in enumerate(pool.variants[:-1]) if v.kind == "merge" and v.complete]
        rivals = [i for i in rivals if values[i].value is not None]
        whole = [v for v in earlier if v.kind == "merge" and _prompts(v) >= set(self._order)]
        if not rivals or len(whole) < FEWEST_RIVALS:
            return None
        best = max(rivals, key=lambda i: (sign * (values[i].value or 0.0), -i))
        mine, its = _ratios(values[-1]), _ratios(values[best])
        both = np.isfinite(mine) & np.isfinite(its)
        chance = chance_to_overtake(sign * (mine - its)[both], len(self._order))
        if chance >= LEVEL:
            return None
        name, digits = self._objective.name, self._objective.measure.digits
        reason = (
            f"unlikely to overtake trial {int(pool.variants[best].trial)} after "
            f"{counted(int(both.sum()), 'prompt')}: {name} "
            f"{mine[both].mean():.{digits}f} against {its[both].mean():.{digits}f} on them (chance {chance:.2g})"
        )
        return Stop("pruned", reason, lost_to=pool.variants[best].trial)


def chance_to_overtake(differences: np.ndarray, prompts: int) -> float:
    """How likely the differences on all prompts favour a merge that is behind on n < prompts of them; 1 if it isn't.

    `differences`: the merge's value minus the best's, float64 [n]. The one-sided p-value of Wilcoxon's signed-rank
    test, with the correction for a finite population (Cochran, Sampling Techniques, 1977, section 2.6): what is asked
    is who is ahead on these prompts, not on all that there could be, and n of them are known already.
    """
    from scipy.stats import wilcoxon  # slow to import

    if not (differences != 0).any() or differences.mean() >= 0:
        return 1.0
    few = np.count_nonzero(differences) <= EXACT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ties
        # The normal approximation, scipy's choice where there are ties, calls two prompts clear (p = 0.08 for 0.25).
        found = wilcoxon(differences, alternative="less", method="exact" if few else "asymptotic")
    chance = float(found.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    if not 0 < chance < 1:
        return chance
    normal = NormalDist()
    return normal.cdf(normal.inv_cdf(chance) / math.sqrt(1 - len(differences) / prompts))


def _order(baselines: Pool, prompts: Sequence[int], config: RunConfig) -> list[int]:
    """All prompts, shuffled; first those on which base and parents disagree, which tell merges apart soonest."""
    shuffled = np.random.default_rng([config.study.seed, len(prompts)]).permutation(list(prompts)).tolist()
    conclusions = baselines.conclusions
    tell = {p for p in shuffled if len({key for item in conclusions for key in item.get(p, ())}) > 1}
    return sorted(shuffled, key=lambda p: p not in tell)  # stable


def _ratios(value: Value) -> np.ndarray:
    """A measure by prompt, float64 [P]; NaN where the prompt was not asked."""
    assert value.parts is not None and value.weights is not None, "objectives that can be raced are known by prompt"
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(value.weights > 0, value.parts / value.weights, np.nan)


def _prompts(variant: Variant) -> set[int]:
    return {response.prompt for response in variant.observation.responses}


def _on(variant: Variant, prompts: set[int]) -> Variant:
    """A variant as it would be if only these prompts had been asked; its answers alone."""
    responses = [response for response in variant.observation.responses if response.prompt in prompts]
    return replace(variant, observation=Observation(responses))
