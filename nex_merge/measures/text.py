"""Statistics of tokens and text: repetition, truncation, empty and garbled output. Neither models nor scores."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from nex_merge.measures.concluding import is_empty
from nex_merge.records import Response, TextFigures

DISTINCT_GRAM = 4
LONGEST_PERIOD = 128
# Copies that make a loop: checking a result twice in a row is not one.
FEWEST_COPIES = 4


def text_figures(responses: Sequence[Response]) -> TextFigures:
    """Text statistics of each response."""
    return TextFigures(
        truncated=np.array([float(r.truncated) for r in responses]),
        distinct_ratio=np.array([distinct_ratio(r.token_ids) for r in responses]),
        repeated=np.array([repeated_share(r.token_ids) for r in responses]),
        empty=np.array([float(is_empty(r)) for r in responses]),
        non_text=np.array([non_text_share(r.text) for r in responses]),
    )


def distinct_ratio(tokens: Sequence[int]) -> float:
    """Distinct 4-grams of tokens as a share of all of them; 1 for a response too short to have two."""
    grams = [tuple(tokens[i : i + DISTINCT_GRAM]) for i in range(len(tokens) - DISTINCT_GRAM + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def repeated_share(tokens: Sequence[int]) -> float:
    """Share of tokens in the longest run of a block of up to 128 tokens, repeated four times or more."""
    ids = np.asarray(tokens)
    longest = 0
    for period in range(1, min(LONGEST_PERIOD, len(ids) // FEWEST_COPIES) + 1):
        same = np.concatenate([[0], ids[period:] == ids[:-period], [0]])
        turns = np.flatnonzero(np.diff(same))
        lengths = turns[1::2] - turns[::2] + period
        lengths = lengths[lengths >= FEWEST_COPIES * period]
        longest = max(longest, int(lengths.max(initial=0)))
    return longest / len(ids) if len(ids) else 0.0


def non_text_share(text: str) -> float:
    """Share of replacement characters, control codes, and unassigned, private-use or surrogate code points."""
    bad = sum(c == "�" or (unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") and c not in "\n\r\t") for c in text)
    return bad / len(text) if text else 0.0
