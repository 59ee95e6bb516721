"""Decoding in fixed shapes, for accelerators: a pass of one of few shapes, whatever the responses' lengths are.

A response has a row of buffers of keys and values that are laid out once, its tokens at the places that are their
positions: no padding, no gaps, and what a rejected draft left is written over. Widths of passes, rows and lengths come
in steps, so that a GPU records the kernels of each shape once, as a CUDA graph, and replays them afterwards: one launch
from Python where there were two thousand.

On the CPU, where launching costs nothing and every token that is computed does, `batches` decodes. Both choose the same
tokens in float32; see `sampling` for what makes them.
"""

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from nex_merge.generation.batches import GrowingLayer, supports_masked_gaps
from nex_merge.generation.rotary import boundaries
from nex_merge.wording import first_line

# Tokens that a pass reads of each row: the newest, and a draft. The last is 1 + drafts.LONGEST.
WIDTHS = (1, 2, 4, 8, 16)
# Keys that a pass attends to come in multiples of the first, and buffers have room for multiples of the second, which
# kernels align masks by.
LENGTH_STEP, ALIGNED = 512, 16
# A recorded pass may differ by this share of the largest logit from one that was run: kernels may add in other orders.
ROUNDING = 0.02
ATTENTION = "nex_merge_folded"


def supports_fixed_shapes(model: PreTrainedModel) -> bool:
    """Whether decoding in fixed shapes gives what a pass of its own gives.

    Not with recurrent layers, sliding windows and rotary frequencies that change with the length, nor where attention
    takes more than a mask, as with biases or caps, for which transformers has attention of its own.
    """
    config = model.config.get_text_config()
    plain = not any(getattr(config, name, None) for name in ("attn_logit_softcapping", "attention_chunk_size"))
    is_sdpa = model.config._attn_implementation == "sdpa"
    return supports_masked_gaps(model) and not boundaries(model.config) and plain and is_sdpa


def wants_fixed_shapes(model: PreTrainedModel) -> bool:
    """Whether a model is decoded so: on accelerators, where it can be."""
    return model.device.type != "cpu" and supports_fixed_shapes(model)


def folded_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of all heads of a group at once, as if they were further queries: no key or value is repeated for them.

    `query`, float [rows, heads, width, head_dim]; `key`, `value`, float [rows, groups, length, head_dim];
    `attention_mask`, bool [rows, 1, heads / groups * width, length]. Returns float [rows, width, heads, head_dim].
    """
    rows, heads, width, size = query.shape
    folded = query.reshape(rows, key.shape[1], -1, size)
    found = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=scaling
    )
    return found.reshape(rows, heads, width, value.shape[-1]).transpose(1, 2), None


AttentionInterface.register(ATTENTION, folded_attention)


@contextmanager
def _folding(model: PreTrainedModel) -> Any:
    config, before = model.config, model.config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


class _PlacedLayer(DynamicLayer):
    """Keys and values of a layer: new ones go to the pass's places, and all up to its reach are attended to."""

    def __init__(self, buffers: "Buffers", number: int) -> None:
        super().__init__()
        self._buffers, self._number = buffers, number

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._buffers.write(self._number, key_states, value_states)


class Buffers:
    """Keys and values of `rows` responses of up to `length` tokens, and the passes that read and write them."""

    def __init__(self, model: PreTrainedModel, rows: int, length: int) -> None:
        self.rows, self.length, self.dtype = rows, length, model.dtype
        self.records = model.device.type == "cuda"
        # The buffers live as long as their model, which they must not keep alive.
        self._of = ref(model)
        text = model.config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        self._fold = text.num_attention_heads // groups
        room = _in_steps(length + WIDTHS[-1], ALIGNED)
        shape = (text.num_hidden_layers, 2, rows, groups, room, head)
        self._states = torch.zeros(shape, dtype=model.dtype, device=model.device)
        self._cache = Cache(layers=[_PlacedLayer(self, number) for number in range(text.num_hidden_layers)])
        # What a pass reads, at fixed addresses: tokens and the place of each row's first one.
        self._ids = torch.zeros(rows, WIDTHS[-1], dtype=torch.int64, device=model.device)
        self._at = torch.zeros(rows, 1, dtype=torch.int64, device=model.device)
        self._numbers = torch.arange(max(rows, room), device=model.device)
        self._places = self._at  # of the pass under way, int64 [rows, width]
        self._room = self._reach = room  # reach: of the pass under way
        self._graphs: dict[tuple[int, int, int], Any] = {}  # None: can't be recorded
        self._pool: Any = None  # memory of all graphs, of which one runs at a time
        self._logits: dict[int, torch.Tensor] = {}  # by width: what graphs write

    @property
    def _model(self) -> PreTrainedModel:
        model = self._of()
        assert model is not None, "whoever decodes holds the model"
        return model

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put float [rows, groups, width, head_dim] to their places. Returns all keys and values up to the reach."""
        rows = self._places.shape[0]
        held = self._states[layer, :, :rows]
        row = self._numbers[:rows, None]
        for buffer, states in zip(held, (keys, values), strict=True):
            buffer.transpose(1, 2).index_put_((row, self._places), states.transpose(1, 2))
        return held[0, :, :, : self._reach], held[1, :, :, : self._reach]

    def take(self, row: int, layers: Sequence[GrowingLayer], source: int, length: int) -> None:
        """Copy to a row the keys and values of the last `length` tokens of row `source` of another cache."""
        for number, layer in enumerate(layers):
            for kind, states in enumerate((layer.keys, layer.values)):
                assert states is not None
                end = states.shape[-2]
                self._states[number, kind, row, :, :length] = states[source, :, end - length :]

    def move(self, row: int, to: int, length: int) -> None:
        """Copy a row's keys and values of its first `length` tokens to another row."""
        self._states[:, :, to, :, :length] = self._states[:, :, row, :, :length]

    @torch.inference_mode()
    def logits(self, ids: Sequence[Sequence[int]], at: Sequence[int]) -> torch.Tensor:
        """Logits after each of these tokens, float [rows, width, vocabulary], of which the first `len(ids)` rows are.

        `ids`: width tokens a row, a width of WIDTHS. `at`: the place of the first of them. The tensor is written over
        by the next pass.
        """
        rows, width = len(ids), len(ids[0])
        reach = min(_in_steps(max(at) + width, LENGTH_STEP), self._room)
        self._ids[:rows, :width] = torch.tensor(ids, device=self._ids.device)
        self._at[:rows, 0] = torch.tensor(at, device=self._at.device)
        if not self.records:
            return self._pass(rows, width, reach)
        shape = rows, width, reach
        if shape not in self._graphs:
            self._graphs[shape] = self._recorded(*shape)
        if (graph := self._graphs[shape]) is None:
            return self._pass(*shape)
        graph.replay()
        return self._logits[width][:rows]

    def _pass(self, rows: int, width: int, reach: int) -> torch.Tensor:
        self._places = self._at[:rows] + self._numbers[:width]
        self._reach = reach
        seen = self._numbers[:reach] <= self._places[..., None]  # bool [rows, width, reach]
        mask = seen[:, None].repeat(1, 1, self._fold, 1)
        model = self._model
        with _folding(model):
            return model(
                input_ids=self._ids[:rows, :width],
                attention_mask=mask,
                position_ids=self._places,
                past_key_values=self._cache,
                use_cache=True,
            ).logits

    def _recorded(self, rows: int, width: int, reach: int) -> Any:
        """A pass as a CUDA graph that writes its logits; None, and a warning, if it gives others than the pass does.

        A pass may be repeated: it writes the same keys and values to the same places again.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = self._pass(rows, width, reach)  # kernels are chosen, and workspaces taken, before the recording
        torch.cuda.current_stream().wait_stream(stream)
        if width not in self._logits:
            self._logits[width] = found.new_empty(self.rows, *found.shape[1:])
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph, written = torch.cuda.CUDAGraph(), self._logits[width][:rows]
        try:
            # Another thread may hash weights meanwhile, and make memory for it.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                written.copy_(self._pass(rows, width, reach))
            graph.replay()
            margin = ROUNDING * found.abs().max().item()
            why = "" if torch.allclose(written, found, rtol=0, atol=margin, equal_nan=True) else "logits differ"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            why = first_line(error)
        if not why:
            return graph
        logging.getLogger(__name__).warning(
            "passes of %s can't be replayed as CUDA graphs, so that each launches its kernels one by one: %s",
            type(self._model).__name__,
            why,
        )
        return None


_held: "WeakKeyDictionary[PreTrainedModel, Buffers]" = WeakKeyDictionary()


def buffers_of(model: PreTrainedModel, rows: int, length: int) -> Buffers:
    """Buffers for so many responses of so many tokens: those that the model has, with their graphs, if they suffice."""
    found = _held.get(model)
    if found is None or found.rows < rows or found.length < length or found.dtype != model.dtype:
        del found
        _held.clear()  # before there are others; of one model at a time, as those of a family differ in configs alone
        _held[model] = found = Buffers(model, rows, length)
    return found


def let_go(model: PreTrainedModel) -> None:
    """Free the model's buffers."""
    _held.pop(model, None)


def _in_steps(number: int, step: int) -> int:
    return -(-number // step) * step
