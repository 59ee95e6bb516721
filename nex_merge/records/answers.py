"""Prompts, responses, and statistics of the responses' tokens and text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """One unlabelled prompt as chat messages; `raw` text bypasses the chat template."""

    messages: tuple[Mapping[str, Any], ...]
    raw: str | None = None
    where: str = field(default="", compare=False)  # file and line it comes from, for messages
    choices: tuple[str, ...] = ()  # the options of a multiple-choice question, where known
    lettered: bool = False  # they are apart from the question, and follow it as lines `A. ...` whatever the settings
    template: Mapping[str, Any] = field(default_factory=dict)  # what else the chat template is given, such as tools

    @property
    def options(self) -> int | None:
        """How many options a multiple-choice question offers, where known."""
        return len(self.choices) or None


@dataclass(frozen=True)
class Response:
    """What one model generated for one prompt."""

    prompt: int  # index of the prompt
    sample: int  # 0 .. samples-1
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]  # generated tokens, including the end token if emitted
    text: str
    truncated: bool  # stopped by max_new_tokens, not by an end token


@dataclass(frozen=True)
class TokenStats:
    """Means over the generated tokens of one response, from the capture pass. Natural logarithms.

    p is the next-token distribution over V tokens.
    """

    entropy: float  # mean of H(p), nats
    entropy_spread: float  # standard deviation of H(p) over the tokens, nats
    self_certainty: float  # mean of KL(uniform || p) = -log V - mean_j log p_j, nats (arXiv 2502.18581)
    logprob: float  # mean log-probability of the emitted tokens


@dataclass(frozen=True)
class TextFigures:
    """Text statistics of each of R responses; float64 [R], between 0 and 1."""

    truncated: np.ndarray  # 1 where cut by max_new_tokens
    distinct_ratio: np.ndarray  # distinct token 4-grams / all of them
    repeated: np.ndarray  # share of tokens in the longest run of a block repeated four times or more
    empty: np.ndarray  # 1 where it says nothing: blanks, marks, or thinking with nothing after it
    non_text: np.ndarray  # share of replacement, control and unassigned characters
