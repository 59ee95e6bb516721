"""The score with what it rests on, how sure it is, and whether a run's scores can carry a ranking.

Symbols: R responses to P prompts, B resamples of the prompts, N neurons with credit, K variants. Credits are additive,
so a resample is a matrix product: counts [B, R] times credits [R, N]. The same resamples serve all variants, so that
differences between variants are paired over prompts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from nex_merge.nex.calibration import folds, weights_by_response
from nex_merge.nex.credit import EPSILON
from nex_merge.nex.good_mass import log_gap, mean_score, weigh
from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Evidence, NeuronWeights, NexScore, Reliability, ResponseAnalysis

# Below these a run's scores carry no ranking (insufficient), or only a coarse one (weak). Where they come from:
# results/studies/does-nex-rank-merges.md and noise-ladder.md.
SPLIT_HALF = (0.5, 0.8)
CYCLES = (1.0, 2.0)  # a response with a single cycle earns no credit
CREDITED = (0.25, 0.5)  # share of responses
# From this correlation with mean tokens on, the score says little that response length does not say.
FOLLOWS_LENGTH = 0.8
# With fewer variants a rank correlation says nothing.
FEWEST_VARIANTS = 5
RESAMPLES = 400
HALVINGS = 20
# Resamples that are worked on at once: what bounds the memory of [B, N] matrices.
CHUNK = 64
LEVEL = (0.025, 0.975)


def score(
    evidence: Evidence,
    analyses: Sequence[ResponseAnalysis],
    calibration: str,
    shared: NeuronWeights | None = None,
) -> NexScore:
    """The score of a model's responses. `shared`: the weights of calibrations that have one set for everyone."""
    explored = [item.phases.explore for item in analyses if item.phases is not None]
    empty = NexScore(
        nex=None,
        log_gap=None,
        low=None,
        high=None,
        calibration=calibration,
        response_scores=(),
        responses=len(analyses),
        scored=0,
        cycles=sum(len(item.cycles) for item in analyses),
        credited=sum(len(item.credit.keys) > 0 for item in analyses),
        explore_share=float(np.concatenate(explored).mean()) if explored else None,
        fallbacks=dict(Counter(p.fallback for item in analyses if (p := item.phases) and p.fallback)),
    )
    return rescore(empty, evidence, calibration, shared)[0]


def rescore(
    earlier: NexScore, evidence: Evidence, calibration: str, shared: NeuronWeights | None = None
) -> tuple[NexScore, np.ndarray]:
    """A score under another calibration, and its bootstrap, float64 [B]; phases and cycles stay as they were found."""
    weights = weights_by_response(evidence, shared, calibration == "crossfit")
    masses = [weigh(evidence.base, i, w) for i, w in enumerate(weights)]
    fractions = tuple(item.fraction for item in masses)
    nex = mean_score(fractions)
    total, carried = sum(item.total for item in masses), sum(item.carried for item in masses)
    drawn = resampled(evidence, fractions, calibration, resamples(evidence.prompts))
    low, high = interval(drawn, len(np.unique(evidence.prompts)))
    found = replace(
        earlier,
        nex=nex,
        log_gap=None if nex is None else log_gap(nex),
        low=low,
        high=high,
        calibration=calibration,
        response_scores=fractions,
        scored=sum(g is not None for g in fractions),
        weighted_mass=carried / total if total > 0 else None,
        saturation=sum(item.saturated for item in masses) / carried if carried > 0 else None,
    )
    return found, drawn


def resamples(prompts: np.ndarray, count: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each response is in each of `count` bootstrap resamples of the prompts, int64 [B, R]."""
    names, at = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=count)[:, at]


def halves(prompts: np.ndarray, count: int = HALVINGS, seed: int = 0) -> np.ndarray:
    """Random halves of the prompts as counts, int64 [2 count, R]: rows 2 i and 2 i + 1 are one another's complement."""
    names, at = np.unique(prompts, return_inverse=True)
    rng = np.random.default_rng(seed)
    first = np.stack([rng.permutation(len(names)) < len(names) // 2 for _ in range(count)])
    return np.stack([first, ~first], axis=1).reshape(2 * count, len(names)).astype(np.int64)[:, at]


def resampled(
    evidence: Evidence, fractions: Sequence[float | None], calibration: str, counts: np.ndarray
) -> np.ndarray:
    """The model's NEX on every resample, float64 [B]; NaN where no drawn response has mass.

    `fractions` are its response scores. Weights that come from the responses themselves are drawn with them.
    """
    defined = np.array([g is not None for g in fractions])
    drawn = counts * defined
    if calibration in ("self", "crossfit"):
        g = _recalibrated(evidence, counts, calibration == "crossfit")
    else:
        g = np.array([0.0 if value is None else value for value in fractions])[None]
    sizes = drawn.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(sizes > 0, (drawn * g).sum(axis=1) / sizes, np.nan)


def _recalibrated(evidence: Evidence, counts: np.ndarray, crossfit: bool) -> np.ndarray:
    """Response scores under weights from the drawn responses, float64 [B, R]."""
    credits = evidence.credits
    keys = np.unique(credits.keys)
    effective, redundant, masses = (np.zeros((credits.responses, len(keys)), np.float32) for _ in range(3))
    for i in range(credits.responses):
        own = credits.of(i)
        at = np.searchsorted(keys, own.keys)
        effective[i, at], redundant[i, at] = own.effective, own.redundant
        group, values = evidence.base.group(i)
        known = np.isin(group, keys) & ((group >> 16) != RESERVED_LAYER)
        masses[i, np.searchsorted(keys, group[known])] = clean_masses(values[known])
    fold = folds(evidence.prompts)
    result = np.zeros(counts.shape)
    for start in range(0, len(counts), CHUNK):
        part = counts[start : start + CHUNK].astype(np.float32)
        for k in np.unique(fold) if crossfit else (None,):
            teachers, scored = (slice(None), slice(None)) if k is None else (fold != k, fold == k)
            # tanh(log(a / b)) = (a a - b b) / (a a + b b)
            a, b = (part[:, teachers] @ credit[teachers] for credit in (effective, redundant))
            for credit in (a, b):
                credit += np.float32(EPSILON)
                np.square(credit, out=credit)
            w = (a - b) / (a + b)
            signed = w @ masses[scored].T
            weighted = np.abs(w, out=w) @ masses[scored].T
            # max(w, 0) = (w + |w|) / 2
            good = (signed + weighted) / 2
            result[start : start + CHUNK, scored] = np.divide(
                good, weighted, out=np.zeros_like(good), where=weighted > 0
            )
    return result


def interval(drawn: np.ndarray, prompts: int) -> tuple[float | None, float | None]:
    """95 % percentile interval of scores on resamples of so many prompts; None with fewer than two of either."""
    known = drawn[np.isfinite(drawn)]
    if len(known) < 2 or prompts < 2:
        return None, None
    low, high = np.quantile(known, LEVEL)
    return float(low), float(high)


def superiority(drawn: np.ndarray, rival: np.ndarray) -> float | None:
    """Share of the resamples in which one model beats another, ties counting half; both float64 [B], same resamples."""
    both = np.isfinite(drawn) & np.isfinite(rival)
    if not both.any():
        return None
    return float(np.mean((drawn[both] > rival[both]) + 0.5 * (drawn[both] == rival[both])))


def split_half(scores: np.ndarray) -> float | None:
    """Reliability of the ranking, from scores on halves of the prompts, float64 [K variants, 2 x halvings].

    Spearman's correlation between the two halves over the variants, by Spearman and Brown's formula brought to the full
    number of prompts, mean over the halvings. None with fewer than five variants or no differences.
    """
    usable = scores[np.isfinite(scores).all(axis=1)]
    if len(usable) < FEWEST_VARIANTS:
        return None
    found = []
    for first, second in zip(usable.T[::2], usable.T[1::2], strict=True):
        if np.ptp(first) > 0 and np.ptp(second) > 0:
            r = float(spearmanr(first, second)[0])  # pyright: ignore[reportArgumentType]
            found.append(2 * r / (1 + r) if r > 0 else r)
    return float(np.mean(found)) if found else None


def assess(
    scores: Sequence[NexScore],
    mean_tokens: Sequence[float],
    teachers: Sequence[NexScore],
    prompts: int,
    split_half_reliability: float | None,
    beats_parent: float | None,
) -> Reliability:
    """Whether the scores of a run's variants can carry a ranking, with the reasons and what would help.

    `mean_tokens` are the variants' own, in the same order. `teachers` are those whose credit the weights come from: the
    variants themselves, or base and parents. `beats_parent` is the probability that the best merge beats the best
    parent, None where there is no such pair.
    """
    cycles = float(np.median([s.cycles / max(s.responses, 1) for s in teachers])) if teachers else 0.0
    credited = float(np.median([s.credited / max(s.responses, 1) for s in teachers])) if teachers else 0.0
    known = [s.saturation for s in scores if s.saturation is not None]
    weighted = [s.weighted_mass for s in scores if s.weighted_mass is not None]
    findings = [
        (
            split_half_reliability,
            SPLIT_HALF,
            "the ranking on one half of the prompts says {} of that on the other (split-half reliability {:.2f})",
            "more prompts, or longer responses",
        ),
        (
            cycles,
            CYCLES,
            "a response has {} cycles to earn credit from ({:.1f} on average; it takes two)",
            "longer responses (generation.max_new_tokens, prompts that need more reasoning), or shorter rows "
            "(activations.slice_tokens)",
        ),
        (
            credited,
            CREDITED,
            "{} responses earn credit at all ({:.0%})",
            "longer responses, or shorter rows (activations.slice_tokens)",
        ),
    ]
    words = ({0: "nothing", 1: "little"}, {0: "too few", 1: "few"}, {0: "hardly any", 1: "few"})
    level, reasons, advice = 2, [], []
    for (value, limits, text, cure), word in zip(findings, words, strict=True):
        if value is None:
            level = min(level, 1)
            reasons.append("too few variants to tell how reliable their ranking is")
            continue
        reached = sum(value >= limit for limit in limits)
        if reached < 2:
            level = min(level, reached)
            reasons.append(text.format(word[reached], value))
            advice.append(cure)
    length = follows_length(scores, mean_tokens)
    if length is not None and abs(length) >= FOLLOWS_LENGTH:
        level = min(level, 1)
        order = "longer" if length > 0 else "shorter"
        reasons.append(
            f"the score orders the variants as the length of their responses does, {order} first (Spearman "
            f"{abs(length):.2f} with mean tokens); where wrong answers ramble, that is upside down"
        )
        advice.append("a look at the responses, and accuracy for a few variants (benchmark, correlate)")
    if beats_parent is not None and level == 2 and beats_parent < 0.95:
        reasons.append(f"the best merge beats the best parent in {beats_parent:.0%} of resamples of the prompts only")
    return Reliability(
        verdict=("insufficient", "weak", "sound")[level],
        reasons=tuple(reasons),
        advice=tuple(dict.fromkeys(advice)),
        variants=len(scores),
        prompts=prompts,
        split_half=split_half_reliability,
        cycles_per_response=cycles,
        credited=credited,
        weighted_mass=float(np.median(weighted)) if weighted else None,
        saturation=float(np.median(known)) if known else None,
        beats_parent=beats_parent,
        follows_length=length,
    )


def follows_length(scores: Sequence[NexScore], mean_tokens: Sequence[float]) -> float | None:
    """Spearman's correlation of NEX with mean tokens over variants; None with fewer than five, or no differences."""
    known = [(s.nex, tokens) for s, tokens in zip(scores, mean_tokens, strict=True) if s.nex is not None]
    if len(known) < FEWEST_VARIANTS or min(np.ptp(known, axis=0)) == 0:
        return None
    return float(spearmanr(*zip(*known, strict=True))[0])  # pyright: ignore[reportArgumentType]
