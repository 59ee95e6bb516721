"""Responses under way together, with keys and values that rows can leave and join."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from nex_merge.generation.drafts import Draft
from nex_merge.generation.sampling import Job, choose_all
from nex_merge.setup.config import GenerationConfig

# Ended responses leave a batch, and waiting prompts take their places, once this share of the places is free.
REPACK_SHARE = 0.25
# A batch is at most this many times as wide as its longest response.
SLACK = 1.25
# Logits that drafts may ask for in one step.
LOGITS = 1 << 26
# How many more tokens could be read in the time that a pass takes whatever it reads.
PASS_TOKENS = 64


def takes_holes(model: PreTrainedModel) -> bool:
    """Whether places between others can be masked: not in recurrent layers, nor where a window counts places."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


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

    def arrange(self, kept: torch.Tensor, places: torch.Tensor, width: int, others: "Sequence[GrowingLayer]") -> None:
        """Keep these rows, int64 [R], and their places, int64 [R, used], and add others' rows; all end at `width`."""
        self._buffers = [
            _arranged([own[kept[:, None], :, places].transpose(1, 2), *theirs], width, _roomy(width))
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


def _shared_head(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens, from the first, all prompts have in common, where reading them once pays; each keeps one."""
    first, last = min(prompts), max(prompts)
    most = min(len(prompt) for prompt in prompts) - 1
    same = next((i for i in range(most) if first[i] != last[i]), most)
    return same if same * (len(prompts) - 1) > PASS_TOKENS else 0


@torch.inference_mode()
def _read_once(model: PreTrainedModel, cache: DynamicCache, ids: torch.Tensor, rows: int) -> None:
    """Fill an empty cache with the keys and values of ids, int64 [1, n], for so many rows."""
    model.model(input_ids=ids, past_key_values=cache, use_cache=True)
    first = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device).expand(rows, -1)
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.arrange(first, places, ids.shape[1], [])


def worth_filling(size: int, running: int) -> bool:
    """Whether enough places are free that the copying of a whole batch pays."""
    return size - running >= max(1, REPACK_SHARE * size)


def worth_reading(drafts: Sequence[tuple[int, float]]) -> int:
    """To what length to read the rows' drafts, as all are padded to it: where most is said for the work of a pass.

    Of each row the draft's length, and the chance of a token in it to be right.
    """
    rows = said = len(drafts)
    best, most = 0, said / (PASS_TOKENS + rows)
    for width in range(1, max(length for length, _ in drafts) + 1):
        said += sum(chance**width for length, chance in drafts if length >= width)
        if (rate := said / (PASS_TOKENS + rows * (1 + width))) > most:
            best, most = width, rate
    return best


class Batch:
    """Responses under way in one forward pass. Row i of every tensor belongs to `rows[i]`, None once it has ended.

    Rows end together: the last position is everybody's newest. What is to the left of a row's first is masked, and so
    is what was drafted and not said.
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
        """Run the prompts, what is the same at the head of all of them only once, and choose each one's first token."""
        device = model.device
        cache = DynamicCache(config=model.config)
        shared = _shared_head([job.ids for job in jobs]) if takes_holes(model) else 0
        # Layers with a sliding window keep everything too: the mask hides what has slid out.
        if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
            cache.layers[:] = [GrowingLayer() for _ in cache.layers]
        if shared:
            _read_once(model, cache, torch.tensor([jobs[0].ids[:shared]], device=device), len(jobs))
        rest = [job.ids[shared:] for job in jobs]
        width = max(map(len, rest))
        ids = torch.tensor([[0] * (width - len(own)) + list(own) for own in rest], device=device)
        mask = torch.tensor([[1] * shared + [0] * (width - len(own)) + [1] * len(own) for own in rest], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        batch = cls(model, list(jobs), cache, ids, mask, positions)
        batch.step(tokens, {}, config, ends)
        return batch

    @property
    def is_fixed(self) -> bool:
        """Whether rows can't leave or join, as with recurrent layers: then a batch runs until its last row ends."""
        return not all(isinstance(layer, GrowingLayer) for layer in self._cache.layers)

    def alive(self) -> list[Job]:
        return [job for job in self._rows if job is not None]

    @torch.inference_mode()
    def step(
        self,
        tokens: dict[Job, list[int]],
        drafts: Mapping[Job, Draft],
        config: GenerationConfig,
        ends: frozenset[int],
    ) -> int:
        """Append to every response that has not ended what one forward pass gives; how many tokens those were."""
        if not self.alive():
            return 0
        ahead = self._ahead(tokens, drafts, config)
        width, device = max(map(len, ahead)), self._ids.device
        places = torch.arange(width, device=device)
        lengths = torch.tensor([len(draft) for draft in ahead], device=device)
        padded = torch.tensor([[*draft, *[0] * (width - len(draft))] for draft in ahead], device=device)
        last = self._positions[:, -1:]
        output = self._model(
            input_ids=torch.cat([self._ids, padded.long()], 1),
            attention_mask=torch.cat([self._mask, (places < lengths[:, None]).long()], 1),
            position_ids=torch.cat([self._positions, last + 1 + places], 1),
            past_key_values=self._cache,
            logits_to_keep=1 + width,
        )
        chosen = choose_all(self._model, output.logits, self._rows, ahead, tokens, config)
        said = [self._say(i, new, tokens, config, ends) for i, new in enumerate(chosen)]
        counts = torch.tensor(said, device=device)[:, None]
        newest = [0 if job is None else tokens[job][-1] for job in self._rows]
        self._ids = torch.tensor(newest, device=device)[:, None]
        # What was said of a draft stays; then comes the newest token, which the next step reads.
        self._mask = torch.cat([self._mask, (places < counts - 1).long(), torch.ones_like(counts)], 1)
        self._positions = last + counts.clamp(min=1)
        return sum(said)

    def _ahead(
        self, tokens: Mapping[Job, Sequence[int]], drafts: Mapping[Job, Draft], config: GenerationConfig
    ) -> list[list[int]]:
        """Every row's draft, as far as it is worth reading."""
        if not drafts:
            return [[] for _ in self._rows]
        room = LOGITS // (len(self._rows) * self._model.config.get_text_config().vocab_size) - 1
        ahead = [
            []
            if job is None
            else drafts[job].ahead(tokens[job], min(room, config.max_new_tokens - len(tokens[job]) - 1))
            for job in self._rows
        ]
        chances = [0.0 if job is None else drafts[job].chance for job in self._rows]
        width = worth_reading([(len(draft), chance) for draft, chance in zip(ahead, chances, strict=True)])
        return [draft[:width] for draft in ahead]

    def _say(
        self, row: int, new: Sequence[int], tokens: dict[Job, list[int]], config: GenerationConfig, ends: frozenset[int]
    ) -> int:
        """Append a row's new tokens up to its end; how many those were."""
        job = self._rows[row]
        for count, token in enumerate(new, 1):
            assert job is not None, "an ended row says nothing"
            tokens[job].append(token)
            if token in ends or len(tokens[job]) == config.max_new_tokens:
                self._rows[row] = None
                return count
        return len(new)

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
        # Of each row's places only those that it attends to, at the end. The mask is one ahead, for the token to come.
        before = self._mask[kept, :-1]
        used = int(before.sum(1).max())
        places = before.argsort(dim=1, stable=True)[:, before.shape[1] - used :]
        mask = nn.functional.pad(before.gather(1, places), (0, 1), value=1)
        masks = [mask, *(other._mask for other in others)]
        width = max(part.shape[1] for part in masks)
        for layer, *rest in zip(self._cache.layers, *(other._cache.layers for other in others), strict=True):
            assert isinstance(layer, GrowingLayer)
            layer.arrange(kept, places, width - 1, rest)
        return Batch(
            self._model,
            [*self.alive(), *(job for other in others for job in other.alive())],
            self._cache,
            torch.cat([self._ids[kept], *(other._ids for other in others)]),
            torch.cat([nn.functional.pad(part, (width - part.shape[1], 0)) for part in masks]),
            torch.cat([self._positions[kept], *(other._positions for other in others)]),
        )
