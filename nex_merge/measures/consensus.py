"""What a pool's answers say of its variants: consensus, plain agreement, and agreement of a prompt's own samples.

See `votes` for the model behind consensus. A response that was cut off, is empty or can't be parsed has no conclusion,
which counts as agreeing with no variant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.consensus_verdict import CONDITION, TELLING, judge_consensus
from nex_merge.measures.dissent import is_defined
from nex_merge.measures.measure import Grounds, Measure, Pool, Value
from nex_merge.measures.readings import Readings
from nex_merge.measures.votes import FEWEST_VARIANTS, Fit
from nex_merge.records import Verdict
from nex_merge.setup.config import NexConfig, RunConfig

# What all merges of a pool may count together. They inherit their parents' answers, right and wrong ones, so that they
# vouch for one another, and whether they or their parents are to be believed is not in the answers: it depends on
# whether parents differ in skills or in noise. results/studies/kin.md.
TOGETHER = (1.5, 3.0, 6.0)
# With fewer samples, agreement takes few values: 0 or 1 with two of them.
FEWEST_SAMPLES = 4


@dataclass(frozen=True)
class Consensus(Measure):
    """Mean posterior probability of a variant's conclusions."""

    def values(self, pool: Pool) -> list[Value]:
        return [_mean(row) for row in pool.fit.by_prompt]

    def is_defined(self, pool: Pool) -> bool:
        return is_defined(pool.votes)

    def is_pooled(self, nex: NexConfig) -> bool:
        return True

    def beliefs(self, pool: Pool) -> Sequence[Sequence[Value]]:
        fits = believed(pool.readings, np.array([variant.kind == "merge" for variant in pool.variants]))
        return [[_mean(row) for row in fit.by_prompt] for fit in fits]

    def halves(self, pool: Pool, values: Sequence[Value], counts: np.ndarray) -> np.ndarray:
        return fit_parts(pool.readings, counts)

    def judge(self, pool: Pool, grounds: Grounds) -> Verdict:
        return judge_consensus(pool, grounds)


def believed(found: Readings, merges: np.ndarray) -> list[Fit]:
    """Fits under other beliefs about kin, where some variants, bool [V], are merges and others are not.

    The other reading; as many voters as there are; and merges that count as few together, each of the others as one.
    """
    if merges.all() or not merges.any():
        return []
    votes, counts = found.votes, found.fit.counts
    counted = np.nansum(votes.by_prompt(counts)[merges]) / max(votes.asked.any(axis=0).sum(), 1)
    scales = [np.where(merges, few / counted, 1.0)[votes.variant] for few in TOGETHER if few < counted]
    return [found.other.fit, *(votes.fit(each) for each in (np.ones(len(counts)), *(counts * s for s in scales)))]


def fit_parts(found: Readings, counts: np.ndarray) -> np.ndarray:
    """Consensus on parts of the prompts, float64 [V, B], from counts int64 [B, P] of 0 and 1; NaN where undefined.

    Fitted anew on each part: from half of the prompts, other variants may be taken for reliable. Which ones are kin is
    found on all of them.
    """
    columns = []
    for count in counts:
        part = found.votes.on(np.flatnonzero(count))
        sums = np.nansum(part.fit(found.fit.counts[count[found.votes.prompt] > 0]).by_prompt, axis=1)
        asked = part.asked.sum(axis=1)
        columns.append(np.where(asked > 0, sums / np.maximum(asked, 1), np.nan))
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Agreement(Measure):
    """Mean share of the other variants that conclude the same."""

    def values(self, pool: Pool) -> list[Value]:
        if len(pool.variants) < FEWEST_VARIANTS:
            return [Value(None)] * len(pool.variants)
        return [_mean(row) for row in pool.votes.by_prompt(pool.votes.shares_of_others())]

    def is_pooled(self, nex: NexConfig) -> bool:
        return True


@dataclass(frozen=True)
class SelfConsistency(Measure):
    """Mean pairwise agreement of a prompt's own samples; undefined with fewer than four of them."""

    def values(self, pool: Pool) -> list[Value]:
        found = []
        for conclusions in pool.conclusions:
            row = np.full(pool.prompts, np.nan)
            for prompt, keys in conclusions.items():
                if len(keys) >= FEWEST_SAMPLES:
                    concluded = [key for key in keys if key is not None]
                    same = sum(concluded.count(key) - 1 for key in concluded)
                    row[prompt] = same / (len(keys) * (len(keys) - 1))
            found.append(_mean(row))
        return found

    def check(self, config: RunConfig, key: str) -> None:
        super().check(config, key)
        if config.generation.samples < FEWEST_SAMPLES:
            raise InputError(
                f"{key}: {self.name} requires generation.samples of at least {FEWEST_SAMPLES}, got "
                f"{config.generation.samples}"
            )


def _mean(row: np.ndarray) -> Value:
    """The mean over the prompts with a value, from float64 [P], NaN where there is none."""
    defined = np.isfinite(row)
    return Value(float(row[defined].mean()) if defined.any() else None, np.nan_to_num(row), defined * 1.0)


CONSENSUS = Consensus(
    "consensus", 1, "", 3,
    "share of prompts on which the variant concludes what the pool, weighted by reliability, concludes; estimates "
    "accuracy if most variants don't share their mistakes",
    heading="consensus", with_interval=True, needs_pool=True, claims_accuracy=True, takes_labels=True,
    condition=CONDITION, fewest_telling=TELLING[1],
)  # fmt: skip
AGREEMENT = Agreement(
    "agreement", 1, "", 4, "mean share of the other variants that conclude the same; the baseline for consensus",
    needs_pool=True,
)  # fmt: skip
SELF_CONSISTENCY = SelfConsistency(
    "self_consistency", 1, "", 4,
    "share of pairs of a prompt's own samples that conclude the same; requires generation.samples of at least 4",
    needs_pool=True,  # how conclusions are read depends on all variants
)  # fmt: skip
