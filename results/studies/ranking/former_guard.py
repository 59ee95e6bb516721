"""The guard against collapse of version 0.1.0, by which these studies tell sound variants from collapsed ones.

It compares means of text statistics with the worst of base and parents. What the studies stored of a variant are these
means, not its responses, so the present guard (nex_merge.measures.guard) can't judge it again; ranking/planted.py has
both side by side.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nex_merge.measures.text import text_figures
from nex_merge.records import Response

ALLOWANCE = {"truncated": 0.25, "distinct_ratio": 0.15, "repeated": 0.15, "empty": 0.1, "non_text": 0.02}
_WORSE_IF_LOWER = "distinct_ratio"
_WORDS = {
    "truncated": "responses cut at max_new_tokens",
    "distinct_ratio": "distinct 4-grams",
    "repeated": "tokens in a repeated run",
    "empty": "empty responses",
    "non_text": "non-text characters",
}


def measure_text(responses: Sequence[Response]) -> dict[str, float]:
    """Text statistics by name, means over the responses."""
    figures = text_figures(responses)
    return {name: float(np.mean(getattr(figures, name))) for name in ALLOWANCE}


def former_collapse(text: Mapping[str, float], baselines: Sequence[Mapping[str, float]]) -> tuple[float, str | None]:
    """(violation, reason or None); above 0, a variant has collapsed.

    The violation is the largest excess of a statistic over its allowance, as a multiple of the allowance.
    """
    violation, reason = -1.0, None
    for name, allowance in ALLOWANCE.items():
        sign = -1 if name == _WORSE_IF_LOWER else 1
        worst = sign * max(sign * baseline[name] for baseline in baselines)
        excess = sign * (text[name] - worst) / allowance - 1
        if excess > violation:
            violation, reason = excess, f"{_WORDS[name]} {text[name]:.2f}, worst baseline {worst:.2f}"
    return violation, reason if violation > 0 else None
