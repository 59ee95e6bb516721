"""All measures of all variants of a pool, with intervals and confidences, computed the same way for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.guard import ALLOWANCE
from nex_merge.measures.measure import Grounds, Measure, Pool, Value
from nex_merge.measures.registry import MEASURES, NEX, OBJECTIVES
from nex_merge.records import Estimate, NeuronWeights, NexScore, Reliability, TrialResult, Variant
from nex_merge.resampling import halves, interval, odds_against, resamples, split_half
from nex_merge.setup.config import nearest
from nex_merge.setup.study_config import StudyConfig


@dataclass(frozen=True)
class Objective:
    """The measure that a run ranks its variants by; of several, the first, with the others."""

    name: str
    sign: int  # +1: more is better
    others: tuple["Objective", ...] = ()

    @property
    def measure(self) -> Measure:
        return MEASURES[self.name]

    @property
    def all(self) -> tuple["Objective", ...]:
        """Every objective, the first one first."""
        return (self, *self.others)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.all)

    def sign_of(self, measure: str) -> int:
        """+1 if more of a measure is better: as an objective says, which need not be its usual direction."""
        return next((one.sign for one in self.all if one.name == measure), MEASURES[measure].direction)

    def values(self, result: TrialResult) -> list[float] | None:
        """The values of every objective; None if one has none."""
        found = [value for name in self.names if (value := result.value(name)) is not None]
        return found if len(found) == len(self.names) else None


@dataclass(frozen=True)
class Scoring:
    """The estimates and scores of a pool."""

    estimates: Mapping[str, Mapping[str, Estimate]]  # by trial, then measure
    scores: Mapping[str, NexScore]  # by trial
    reliability: Reliability


def objective_of(study: StudyConfig) -> Objective:
    """The objective of a study. Raises InputError if one names no measure that can be an objective."""
    if study.objectives is None:
        return _objective(study.objective, study.direction, "study.objective")
    first, *others = (_objective(name, way, "study.objectives") for name, way in study.objectives.items())
    return replace(first, others=tuple(others))


def _objective(name: str, direction: str, key: str) -> Objective:
    if name not in OBJECTIVES:
        what = f"measure {name!r} cannot be an objective" if name in MEASURES else f"unknown measure {name!r}"
        raise InputError(f"{key}: {what}.{nearest(name, list(OBJECTIVES))}")
    sign = OBJECTIVES[name].direction if direction == "auto" else {"maximize": 1, "minimize": -1}[direction]
    return Objective(name, sign)


def estimate_new(pool: Pool, weights: NeuronWeights | None) -> dict[str, Estimate]:
    """Every measure's estimate for the last variant of a pool, a new one, without confidences.

    `weights`: the neuron weights shared by all variants, None if each has its own.
    """
    *earlier, new = pool.variants
    rivals = [variant for variant in earlier if variant.trial == new.lost_to]
    alone = Pool([*rivals, new], pool.rules, weights, pool.prompts)
    only = Pool([new], pool.rules, weights, pool.prompts) if rivals else alone
    counts = _resamples(pool)
    estimates = {}
    for name, measure in MEASURES.items():
        among = pool if measure.needs_pool else alone
        values = whole_values(measure, among)[-1:]
        # Of the earlier variants, which are many, no interval is asked for.
        drawn = measure.resample(only, values, counts)
        estimates[name] = _estimates(measure, among, values, counts, drawn)[0]
    return estimates


def score_pool(pool: Pool, objective: Objective) -> Scoring:
    """Every measure of every variant, and whether the scores support a ranking."""
    complete = [i for i, variant in enumerate(pool.variants) if variant.complete]
    counts, halved = _resamples(pool), _spread(halves(np.arange(max(len(pool.asked), 1))), pool)
    by_measure: dict[str, list[Estimate]] = {}
    split_halves: dict[str, float | None] = {}
    for name, measure in MEASURES.items():
        values = whole_values(measure, pool) if measure.is_defined(pool) else [Value(None)] * len(pool.variants)
        sign = objective.sign_of(name)
        drawn = measure.resample(pool, values, counts)
        estimates = _estimates(measure, pool, values, counts, drawn)
        believed = [(values, drawn)]
        if measure.is_defined(pool):
            believed += [(other, measure.resample(pool, other, counts)) for other in measure.beliefs(pool)]
        members = [i for i in complete if pool.variants[i].kind != "merge"]
        equal = [i for i in complete if pool.variants[i].is_reference]
        parent, same = ([_odds(pool, *each, sign, references) for each in believed] for references in (members, equal))
        estimates = [
            replace(
                item,
                beats_parent=_least(parent, i), beats_parent_most=_most(parent, i),
                beats_equal=_least(same, i), beats_equal_most=_most(same, i),
            )
            for i, item in enumerate(estimates)
        ]  # fmt: skip
        by_measure[name] = estimates
        on_halves = measure.halves(pool, values, halved)
        split_halves[name] = split_half(on_halves[complete]) if complete else None
    estimates = {
        variant.trial: {name: items[i] for name, items in by_measure.items()} for i, variant in enumerate(pool.variants)
    }
    return Scoring(estimates, pool.scores, _reliability(pool, estimates, split_halves))


def _least(odds: Sequence[Mapping[int, float]], i: int) -> float | None:
    """The lowest odds of a variant under any belief; None if any of them has none."""
    return min((each[i] for each in odds), default=None) if all(i in each for each in odds) else None


def _most(odds: Sequence[Mapping[int, float]], i: int) -> float | None:
    """The highest; None where there is one belief."""
    return max(each[i] for each in odds) if len(odds) > 1 and all(i in each for each in odds) else None


def whole_values(measure: Measure, pool: Pool) -> list[Value]:
    """One value per variant of the pool; of a pruned one, an estimate of what it would be on all prompts.

    That is the value of the variant that it lost to, plus the mean difference on the prompts that both have answered: a
    hard first block lowers both. It has no interval. Undefined where the measure is not known by prompt.
    """
    values = measure.values(pool)
    places = {variant.trial: i for i, variant in enumerate(pool.variants)}

    def whole(variant: Variant, value: Value) -> Value:
        if variant.lost_to is None:
            return value
        place = places.get(variant.lost_to)
        rival = None if place is None or not measure.is_by_prompt(pool.nex) else values[place]
        return Value(None) if rival is None else _extrapolated(measure, value, rival)

    return [whole(variant, value) for variant, value in zip(pool.variants, values, strict=True)]


def _extrapolated(measure: Measure, value: Value, rival: Value) -> Value:
    if value.parts is None or value.weights is None or rival.parts is None or rival.weights is None:
        return Value(None)
    both = (value.weights > 0) & (rival.weights > 0)
    if not both.any():
        return Value(None)
    lead = (value.parts[both] / value.weights[both] - rival.parts[both] / rival.weights[both]).mean()
    # No measure is negative.
    ratio = np.maximum(rival.parts.sum() / rival.weights.sum() + lead, 0.0)
    return Value(min(float(measure.finish(ratio)), measure.highest))


def _resamples(pool: Pool) -> np.ndarray:
    """Counts of the prompts that were asked, int64 [B, P]; empty if there are none."""
    return _spread(resamples(pool.asked), pool) if len(pool.asked) else np.zeros((0, pool.prompts), np.int64)


def _spread(counts: np.ndarray, pool: Pool) -> np.ndarray:
    """Counts of the prompts that were asked as counts of all, int64 [B, P]."""
    spread = np.zeros((len(counts), pool.prompts), np.int64)
    spread[:, pool.asked] = counts[:, : len(pool.asked)]
    return spread


def _estimates(
    measure: Measure, pool: Pool, values: Sequence[Value], counts: np.ndarray, drawn: np.ndarray | None = None
) -> list[Estimate]:
    drawn = measure.resample(pool, values, counts) if drawn is None else drawn
    return [Estimate(item.value, *interval(row, len(pool.asked))) for item, row in zip(values, drawn, strict=True)]


def _odds(
    pool: Pool, values: Sequence[Value], drawn: np.ndarray, sign: int, references: Sequence[int]
) -> dict[int, float]:
    """Confidence that each complete merge beats all references, by index; the references themselves are left out."""
    merges = [i for i, v in enumerate(pool.variants) if v.kind == "merge" and v.complete and i not in references]
    if not merges or not references:
        return {}
    oriented = sign * np.array([np.nan if item.value is None else item.value for item in values], np.float64)
    oriented_drawn = sign * drawn
    confidences = odds_against(
        oriented[merges], oriented_drawn[merges], oriented[references], oriented_drawn[references], len(pool.asked)
    )
    return {i: float(confidence) for i, confidence in zip(merges, confidences, strict=True) if np.isfinite(confidence)}


def _reliability(
    pool: Pool, estimates: Mapping[str, Mapping[str, Estimate]], split_halves: Mapping[str, float | None]
) -> Reliability:
    silent = [v.trial for v in pool.variants if v.complete and (estimates[v.trial]["empty"].value or 0.0) > ALLOWANCE]
    grounds = {name: Grounds(estimates, split_halves[name], silent) for name in MEASURES}
    return replace(
        NEX.reliability(pool, grounds[NEX.name]),
        split_halves=dict(split_halves),
        verdicts={name: measure.judge(pool, grounds[name]) for name, measure in MEASURES.items()},
        match=f"{pool.match} (auto)" if pool.consensus.match == "auto" else pool.match,
        complete=sum(variant.complete for variant in pool.variants),
    )
