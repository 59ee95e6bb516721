"""Logits -> tokens: greedy, or sampled with noise that is a function of the position; robust to rounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from nex_merge.errors import TrialError
from nex_merge.setup.config import GenerationConfig
from nex_merge.threads import on_cores

# Tokens closer than this share of the largest |logit| count as tied; rounding across batches is about 1e-6 in float32.
MARGIN = 1e-4


@dataclass(frozen=True)
class Job:
    """One response to generate."""

    prompt: int  # index of the prompt
    sample: int  # 0 .. samples-1
    ids: tuple[int, ...]  # token ids of the prompt


def choose_all(
    model: PreTrainedModel,
    logits: torch.Tensor,
    rows: Sequence[Job | None],
    drafts: Sequence[Sequence[int]],
    done: Mapping[Job, Sequence[int]],
    config: GenerationConfig,
) -> list[list[int]]:
    """The next tokens of every row: the accepted part of its draft and one more token; none for a finished row.

    `logits`: float [batch, 1 + longest draft, V], after the row's last token and after each token of its draft.
    `done`: tokens of the responses so far. Raises TrialError if the logits of a chosen token are not finite.
    """
    chosen: list[list[int]] = [[] for _ in rows]
    accepting = [(i, job) for i, job in enumerate(rows) if job is not None]
    for place in range(logits.shape[1]):
        if not accepting:
            break
        responses = [(job, done[job], chosen[i]) for i, job in accepting]
        tokens = _choose_next(model, logits[[i for i, _ in accepting], place].float(), responses, config)
        for (i, _), token in zip(accepting, tokens, strict=True):
            chosen[i].append(token)
        # Logits after a rejected token belong to another text.
        accepting = [(i, job) for i, job in accepting if list(drafts[i][: place + 1]) == chosen[i]]
    return chosen


def _choose_next(
    model: PreTrainedModel,
    logits: torch.Tensor,
    responses: Sequence[tuple[Job, Sequence[int], Sequence[int]]],
    config: GenerationConfig,
) -> list[int]:
    """The next token of every response, (job, earlier tokens, tokens of this step); logits float32 [batch, V]."""
    noise = None
    if config.temperature > 0:
        positions = [(job, len(done) + len(new)) for job, done, new in responses]
        noise = gumbel_noise(config.seed, positions, logits.shape[1]).to(logits.device)
    tokens, sure = choose(logits, noise, config)
    tokens, sure = tokens.tolist(), sure.tolist()
    exact = model.dtype == torch.float32
    for i, (job, done, new) in enumerate(responses):
        if sure[i] or not exact:
            continue
        alone = torch.tensor([[*job.ids, *done, *new]], device=model.device)
        unbatched = model(input_ids=alone, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        tokens[i] = int(choose(unbatched, None if noise is None else noise[i : i + 1], config)[0])
    return tokens


def gumbel_noise(seed: int, positions: Sequence[tuple[Job, int]], size: int) -> torch.Tensor:
    """Standard Gumbel noise, float32 [positions, size], on the CPU: one stream per position of a response.

    Rows are drawn on all cores; NumPy releases the GIL meanwhile.
    """
    noise = np.empty((len(positions), size), np.float32)

    def draw(row: int) -> None:
        job, position = positions[row]
        bits = np.random.Philox(key=seed, counter=[0, job.prompt, job.sample, position])
        noise[row] = np.random.Generator(bits).gumbel(size=size)

    for _ in on_cores(draw, range(len(positions))):
        pass
    return torch.from_numpy(noise)


def choose(
    logits: torch.Tensor, noise: torch.Tensor | None, config: GenerationConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token int64 [B], sure bool [B]) from logits float32 [B, V]; `sure`: rounding cannot have changed the token.

    Greedy without noise; with noise, float32 [B, V], the Gumbel-max trick on logits / temperature, restricted by top_k
    and top_p. Raises TrialError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise TrialError("the variant's logits are not finite")
    lowest, highest = logits.aminmax(dim=1)
    margin = MARGIN * torch.maximum(highest, -lowest)
    if noise is None:
        best = logits.topk(2, dim=1)
        # argmax, because it resolves exact ties to the smallest id; topk does not promise to.
        return logits.argmax(1), best.values[:, 0] - best.values[:, 1] > margin
    scaled = logits / config.temperature
    order = scaled.argsort(dim=1, descending=True, stable=True)
    ranked = scaled.gather(1, order)
    before = ranked.softmax(1).cumsum(1) - ranked.softmax(1)  # total probability of more likely tokens
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
