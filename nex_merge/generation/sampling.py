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
# Sampling sorts logits and their noise; more of them at once would take gigabytes.
LOGITS_AT_ONCE = 1 << 24
NOT_FINITE = "the variant's logits are not finite"


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
    # All places of all drafts at once: a round trip to the device per place would take longer than the pass.
    places = [(row, place) for row, job in enumerate(rows) if job is not None for place in range(len(drafts[row]) + 1)]
    at_once = max(1, LOGITS_AT_ONCE // logits.shape[-1])
    found = [
        _choose_places(logits, places[start : start + at_once], rows, done, config)
        for start in range(0, len(places), at_once)
    ]
    tokens, sure, finite = torch.cat(found, 1).tolist()
    chosen: list[list[int]] = [[] for _ in rows]
    for (row, place), token, is_sure, is_finite in zip(places, tokens, sure, finite, strict=True):
        job, new = rows[row], chosen[row]
        # Logits after a rejected token belong to another text.
        if job is None or new != list(drafts[row][:place]):
            continue
        if not is_finite:
            raise TrialError(NOT_FINITE)
        if not is_sure and model.dtype == torch.float32:
            token = choose_alone(model, job, [*done[job], *new], config)
        new.append(token)
    return chosen


def append_all(
    rows: list[Job | None],
    chosen: Sequence[Sequence[int]],
    tokens: dict[Job, list[int]],
    config: GenerationConfig,
    ends: frozenset[int],
) -> list[int]:
    """Append every row's new tokens, up to the end of its response, which ends the row. Returns their numbers."""
    counts = [0] * len(rows)
    for row, new in enumerate(chosen):
        for token in new:
            job = rows[row]
            assert job is not None, "a finished row has no tokens"
            tokens[job].append(token)
            counts[row] += 1
            if token in ends or len(tokens[job]) == config.max_new_tokens:
                rows[row] = None
                break
    return counts


def _choose_places(
    logits: torch.Tensor,
    places: Sequence[tuple[int, int]],
    rows: Sequence[Job | None],
    done: Mapping[Job, Sequence[int]],
    config: GenerationConfig,
) -> torch.Tensor:
    """Token, whether it is sure, and whether its logits are finite, of these (row, place): int64 [3, places]."""
    flat = logits[[row for row, _ in places], [place for _, place in places]].float()
    positions = [(job, len(done[job]) + place) for row, place in places if (job := rows[row]) is not None]
    tokens, sure = choose(flat, _noise(positions, flat, config), config)
    return torch.stack([tokens, sure, torch.isfinite(flat).all(1)])


def choose_alone(model: PreTrainedModel, job: Job, before: Sequence[int], config: GenerationConfig) -> int:
    """The token of a response after those `before`, by a pass of its own, without padding or cache."""
    alone = torch.tensor([[*job.ids, *before]], device=model.device)
    logits = model(input_ids=alone, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    if not torch.isfinite(logits).all():
        raise TrialError(NOT_FINITE)
    return int(choose(logits, _noise([(job, len(before))], logits, config), config)[0])


def _noise(positions: Sequence[tuple[Job, int]], logits: torch.Tensor, config: GenerationConfig) -> torch.Tensor | None:
    """The noise that belongs to logits [positions, V], on their device; None if the choice is greedy."""
    if config.temperature == 0:
        return None
    return gumbel_noise(config.seed, positions, logits.shape[1]).to(logits.device)


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
    and top_p. Rows whose logits are not all finite get some token.
    """
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
