"""Detects collapsed variants: repetition, truncation, empty and garbled output, compared with base and parents.

Degenerate text can game a label-free score: a loop recruits and reuses neurons as well as reasoning does. This module
uses tokens and text only, neither models nor scores.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from nex_merge.records import Response, TextFigures, TextMeasures

DISTINCT_GRAM = 4
LONGEST_PERIOD = 128
# Copies that make a loop: checking a result twice in a row is not one.
FEWEST_COPIES = 4
# How much worse (absolute difference) than the worst baseline a mean may be before the variant counts as collapsed.
# results/studies/does-nex-rank-merges.md shows what this catches and misses.
ALLOWANCE = TextMeasures(truncated=0.25, distinct_ratio=0.15, repeated=0.15, empty=0.1, non_text=0.02)
_WORSE_IF_LOWER = {"distinct_ratio"}
_WORDS = {
    "truncated": "responses cut at max_new_tokens",
    "distinct_ratio": "distinct 4-grams",
    "repeated": "tokens in a repeated run",
    "empty": "empty responses",
    "non_text": "non-text characters",
}


def text_figures(responses: Sequence[Response]) -> TextFigures:
    """Text statistics of each response."""
    return TextFigures(
        truncated=np.array([float(r.truncated) for r in responses]),
        distinct_ratio=np.array([distinct_ratio(r.token_ids) for r in responses]),
        repeated=np.array([repeated_share(r.token_ids) for r in responses]),
        empty=np.array([float(not r.text.strip()) for r in responses]),
        non_text=np.array([non_text_share(r.text) for r in responses]),
    )


def measure_text(responses: Sequence[Response]) -> TextMeasures:
    """Text statistics, means over the responses, each between 0 and 1."""
    return text_means(text_figures(responses))


def text_means(figures: TextFigures) -> TextMeasures:
    return TextMeasures(**{item.name: float(np.mean(getattr(figures, item.name))) for item in fields(TextMeasures)})


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


def collapse(text: TextMeasures, baselines: Sequence[TextMeasures]) -> tuple[float, str | None]:
    """(violation, reason or None) of a merge compared with base and parents.

    The violation is the largest excess of a statistic over its allowance, as a multiple of the allowance; above 0, the
    merge has collapsed. Without scored baselines, the merge is compared with faultless text.
    """
    worst, reason = -1.0, None
    for item in fields(TextMeasures):
        sign = -1 if item.name in _WORSE_IF_LOWER else 1
        value = getattr(text, item.name)
        expected = [getattr(baseline, item.name) for baseline in baselines] or [1.0 if sign < 0 else 0.0]
        reference = min(expected) if sign < 0 else max(expected)
        excess = sign * (value - reference) / getattr(ALLOWANCE, item.name) - 1
        if excess > worst:
            worst = excess
            against = "worst baseline" if baselines else "faultless text"
            reason = f"{_WORDS[item.name]} {value:.2f}, {against} {reference:.2f}"
    return worst, reason if worst > 0 else None
