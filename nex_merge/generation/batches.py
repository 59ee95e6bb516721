"""Continuous batching: a batch of running responses whose rows can leave and join, keys and values included."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from nex_merge import interrupts
from nex_merge.generation.drafts import Draft
from nex_merge.generation.rotary import boundaries, ceiling, side
from nex_merge.generation.sampling import Job, append_all, choose_all
from nex_merge.setup.config import GenerationConfig

# Share of a batch's rows that must be free before finished responses are dropped and waiting prompts join.
REPACK_SHARE = 0.25
# Maximum width of a batch, relative to its longest response.
SLACK = 1.25
# Maximum number of logits per step with drafts: rows x tokens x vocabulary.
LOGITS = 1 << 26
# Fixed cost of a forward pass, as the number of tokens that take the same time.
PASS_TOKENS = 64


def supports_masked_gaps(model: PreTrainedModel) -> bool:
    """Whether positions between others can be masked, as rejected drafts are.

    Not so in recurrent layers, whose state includes every token, nor with a sliding window, which counts positions.
    """
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


class GrowingLayer(DynamicLayer):
    """Keys and values in buffers with spare room, so that a step does not copy those of earlier steps."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._buffers = [states[..., :0, :] for states in (key_states, value_states)]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append float [batch, heads, new, head_dim]. Returns all keys and values so far, as views of the buffers."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._buffers = [_stacked([buffer[..., :start, :]], start, _with_room(end)) for buffer in self._buffers]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def arrange(self, kept: torch.Tensor, places: torch.Tensor, width: int, others: "Sequence[GrowingLayer]") -> None:
        """Keep only these rows, int64 [R], and of each these positions, int64 [R, used]; append the rows of `others`.

        All rows end at `width`.
        """
        self._buffers = [
            _stacked([states[kept[:, None], :, places].transpose(1, 2), *theirs], width, _with_room(width))
            for states, *theirs in zip(self._both(), *(layer._both() for layer in others), strict=True)
        ]
        self.keys, self.values = (buffer[..., :width, :] for buffer in self._buffers)

    def _both(self) -> list[torch.Tensor]:
        assert self.keys is not None and self.values is not None, "rows can be rearranged only after the first step"
        return [self.keys, self.values]


def _with_room(width: int) -> int:
    return width + max(32, width // 8)


def _stacked(parts: Sequence[torch.Tensor], width: int, room: int) -> torch.Tensor:
    """Rows of all parts, [batch, heads, room, head_dim]: positions of each part end at `width`, the rest is zeros."""
    first = parts[0]
    buffer = first.new_zeros(sum(len(part) for part in parts), first.shape[1], room, first.shape[-1])
    row = 0
    for part in parts:
        buffer[row : row + len(part), :, width - part.shape[-2] : width] = part
        row += len(part)
    return buffer


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Length of the prompts' common prefix, without anyone's last token; 0 if a pass of its own does not pay off."""
    first, last = min(prompts), max(prompts)
    longest = min(len(prompt) for prompt in prompts) - 1
    same = next((i for i in range(longest) if first[i] != last[i]), longest)
    return same if same * (len(prompts) - 1) > PASS_TOKENS else 0


@torch.inference_mode()
def _prefill_shared(model: PreTrainedModel, cache: DynamicCache, ids: torch.Tensor, rows: int) -> None:
    """Fill an empty cache with the keys and values of `ids`, int64 [1, n], repeated for `rows` rows."""
    model.model(input_ids=ids, past_key_values=cache, use_cache=True)
    first = torch.zeros(rows, dtype=torch.int64, device=ids.device)
    places = torch.arange(ids.shape[1], device=ids.device).expand(rows, -1)
    for layer in cache.layers:
        assert isinstance(layer, GrowingLayer)
        layer.arrange(first, places, ids.shape[1], [])


def should_refill(size: int, running: int) -> bool:
    """Whether enough of the batch's `size` rows are free for copying the whole batch to pay off."""
    return size - running >= max(1, REPACK_SHARE * size)


def best_draft_length(drafts: Sequence[tuple[int, float]]) -> int:
    """The length to cut drafts to, since all are padded to the longest: most expected tokens for the cost of a pass.

    `drafts`: (length, acceptance rate per token) of every row's draft.
    """
    rows = len(drafts)
    expected = float(rows)
    best, best_rate = 0, expected / (PASS_TOKENS + rows)
    for width in range(1, max(length for length, _ in drafts) + 1):
        expected += sum(acceptance**width for length, acceptance in drafts if length >= width)
        if (rate := expected / (PASS_TOKENS + rows * (1 + width))) > best_rate:
            best, best_rate = width, rate
    return best


def draft_all(
    model: PreTrainedModel,
    rows: Sequence[Job | None],
    tokens: Mapping[Job, Sequence[int]],
    drafts: Mapping[Job, Draft],
    config: GenerationConfig,
) -> list[list[int]]:
    """Every row's draft, cut to the length that pays off most."""
    if not drafts:
        return [[] for _ in rows]
    room = LOGITS // (len(rows) * model.config.get_text_config().vocab_size) - 1
    drafted = [
        [] if job is None else drafts[job].propose(tokens[job], min(room, config.max_new_tokens - len(tokens[job]) - 1))
        for job in rows
    ]
    acceptance = [0.0 if job is None else drafts[job].acceptance for job in rows]
    width = best_draft_length([(len(draft), rate) for draft, rate in zip(drafted, acceptance, strict=True)])
    return [draft[:width] for draft in drafted]


class Batch:
    """Running responses of one forward pass. Row i of every tensor belongs to `rows[i]`, which is None once finished.

    Rows are aligned at the right: the last position holds everyone's newest token. Padding at the left is masked, and
    so are rejected drafts.
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
        # All rows are on one side of it.
        self._ceiling = ceiling(boundaries(model.config), len(next(job for job in rows if job is not None).ids))

    @classmethod
    def begin(
        cls,
        model: PreTrainedModel,
        jobs: Sequence[Job],
        tokens: dict[Job, list[int]],
        config: GenerationConfig,
        ends: frozenset[int],
    ) -> "Batch":
        """Prefill the prompts, their common prefix only once, and choose the first token of each response."""
        device = model.device
        cache = DynamicCache(config=model.config)
        shared = _shared_prefix([job.ids for job in jobs]) if supports_masked_gaps(model) else 0
        limits = boundaries(model.config)
        if side(limits, shared) != side(limits, len(jobs[0].ids)):
            shared = 0  # a pass of its own would take other rotary frequencies
        # Layers with a sliding window keep all positions, too; the mask hides those outside the window.
        if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
            cache.layers[:] = [GrowingLayer() for _ in cache.layers]
        if shared:
            _prefill_shared(model, cache, torch.tensor([jobs[0].ids[:shared]], device=device), len(jobs))
        rest = [job.ids[shared:] for job in jobs]
        width = max(map(len, rest))
        ids = torch.tensor([[0] * (width - len(tail)) + list(tail) for tail in rest], device=device)
        mask = torch.tensor(
            [[1] * shared + [0] * (width - len(tail)) + [1] * len(tail) for tail in rest], device=device
        )
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        batch = cls(model, list(jobs), cache, ids, mask, positions)
        batch.step(tokens, {}, config, ends)
        return batch

    @property
    def is_fixed(self) -> bool:
        """Whether rows cannot leave or join, as with recurrent layers: the batch runs until all rows have finished."""
        return not all(isinstance(layer, GrowingLayer) for layer in self._cache.layers)

    def running(self) -> list[Job]:
        return [job for job in self._rows if job is not None]

    @torch.inference_mode()
    def step(
        self,
        tokens: dict[Job, list[int]],
        drafts: Mapping[Job, Draft],
        config: GenerationConfig,
        ends: frozenset[int],
    ) -> int:
        """Run one forward pass and append its tokens to the running responses. Returns the number of tokens.

        `tokens`: tokens of every response so far, modified in place.
        """
        interrupts.check()
        if not self.running():
            return 0
        drafted = draft_all(self._model, self._rows, tokens, drafts, config)
        width, device = max(map(len, drafted)), self._ids.device
        places = torch.arange(width, device=device)
        lengths = torch.tensor([len(draft) for draft in drafted], device=device)
        padded = torch.tensor([[*draft, *[0] * (width - len(draft))] for draft in drafted], device=device)
        last = self._positions[:, -1:]
        positions = torch.cat([self._positions, last + 1 + places], 1)
        if self._ceiling is not None:
            # Only finished rows and padding go further, and would change everyone's rotary frequencies.
            positions = positions.clamp(max=self._ceiling - 1)
        output = self._model(
            input_ids=torch.cat([self._ids, padded.long()], 1),
            attention_mask=torch.cat([self._mask, (places < lengths[:, None]).long()], 1),
            position_ids=positions,
            past_key_values=self._cache,
            logits_to_keep=1 + width,
        )
        chosen = choose_all(self._model, output.logits, self._rows, drafted, tokens, config)
        appended = append_all(self._rows, chosen, tokens, config, ends)
        counts = torch.tensor(appended, device=device)[:, None]
        newest = [0 if job is None else tokens[job][-1] for job in self._rows]
        self._ids = torch.tensor(newest, device=device)[:, None]
        # Accepted draft tokens stay visible; then comes the newest token, which the next pass reads.
        self._mask = torch.cat([self._mask, (places < counts - 1).long(), torch.ones_like(counts)], 1)
        self._positions = last + counts.clamp(min=1)
        return sum(appended)

    def packed(self, tokens: Mapping[Job, Sequence[int]], refilling: bool) -> "Batch | None":
        """The batch without finished rows and unused positions, if copying it pays off; None if all rows have finished.

        `refilling`: prompts are waiting, and finished rows are dropped when these join.
        """
        running = self.running()
        if not running or self.is_fixed:
            return self if running else None
        used = max(len(job.ids) + len(tokens[job]) for job in running)
        dropping = not refilling and should_refill(len(self._rows), len(running))
        return self._packed_with() if dropping or self._mask.shape[1] > SLACK * used else self

    def taken(self) -> tuple[list[Job], list[GrowingLayer]]:
        """The running responses, and keys and values of all their tokens but the newest, which end at the right."""
        packed = self._packed_with()
        layers = [layer for layer in packed._cache.layers if isinstance(layer, GrowingLayer)]
        return packed.running(), layers

    @torch.inference_mode()
    def joined(self, other: "Batch", tokens: Mapping[Job, Sequence[int]]) -> "Batch":
        """Both batches as one, without their finished rows."""
        return self._packed_with(other._packed_with()) if other.running() else self

    @torch.inference_mode()
    def _packed_with(self, *others: "Batch") -> "Batch":
        kept = torch.tensor([i for i, job in enumerate(self._rows) if job is not None], device=self._ids.device)
        # Only positions that a row attends to, moved to the right. The mask is one ahead, for the next token.
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
            [*self.running(), *(job for other in others for job in other.running())],
            self._cache,
            torch.cat([self._ids[kept], *(other._ids for other in others)]),
            torch.cat([nn.functional.pad(part, (width - part.shape[1], 0)) for part in masks]),
            torch.cat([self._positions[kept], *(other._positions for other in others)]),
        )
