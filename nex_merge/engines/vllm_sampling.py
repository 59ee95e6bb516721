"""Sampling inside vLLM as everywhere else: with noise that is a function of seed, prompt, sample and position.

vLLM's own seeds count what a request has drawn so far. With noise of ours, a response depends neither on the others
nor on how its prompt was read, every variant gets the same noise, and so does every engine. Imported by vLLM alone and
by what has imported it, as this needs it.
"""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from nex_merge.generation.sampling import Job, choose, gumbel_noise
from nex_merge.setup.config import GenerationConfig

# The key of a request's `extra_args` that names its Row.
ROW = "nex_merge_row"


@dataclass
class Row:
    """A response that is sampled, and what was found meanwhile."""

    job: Job
    start: int  # tokens of the response that are part of the request's prompt
    unsure: list[int]  # positions in the response of tokens that rounding may have decided
    is_finite: bool = True


@dataclass
class Rows:
    """All responses that are sampled now; one for the process, as vLLM makes its processor itself."""

    config: GenerationConfig
    rows: dict[int, Row]


SAMPLED = Rows(GenerationConfig(), {})


class SameNoise(LogitsProcessor):
    """Leaves of a sampled response's logits those of the token that is chosen, for vLLM's greedy choice to find."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._found: dict[int, tuple[Row, Sequence[int]]] = {}  # by place in the batch: with the tokens so far

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._found, batch_update, self._state)

    def _state(
        self, params: Any, prompt_ids: list[int] | None, output_ids: list[int]
    ) -> tuple[Row, Sequence[int]] | None:
        number = (params.extra_args or {}).get(ROW)
        return None if number is None else (SAMPLED.rows[number], output_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits`: float32 [batch, V]; changed in place."""
        if not self._found:
            return logits
        places = list(self._found)
        known = logits[places]
        at = [(row.job, row.start + len(output)) for row, output in self._found.values()]
        noise = gumbel_noise(SAMPLED.config.seed, at, known.shape[1]).to(known.device)
        tokens, sure = choose(known, noise, SAMPLED.config)
        finite = torch.isfinite(known).all(1).tolist()
        for (row, _), (_, position), is_sure, is_finite in zip(
            self._found.values(), at, sure.tolist(), finite, strict=True
        ):
            row.is_finite &= is_finite
            if not is_sure:
                row.unsure.append(position)
        chosen = torch.full_like(known, -torch.inf)
        logits[places] = chosen.scatter_(1, tokens[:, None], 0.0)
        return logits
