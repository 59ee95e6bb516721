"""Model + prompts -> Responses: batched generation whose results do not depend on how the batches fall.

Sampling noise comes from (seed, prompt, sample, position), so every variant meets the same noise. Where two tokens are
so close that rounding in another batch could swap them, the step is decided by the response's own tokens alone, run
without batch, padding or cache. That guard holds in float32; in half precision, rounding is too coarse for it, and
results are reproducible for one `batch_tokens` on one kind of device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from nex_merge.config import GenerationConfig
from nex_merge.errors import TrialError
from nex_merge.records import Response

AUTO_BATCH_TOKENS = 32_768
# Rounding differences between batches stay far below this share of the largest logit (about 1e-6 in float32).
MARGIN = 1e-4
# A batch is repacked without its finished responses once this share of it has ended.
REPACK_SHARE = 0.25

Progress = Callable[[int], None]


class GrowingLayer(DynamicLayer):
    """Keys and values in buffers with room to spare, so that a step writes its own and copies no others."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._buffers = [states[..., :0, :] for states in (key_states, value_states)]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append float [batch, heads, new, head_dim]; all keys and values so far, as views of the buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = [_widened(buffer, start, end + end // 2) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        super().batch_select_indices(indices)
        assert self.keys is not None and self.values is not None, "there is nothing to select from before a step"
        self._buffers = [self.keys, self.values]


def _widened(buffer: torch.Tensor, length: int, room: int) -> torch.Tensor:
    wider = buffer.new_empty(*buffer.shape[:-2], room, buffer.shape[-1])
    wider[..., :length, :] = buffer[..., :length, :]
    return wider


@dataclass(frozen=True)
class _Job:
    prompt: int
    sample: int
    ids: tuple[int, ...]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    progress: Progress = lambda tokens: None,
) -> list[Response]:
    """One response per prompt and sample, ordered by prompt, then sample.

    `progress` is told how many tokens each step generated. Raises TrialError where one response alone is too large for
    the memory, or a logit is not finite.
    """
    jobs = [_Job(i, k, tuple(ids)) for i, ids in enumerate(prompts) for k in range(config.samples)]
    waiting = sorted(jobs, key=lambda job: -len(job.ids))
    budget = AUTO_BATCH_TOKENS if config.batch_tokens == "auto" else config.batch_tokens
    ends = end_tokens(model, tokenizer)
    tokens: dict[_Job, list[int]] = {}
    size = len(jobs)
    while waiting:
        size = min(size, max(1, budget // (len(waiting[0].ids) + config.max_new_tokens)))
        batch = waiting[:size]
        try:
            tokens.update(_generate_batch(model, batch, config, ends, progress))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise TrialError(
                    f"out of memory with a single response of up to {config.max_new_tokens} tokens; "
                    "lower generation.max_new_tokens"
                ) from error
            size = len(batch) // 2
            continue
        waiting = waiting[len(batch) :]
    return [_response(job, tokens[job], tokenizer, ends) for job in jobs]


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a response: the tokenizer's and those of the checkpoint's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*listed, tokenizer.eos_token_id] if isinstance(i, int))


def _response(job: _Job, tokens: list[int], tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> Response:
    text = str(tokenizer.decode(tokens, skip_special_tokens=True))
    return Response(job.prompt, job.sample, job.ids, tuple(tokens), text, truncated=tokens[-1] not in ends)


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel, batch: Sequence[_Job], config: GenerationConfig, ends: frozenset[int], progress: Progress
) -> dict[_Job, list[int]]:
    done: dict[_Job, list[int]] = {job: [] for job in batch}
    # Rows of the batch tensors; None marks a response that has ended.
    rows: list[_Job | None] = list(batch)
    width = max(len(job.ids) for job in batch)
    device = model.device
    ids = torch.tensor([[0] * (width - len(job.ids)) + list(job.ids) for job in batch], device=device)
    mask = torch.tensor([[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in batch], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    for step in range(config.max_new_tokens):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
        )
        chosen = _choose_all(model, output.logits[:, -1].float(), rows, done, config, step)
        alive = sum(row is not None for row in rows)
        progress(alive)
        for i, job in enumerate(rows):
            if job is not None:
                done[job].append(chosen[i])
                if chosen[i] in ends:
                    rows[i] = None
        alive = sum(row is not None for row in rows)
        if alive == 0:
            break
        ids = torch.tensor(chosen, device=device)[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
        if len(rows) - alive >= max(1, REPACK_SHARE * len(rows)):
            keep = torch.tensor([i for i, row in enumerate(rows) if row is not None], device=device)
            cache.batch_select_indices(keep)
            ids, mask, positions = ids[keep], mask[keep], positions[keep]
            rows = [row for row in rows if row is not None]
    return done


def _choose_all(
    model: PreTrainedModel,
    logits: torch.Tensor,
    rows: Sequence[_Job | None],
    done: dict[_Job, list[int]],
    config: GenerationConfig,
    step: int,
) -> list[int]:
    """The next token of every row of logits, float32 [batch, vocabulary]."""
    noise = None
    if config.temperature > 0:
        noise = torch.from_numpy(np.stack([_gumbel(config.seed, job, step, logits.shape[1]) for job in rows])).to(
            logits.device
        )
    tokens, sure = choose(logits, noise, config)
    tokens, sure = tokens.tolist(), sure.tolist()
    exact = model.dtype == torch.float32
    for i, job in enumerate(rows):
        if job is None or sure[i] or not exact:
            continue
        alone = torch.tensor([[*job.ids, *done[job]]], device=model.device)
        own = model(input_ids=alone, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        tokens[i] = int(choose(own, None if noise is None else noise[i : i + 1], config)[0])
    return tokens


def _gumbel(seed: int, job: _Job | None, step: int, size: int) -> np.ndarray:
    """Standard Gumbel noise, float32 [size], of one position of one response; zeros for a response that has ended."""
    if job is None:
        return np.zeros(size, np.float32)
    bits = np.random.Philox(key=seed, counter=[0, job.prompt, job.sample, step])
    return np.random.Generator(bits).gumbel(size=size).astype(np.float32)


def choose(
    logits: torch.Tensor, noise: torch.Tensor | None, config: GenerationConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """(token int64 [B], whether rounding could not have changed it bool [B]) from logits float32 [B, V].

    Greedy without noise; else the Gumbel-max trick over logits / temperature, restricted by top_k and top_p.
    Raises TrialError where a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise TrialError("the variant's logits are not finite")
    margin = MARGIN * logits.abs().amax(1)
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
