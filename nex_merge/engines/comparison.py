"""Whether two models are the same: their logits, and whether one of them would give stored responses.

Symbols: n tokens of a response, V vocabulary.
"""

import numpy as np
import torch

from nex_merge.generation.sampling import MARGIN
from nex_merge.records import Response

# Two forward passes in float32 differ by less than this share of the largest logit (at least of 1), in half precision
# by less than so many roundings of it.
EXACT = 1e-5
ROUNDINGS = 4


def tolerance(dtype: torch.dtype, logits: np.ndarray) -> float:
    """The largest difference of logits that rounding explains between two forward passes in `dtype`."""
    share = EXACT if dtype == torch.float32 else ROUNDINGS * torch.finfo(dtype).eps
    return share * max(1.0, float(abs(logits).max()))


def largest_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest absolute difference of logits; infinite where their shapes differ or one is not finite."""
    if expected.shape != found.shape or not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    return float(abs(found - expected).max(initial=0.0))


def first_departure(logits: np.ndarray, response: Response) -> int | None:
    """The first token of a greedily decoded response that another model would not have chosen; None if there is none.

    `logits`: float32 [prompt + n, V], the other model's, after every token of prompt and response. Tokens that are as
    good as tied (`MARGIN` of the largest logit) count as chosen.
    """
    rows = _rows(logits, response)
    chosen = rows[np.arange(len(rows)), list(response.token_ids)]
    missed = rows.max(axis=1) - chosen > MARGIN * abs(rows).max(axis=1)
    return int(missed.argmax()) if missed.any() else None


def mean_logprob(logits: np.ndarray, response: Response) -> float:
    """Mean log-probability of a response's tokens, nats; `logits` as in `first_departure`."""
    rows = torch.from_numpy(_rows(logits, response)).log_softmax(1)
    return float(rows[torch.arange(len(rows)), list(response.token_ids)].double().mean())


def _rows(logits: np.ndarray, response: Response) -> np.ndarray:
    """The logits that each token of the response was chosen from, float32 [n, V]."""
    return logits[len(response.prompt_ids) - 1 : -1]
