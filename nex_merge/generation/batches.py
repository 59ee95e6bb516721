"""Responses under way together, with keys and values that rows can leave and join."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from nex_merge.config import GenerationConfig
from nex_merge.generation.choosing import Job, choose_all

# Ended responses leave a batch, and waiting prompts take their places, once this share of the places is free.
REPACK_SHARE = 0.25
# A batch is at most this many times as wide as its longest response.
SLACK = 1.25


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
            self._buffers = [_arranged([buffer[..., :start, :]], start, _roomy(end)) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def arrange(self, kept: torch.Tensor, used: int, width: int, others: "Sequence[GrowingLayer]") -> None:
        """Keep these rows and their last `used` positions, and add the rows of others; all end at `width`."""
        start = self.get_seq_length() - used
        self._buffers = [
            _arranged([own[kept, :, start:], *theirs], width, _roomy(width))
            for own, *theirs in zip(self._both(), *(layer._both() for layer in others), strict=True)
        ]
        self.keys, self.values = (buffer[..., :width, :] for buffer in self._buffers)

    def _both(self) -> list[torch.Tensor]:
        assert self.keys is not None and self.values is not None, "there is nothing to arrange before a step"
        return [self.keys, self.values]


def _roomy(width: int) -> int:
    return width + max(32, width // 8)


def _arranged(parts: Sequence[torch.Tensor], width: int, room: int) -> torch.Tensor:
    """Rows of all parts, [batch, heads, room, head_dim], each part's positions ending at `width`, the rest zeros."""
    first = parts[0]
    buffer = first.new_zeros(sum(len(part) for part in parts), first.shape[1], room, first.shape[-1])
    row = 0
    for part in parts:
        buffer[row : row + len(part), :, width - part.shape[-2] : width] = part
        row += len(part)
    return buffer


def worth_filling(size: int, running: int) -> bool:
    """Whether enough places are free that the copying of a whole batch pays."""
    return size - running >= max(1, REPACK_SHARE * size)


class Batch:
    """Responses under way in one forward pass. Row i of every tensor belongs to `rows[i]`, None once it has ended.

    Rows end together: the last position is everybody's newest, and what is to the left of a row's first is masked.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: list[Job | None],
        cache: DynamicCache,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:
        self._model, self._rows, self._cache = model, rows, cache
        self._ids, self._mask, self._positions = ids, mask, positions  # int64 [B, 1], [B, width], [B, 1]

    @classmethod
    def begin(
        cls,
        model: PreTrainedModel,
        jobs: Sequence[Job],
        tokens: dict[Job, list[int]],
        config: GenerationConfig,
        ends: frozenset[int],
    ) -> "Batch":
        """Run the prompts and choose every response's first token."""
        width, device = max(len(job.ids) for job in jobs), model.device
        ids = torch.tensor([[0] * (width - len(job.ids)) + list(job.ids) for job in jobs], device=device)
        mask = torch.tensor([[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in jobs], device=device)
        cache = DynamicCache(config=model.config)
        # Layers with a sliding window keep everything too: the mask hides what has slid out.
        if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
            cache.layers[:] = [GrowingLayer() for _ in cache.layers]
        batch = cls(model, list(jobs), cache, ids, mask, (mask.cumsum(1) - 1).clamp(min=0))
        batch.step(tokens, config, ends)
        return batch

    @property
    def is_fixed(self) -> bool:
        """Whether rows can't leave or join, as with recurrent layers: then a batch runs until its last row ends."""
        return not all(isinstance(layer, GrowingLayer) for layer in self._cache.layers)

    def alive(self) -> list[Job]:
        return [job for job in self._rows if job is not None]

    @torch.inference_mode()
    def step(self, tokens: dict[Job, list[int]], config: GenerationConfig, ends: frozenset[int]) -> int:
        """Append one token to every response that has not ended; how many there were."""
        alive = self.alive()
        if not alive:
            return 0
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            logits_to_keep=1,
        )
        chosen = choose_all(self._model, output.logits[:, -1].float(), self._rows, tokens, config)
        for i, job in enumerate(self._rows):
            if job is not None:
                tokens[job].append(chosen[i])
                if chosen[i] in ends or len(tokens[job]) == config.max_new_tokens:
                    self._rows[i] = None
        self._ids = torch.tensor(chosen, device=self._ids.device)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(chosen), 1)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        return len(alive)

    def packed(self, tokens: Mapping[Job, Sequence[int]], filling: bool) -> "Batch | None":
        """The batch without ended rows and positions that nobody has, where copying pays; None where all have ended.

        `filling`: others wait to join, and ended rows leave when they do.
        """
        alive = self.alive()
        if not alive or self.is_fixed:
            return self if alive else None
        used = max(len(job.ids) + len(tokens[job]) for job in alive)
        leaving = not filling and worth_filling(len(self._rows), len(alive))
        return self._arranged() if leaving or self._mask.shape[1] > SLACK * used else self

    @torch.inference_mode()
    def joined(self, other: "Batch") -> "Batch":
        """Both batches as one, without their ended rows."""
        return self._arranged(other._arranged()) if other.alive() else self

    @torch.inference_mode()
    def _arranged(self, *others: "Batch") -> "Batch":
        kept = torch.tensor([i for i, job in enumerate(self._rows) if job is not None], device=self._ids.device)
        mask = self._mask[kept]
        # Of the positions only those that somebody still attends to. The mask is one ahead, for the token to come.
        used = int(mask.sum(1).max())
        width = max([used, *(other._mask.shape[1] for other in others)])
        masks = [nn.functional.pad(part, (width - part.shape[1], 0)) for part in
                 (mask[:, -used:], *(other._mask for other in others))]  # fmt: skip
        for layer, *rest in zip(self._cache.layers, *(other._cache.layers for other in others), strict=True):
            assert isinstance(layer, GrowingLayer)
            layer.arrange(kept, used - 1, width - 1, rest)
        return Batch(
            self._model,
            [*self.alive(), *(job for other in others for job in other.alive())],
            self._cache,
            torch.cat([self._ids[kept], *(other._ids for other in others)]),
            torch.cat(masks),
            torch.cat([self._positions[kept], *(other._positions for other in others)]),
        )
