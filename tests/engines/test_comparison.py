"""When two models count as the same."""

import numpy as np
import pytest
import torch

from nex_merge.engines.comparison import first_departure, largest_difference, mean_logprob, tolerance
from nex_merge.records import Response

pytestmark = pytest.mark.quick

RESPONSE = Response(0, 0, (1, 2), (3, 0), "", True)
# After the prompt's tokens and the response's: token 3 is chosen first, then token 0.
LOGITS = np.array([[9, 0, 0, 0], [0, 1, 2, 5], [4, 0, 0, 1], [0, 0, 0, 0]], np.float32)


def test_a_response_that_the_model_would_give():
    assert first_departure(LOGITS, RESPONSE) is None


@pytest.mark.parametrize(("place", "token", "at"), [(1, 0, 0), (2, 1, 1)])
def test_the_first_token_that_it_would_not_choose(place, token, at):
    logits = LOGITS.copy()
    logits[place, token] = 6
    assert first_departure(logits, RESPONSE) == at


def test_tokens_that_are_as_good_as_tied_count_as_chosen():
    logits = LOGITS.copy()
    logits[1, 0] = 5.0004  # the margin is 1e-4 of the largest logit
    assert first_departure(logits, RESPONSE) is None
    logits[1, 0] = 5.0006
    assert first_departure(logits, RESPONSE) == 0


def test_mean_log_probability():
    rows = torch.tensor(LOGITS[1:3]).double().log_softmax(1)
    assert mean_logprob(LOGITS, RESPONSE) == pytest.approx(float(rows[0, 3] + rows[1, 0]) / 2, abs=1e-6)


def test_differences_and_what_rounding_explains():
    other = LOGITS.copy()
    other[0, 1] = 0.25
    assert largest_difference(LOGITS, other) == 0.25 and largest_difference(LOGITS, LOGITS) == 0
    assert largest_difference(LOGITS, LOGITS[:2]) == largest_difference(LOGITS, LOGITS * np.nan) == float("inf")
    assert tolerance(torch.float32, LOGITS) == pytest.approx(9e-5)
    assert tolerance(torch.bfloat16, LOGITS) == 4 * 2**-7 * 9
    assert tolerance(torch.float32, LOGITS / 100) == 1e-5
