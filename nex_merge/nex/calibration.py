"""Calibration: the responses that neuron weights are estimated from. Credit is additive, so each one is a sum.

`self`: the variant's responses (as the paper ranks variants). `crossfit`: the variant's responses to the other folds of
prompts, so that no response is scored with weights estimated from itself. `parents`: the baselines' responses (base and
parents), fixed before the first merge. `pool`: those of the baselines and of the merges so far. With the last two, all
variants share one set of weights.
"""

from collections.abc import Sequence

import numpy as np

from nex_merge.nex.credit import response_credit, response_cycles, sum_credit
from nex_merge.nex.good_mass import neuron_weights
from nex_merge.nex.novelty import response_novelty
from nex_merge.nex.phases import segment
from nex_merge.records import (
    Credits,
    Evidence,
    NeuronWeights,
    PhaseCounts,
    Response,
    ResponseAnalysis,
    SparseGroups,
    SparseRows,
)

FOLDS = 5
# Merges in the first pool; it grows at every doubling of this number, see `pool_size`.
FIRST_POOL = 8


def analyse(cache: SparseRows, rho: float, min_run: int) -> tuple[ResponseAnalysis, ...]:
    """Novelty, phases, cycles and credit of every response.

    `rho`: probability of staying in a state of the HMM. `min_run`: minimum length of a phase, in rows.
    """
    return tuple(_analyse_response(cache, i, rho, min_run) for i in range(cache.responses))


def _analyse_response(cache: SparseRows, response: int, rho: float, min_run: int) -> ResponseAnalysis:
    novelty = response_novelty(cache, response)
    if novelty is None:
        return ResponseAnalysis(None, None, (), sum_credit(()))
    phases = segment(novelty.observations, novelty.zero_spread, rho, min_run)
    cycles = response_cycles(novelty, phases)
    return ResponseAnalysis(novelty, phases, cycles, response_credit(novelty, cycles))


def stack_credits(analyses: Sequence[ResponseAnalysis]) -> Credits:
    """The credit of a model's responses, in order, as sparse arrays."""
    parts = [item.credit for item in analyses]
    return Credits(
        np.concatenate([[0], np.cumsum([len(part.keys) for part in parts])]).astype(np.int64),
        np.concatenate([np.zeros(0, np.uint32), *(part.keys for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.effective for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.redundant for part in parts)]),
    )


def evidence_of(responses: Sequence[Response], base: SparseGroups, analyses: Sequence[ResponseAnalysis]) -> Evidence:
    """What a model's score rests on: its responses' prompts, their masses by response, and their credit."""
    prompts = np.array([response.prompt for response in responses], np.int64)
    return Evidence(prompts, base, stack_credits(analyses))


def calibrate(*models: Credits) -> NeuronWeights:
    """Neuron weights from the credit of all responses of one model (`self`) or several (`parents`, `pool`)."""
    return neuron_weights(sum_credit([credits.of(i) for credits in models for i in range(credits.responses)]))


def folds(prompts: np.ndarray) -> np.ndarray:
    """The fold, 0 to FOLDS - 1, of every response from its prompt's index; samples of a prompt share a fold."""
    return np.asarray(prompts) % FOLDS


def weights_by_response(evidence: Evidence, shared: NeuronWeights | None, crossfit: bool) -> list[NeuronWeights]:
    """The neuron weights for scoring each response: `shared`, or estimated from the model's responses.

    `crossfit`: only from its responses to the other folds of prompts.
    """
    responses = evidence.credits.responses
    if shared is not None:
        return [shared] * responses
    if not crossfit:
        return [calibrate(evidence.credits)] * responses
    fold = folds(evidence.prompts)
    own = {
        int(k): neuron_weights(sum_credit([evidence.credits.of(i) for i in np.flatnonzero(fold != k).tolist()]))
        for k in np.unique(fold)
    }
    return [own[int(k)] for k in fold]


def pool_size(merges: int) -> int:
    """Number of merges, lowest trial numbers first, in the pool once `merges` have been tried: 0, then 8, 16, 32, ...

    The pool depends on this count only, so that scores do not depend on when a search was interrupted.
    """
    size = 0
    while merges >= max(2 * size, FIRST_POOL):
        size = max(2 * size, FIRST_POOL)
    return size


def count_phases(analyses: Sequence[ResponseAnalysis]) -> PhaseCounts:
    """Counts of cycles and rows, and mean novelty, of every response."""
    phased = [item.phases.explore if item.phases is not None else np.zeros(0, bool) for item in analyses]
    return PhaseCounts(
        cycles=np.array([len(item.cycles) for item in analyses], np.int64),
        credited=np.array([len(item.credit.keys) > 0 for item in analyses], bool),
        explore=np.array([int(rows.sum()) for rows in phased], np.int64),
        phased=np.array([len(rows) for rows in phased], np.int64),
        novelty=np.array(
            [np.nan if item.novelty is None else float(item.novelty.slopes.mean()) for item in analyses], np.float64
        ),
    )
