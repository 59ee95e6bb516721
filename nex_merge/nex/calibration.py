"""Whose credit the weights come from, and the score with what it rests on. Composes the other steps of NEX.

`self`: the candidate's own responses. `pool`: the responses of a fixed set of models, the same weights for everyone.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from nex_merge.nex.credit import response_credit, response_cycles, sum_credit
from nex_merge.nex.good_mass import good_mass_fractions, log_gap, mean_score, neuron_weights
from nex_merge.nex.novelty import response_novelty
from nex_merge.nex.phases import segment
from nex_merge.records import NeuronWeights, NexScore, ResponseAnalysis, SparseRows

RESAMPLES = 2000


def analyse(cache: SparseRows, rho: float, min_run: int) -> tuple[ResponseAnalysis, ...]:
    """Novelty, phases, cycles and credit of every response."""
    return tuple(_analyse_response(cache, i, rho, min_run) for i in range(cache.responses))


def _analyse_response(cache: SparseRows, response: int, rho: float, min_run: int) -> ResponseAnalysis:
    novelty = response_novelty(cache, response)
    if novelty is None:
        return ResponseAnalysis(None, None, (), sum_credit(()))
    phases = segment(novelty.observations, novelty.zero_spread, rho, min_run)
    cycles = response_cycles(novelty, phases)
    return ResponseAnalysis(novelty, phases, cycles, response_credit(novelty, cycles))


def calibrate(*analyses: Sequence[ResponseAnalysis]) -> NeuronWeights:
    """Weights from the credit of all responses given: one model's (`self`) or several models' (`pool`)."""
    return neuron_weights(sum_credit([item.credit for analysis in analyses for item in analysis]))


def score(cache: SparseRows, analyses: Sequence[ResponseAnalysis], weights: NeuronWeights, seed: int = 0) -> NexScore:
    """The score of a model's responses under `weights`; `seed` draws the bootstrap."""
    fractions = good_mass_fractions(cache, weights)
    nex = mean_score(fractions)
    low, high = _interval([g for g in fractions if g is not None], seed)
    explored = [item.phases.explore for item in analyses if item.phases is not None]
    return NexScore(
        nex=nex,
        log_gap=None if nex is None else log_gap(nex),
        low=low,
        high=high,
        response_scores=fractions,
        responses=cache.responses,
        scored=sum(g is not None for g in fractions),
        cycles=sum(len(item.cycles) for item in analyses),
        credited=sum(len(item.credit.keys) > 0 for item in analyses),
        explore_share=float(np.concatenate(explored).mean()) if explored else None,
        fallbacks=dict(Counter(p.fallback for item in analyses if (p := item.phases) and p.fallback)),
    )


def _interval(defined: Sequence[float], seed: int) -> tuple[float | None, float | None]:
    """95 % percentile bootstrap interval of the mean over responses; None with fewer than two of them."""
    if len(defined) < 2:
        return None, None
    values = np.asarray(defined)
    picks = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
