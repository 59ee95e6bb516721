"""Consensus of any models' conclusions, as a pure function: a ranking with its verdict, no run and no model needed."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.consensus import fit_parts
from nex_merge.measures.consensus_verdict import assess_consensus
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import FEWEST_VARIANTS, Conclusions, Key, Votes
from nex_merge.one_thread import on_one_thread
from nex_merge.resampling import halves, interval, resamples, split_half


@dataclass(frozen=True)
class Ranked:
    """One model of a ranking."""

    name: Any  # its key in the mapping, or its place in the sequence
    consensus: float | None  # None: undefined
    low: float | None = None  # 95 % bootstrap interval over prompts
    high: float | None = None


@dataclass(frozen=True)
class Ranking:
    """Models by consensus, best first, and whether that supports a ranking."""

    rows: tuple[Ranked, ...]
    verdict: str  # sound | weak | insufficient
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    pooled: Mapping[Any, Hashable]  # by prompt: what the pool concludes
    claimed: Mapping[Any, float]  # by prompt: the probability that it is right, under the model


def consensus(
    conclusions: Mapping[Any, Any] | Sequence[Any],
    *,
    options: Mapping[Any, int] | None = None,
    truths: Mapping[Any, Hashable | None] | None = None,
    audit: Mapping[Any, Hashable | None] | None = None,
    match: str = "",
) -> Ranking:
    """Rank V models by how often they conclude what the pool, weighted by reliability, concludes.

    Dawid and Skene's one-coin model (1979), with copies counted once (`nex_merge.measures.readings`); an estimate of
    accuracy if most models don't share their mistakes.

    `conclusions`: by model, its conclusions: a mapping from prompts, or a sequence in the order of the prompts. Each is
    one conclusion (any hashable; None: it concludes nothing) or a list of one per sample. A prompt that a mapping lacks
    was not asked; one with an empty list was asked and not answered, and agrees with nobody. `options`: how many
    options a prompt offers, where known. `truths`: conclusions known to be right (None: none is), which count as such
    and audit the rest; `audit`: the same, but used for the verdict alone. `match`: how the conclusions were read, for
    the verdict's reasons.

    Raises InputError with fewer than two models.

    >>> found = consensus({"a": ["1", "2", "3"], "b": ["1", "2", "4"], "c": ["1", "2", "3"], "d": ["1", "9", "3"]})
    >>> [(row.name, round(row.consensus, 2)) for row in found.rows]
    [('a', 1.0), ('c', 1.0), ('b', 0.67), ('d', 0.67)]
    >>> found.verdict
    'insufficient'
    """
    names = list(conclusions) if isinstance(conclusions, Mapping) else list(range(len(conclusions)))
    answers = [conclusions[name] for name in names]
    if len(names) < FEWEST_VARIANTS:
        raise InputError(f"consensus: expected the conclusions of at least two models, got {len(names)}")
    by_model = [item if isinstance(item, Mapping) else dict(enumerate(item)) for item in answers]
    prompts = list(dict.fromkeys(prompt for item in by_model for prompt in item))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    numbered: list[Conclusions] = [{place[p]: _samples(value) for p, value in item.items()} for item in by_model]
    asked = {place[p]: count for p, count in (options or {}).items() if p in place}
    known, checked = ({place[p]: key for p, key in (given or {}).items() if p in place} for given in (truths, audit))
    plain = readings(Votes(numbered, len(prompts), asked))
    found = readings(Votes(numbered, len(prompts), asked, known)) if known else plain
    fit = found.fit
    reliability = split_half(fit_parts(found, halves(np.arange(len(prompts))))) if len(prompts) > 1 else None
    verdict = assess_consensus(
        numbered, len(prompts), asked, {**known, **checked}, reliability, match=match, found=plain
    )
    defined = verdict.figures["defined"] == 1
    rows = [Ranked(name, *found) for name, found in zip(names, _estimates(fit.by_prompt, defined), strict=True)]
    rows.sort(key=lambda row: -1.0 if row.consensus is None else -row.consensus)  # ties stay as given
    return Ranking(
        tuple(rows), verdict.level, verdict.reasons, tuple(advice.text for advice in verdict.advice),
        {prompts[p]: key for p, key in fit.pooled.items()}, {prompts[p]: q for p, q in fit.claimed.items()},
    )  # fmt: skip


def _samples(value: Any) -> Sequence[Key | None]:
    return list(value) if isinstance(value, list | np.ndarray) else [value]


@on_one_thread
def _estimates(by_prompt: np.ndarray, is_defined: bool) -> list[tuple[float | None, float | None, float | None]]:
    """Means of float64 [V, P] over the prompts that were asked, with bootstrap intervals over prompts."""
    asked = np.isfinite(by_prompt)
    if not is_defined or by_prompt.shape[1] == 0:
        return [(None, None, None)] * len(by_prompt)
    counts, values = resamples(np.arange(by_prompt.shape[1])), np.where(asked, by_prompt, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Not from a product of matrices, whose equal rows may differ in the last digit: equal answers rank alike.
        means = values.sum(axis=1) / asked.sum(axis=1)
        drawn = (values @ counts.T) / (asked @ counts.T)
    return [
        (float(mean), *interval(row, by_prompt.shape[1])) if np.isfinite(mean) else (None, None, None)
        for mean, row in zip(means, drawn, strict=True)
    ]
