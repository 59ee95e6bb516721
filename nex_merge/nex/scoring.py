"""A model's NEX with what it rests on, under any calibration, and on resamples of the prompts.

Symbols: R responses to P prompts, B resamples of the prompts, N neurons with credit. Credits are additive, so a
resample is a matrix product: counts [B, R] times credits [R, N].
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nex_merge.nex.calibration import folds, weights_by_response
from nex_merge.nex.credit import EPSILON
from nex_merge.nex.good_mass import log_gap, mean_score, weigh
from nex_merge.nex.novelty import clean_masses
from nex_merge.one_thread import one_thread
from nex_merge.records import RESERVED_LAYER, Evidence, NeuronWeights, NexScore, ResponseAnalysis

# Resamples that are worked on at once: what bounds the memory of [B, N] matrices.
CHUNK = 64
# Numbers in a dense block of neurons: three blocks of 0.5 GB.
BLOCK_ENTRIES = 1 << 27


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
    """Response scores under weights from the drawn responses, float64 [B, R].

    Neurons are taken in blocks, so that memory stays bounded however many have credit: both sums of the Good-Mass
    Fraction are sums over neurons.
    """
    keys = np.unique(evidence.credits.keys)
    width = max(1, BLOCK_ENTRIES // max(evidence.credits.responses, CHUNK))
    fold = folds(evidence.prompts) if crossfit else None
    signed, weighted = np.zeros(counts.shape, np.float32), np.zeros(counts.shape, np.float32)
    for start in range(0, len(keys), width):
        block = _Block(evidence, keys[start : start + width])
        for first in range(0, len(counts), CHUNK):
            rows = slice(first, first + CHUNK)
            for scored, s, w in block.sums(counts[rows].astype(np.float32), fold):
                signed[rows, scored] += s
                weighted[rows, scored] += w
    # max(w, 0) = (w + |w|) / 2
    good = (signed + weighted) / 2
    return np.divide(good, weighted, out=np.zeros(counts.shape), where=weighted > 0)


class _Block:
    """The credit and the masses of a block of N neurons, dense, float32 [R, N]."""

    def __init__(self, evidence: Evidence, keys: np.ndarray) -> None:
        credits = evidence.credits
        shape = (credits.responses, len(keys))
        self._effective, self._redundant, self._masses = (np.zeros(shape, np.float32) for _ in range(3))
        for i in range(credits.responses):
            own = credits.of(i)
            here = (own.keys >= keys[0]) & (own.keys <= keys[-1])
            at = np.searchsorted(keys, own.keys[here])
            self._effective[i, at], self._redundant[i, at] = own.effective[here], own.redundant[here]
            group, values = evidence.base.group(i)
            known = np.isin(group, keys) & ((group >> 16) != RESERVED_LAYER)
            self._masses[i, np.searchsorted(keys, group[known])] = clean_masses(values[known])

    def sums(
        self, counts: np.ndarray, fold: np.ndarray | None
    ) -> Iterator[tuple[slice | np.ndarray, np.ndarray, np.ndarray]]:
        """(responses, sum m w, sum m |w|), float32 [b, responses], for resamples as counts float32 [b, R].

        Weights come from all drawn responses or, with folds, from those outside the fold that is scored.
        """
        for k in (None,) if fold is None else np.unique(fold):
            teachers, scored = (slice(None), slice(None)) if fold is None else (fold != k, fold == k)
            # tanh(log(a / b)) = (a a - b b) / (a a + b b)
            with one_thread():
                a, b = (counts[:, teachers] @ credit[teachers] for credit in (self._effective, self._redundant))
                for credit in (a, b):
                    credit += np.float32(EPSILON)
                    np.square(credit, out=credit)
                w = (a - b) / (a + b)
                signed = w @ self._masses[scored].T
                absolute = np.abs(w, out=w) @ self._masses[scored].T
            yield scored, signed, absolute
