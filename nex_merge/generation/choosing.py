"""Logits -> tokens: greedy, or sampled with noise that belongs to the position, and never by the luck of rounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from nex_merge.config import GenerationConfig
from nex_merge.errors import TrialError

# Rounding differences between batches stay far below this share of the largest logit (about 1e-6 in float32).
MARGIN = 1e-4


@dataclass(frozen=True)
class Job:
    """One response to be made."""

    prompt: int
    sample: int
    ids: tuple[int, ...]


def choose_all(
    model: PreTrainedModel,
    logits: torch.Tensor,
    rows: Sequence[Job | None],
    drafts: Sequence[Sequence[int]],
    done: Mapping[Job, Sequence[int]],
    config: GenerationConfig,
) -> list[list[int]]:
    """The next tokens of every row: as much of its draft as it says itself, and one more. None for an ended row.

    `logits`, float32 [batch, 1 + longest draft, vocabulary], follow the row's last token and each token of its draft;
    they are written into. Raises TrialError where a logit that a token is chosen by is not finite.
    """
    batch, width, size = logits.shape
    flat = logits.reshape(batch * width, size)
    noise = None
    if config.temperature > 0:
        none = np.zeros(size, np.float32)
        noise = torch.from_numpy(np.stack([
            none if job is None or j > len(draft) else _gumbel(config.seed, job, len(done[job]) + j, size)
            for job, draft in zip(rows, drafts, strict=True)
            for j in range(width)
        ])).to(logits.device)  # fmt: skip
    finite = torch.isfinite(flat).all(1)
    flat[~finite] = 0
    tokens, sure = choose(flat, noise, config)
    found, sure, finite = (values.view(batch, width).tolist() for values in (tokens, sure, finite))
    exact = model.dtype == torch.float32
    chosen: list[list[int]] = []
    for i, (job, draft) in enumerate(zip(rows, drafts, strict=True)):
        chosen.append([])
        if job is None:
            continue
        for j in range(len(draft) + 1):
            if not finite[i][j]:
                raise TrialError("the variant's logits are not finite")
            if exact and not sure[i][j]:
                alone = torch.tensor([[*job.ids, *done[job], *chosen[i]]], device=model.device)
                own = model(input_ids=alone, use_cache=False, logits_to_keep=1).logits[:, -1].float()
                at = i * width + j
                found[i][j] = int(choose(own, None if noise is None else noise[at : at + 1], config)[0])
            chosen[i].append(found[i][j])
            if j < len(draft) and found[i][j] != draft[j]:
                break
    return chosen


def _gumbel(seed: int, job: Job, position: int, size: int) -> np.ndarray:
    """Standard Gumbel noise, float32 [size], of a position of a response."""
    bits = np.random.Philox(key=seed, counter=[0, job.prompt, job.sample, position])
    return np.random.Generator(bits).gumbel(size=size).astype(np.float32)


def choose(
    logits: torch.Tensor, noise: torch.Tensor | None, config: GenerationConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token int64 [B], whether rounding could not have changed it bool [B]) from logits float32 [B, V].

    Greedy without noise; else the Gumbel-max trick over logits / temperature, restricted by top_k and top_p.
    """
    lowest, highest = logits.aminmax(dim=1)
    margin = MARGIN * torch.maximum(highest, -lowest)
    if noise is None:
        best = logits.topk(2, dim=1)
        # Equal logits go to the smaller id, as argmax over the vocabulary would have it.
        return logits.argmax(1), best.values[:, 0] - best.values[:, 1] > margin
    scaled = logits / config.temperature
    order = scaled.argsort(dim=1, descending=True, stable=True)
    ranked = scaled.gather(1, order)
    before = ranked.softmax(1).cumsum(1) - ranked.softmax(1)  # probability of all better tokens
    perturbed = ranked + noise.gather(1, order)
    allowed = torch.ones_like(ranked, dtype=torch.bool)
    sure = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    if 0 < config.top_k < logits.shape[1]:
        allowed[:, config.top_k :] = False
        sure &= (ranked[:, config.top_k - 1] - ranked[:, config.top_k]) * config.temperature > margin
    picks = [
        perturbed.masked_fill(~(allowed & (before < limit)), -torch.inf)
        for limit in (
            (config.top_p * (1 - MARGIN), config.top_p, config.top_p * (1 + MARGIN)) if config.top_p < 1 else (2,)
        )
    ]
    best = picks[len(picks) // 2].topk(2, dim=1)
    winner = best.indices[:, :1]
    for pick in (picks[0], picks[-1]):
        sure &= pick.argmax(1) == winner[:, 0]
    sure &= (best.values[:, 0] - best.values[:, 1]) * config.temperature > margin
    return order.gather(1, winner)[:, 0], sure
