"""A model's NEX with what it rests on, under any calibration, and on resamples of the prompts.

Symbols: R responses to P prompts, B resamples of the prompts, N neurons with credit. Credits are additive, so a
resample is a matrix product: counts [B, R] times credits [R, N].
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nex_merge.nex.calibration import folds, weights_by_response
from nex_merge.nex.credit import EPSILON
from nex_merge.nex.good_mass import log_gap, mean_score, weigh
from nex_merge.nex.novelty import clean_masses
from nex_merge.records import RESERVED_LAYER, Evidence, NeuronWeights, NexScore, ResponseAnalysis

# Resamples that are worked on at once: what bounds the memory of [B, N] matrices.
CHUNK = 64


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
        calibration=calibration,
        response_scores=(),
        responses=len(analyses),
        scored=0,
        cycles=sum(len(item.cycles) for item in analyses),
        credited=sum(len(item.credit.keys) > 0 for item in analyses),
        explore_share=float(np.concatenate(explored).mean()) if explored else None,
        fallbacks=dict(Counter(p.fallback for item in analyses if (p := item.phases) and p.fallback)),
    )
    return rescore(empty, evidence, calibration, shared)


def rescore(earlier: NexScore, evidence: Evidence, calibration: str, shared: NeuronWeights | None = None) -> NexScore:
    """A score under another calibration; phases and cycles stay as they were found."""
    weights = weights_by_response(evidence, shared, calibration == "crossfit")
    masses = [weigh(evidence.base, i, w) for i, w in enumerate(weights)]
    fractions = tuple(item.fraction for item in masses)
    nex = mean_score(fractions)
    total, carried = sum(item.total for item in masses), sum(item.carried for item in masses)
    return replace(
        earlier,
        nex=nex,
        log_gap=None if nex is None else log_gap(nex),
        calibration=calibration,
        response_scores=fractions,
        scored=sum(g is not None for g in fractions),
        weighted_mass=carried / total if total > 0 else None,
        saturation=sum(item.saturated for item in masses) / carried if carried > 0 else None,
    )


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
