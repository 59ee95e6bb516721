"""Decoding in fixed shapes gives the tokens that batches give, in few shapes. On the CPU, so without CUDA graphs."""

import gc
import weakref

import pytest
import torch

import nex_merge.generation
from nex_merge.generation import buffers, generate
from tests.generation.test_drafts import corrupted
from tests.generation.test_generation import GREEDY, PROMPTS, SAMPLED


@pytest.fixture
def in_fixed_shapes(monkeypatch):
    """Decodes so from here on, and returns the shapes of all passes: rows, width, reach."""
    made, run = [], buffers.Buffers._pass

    def counted(self, *shape):
        made.append(shape)
        return run(self, *shape)

    def begin():
        monkeypatch.setattr(buffers.Buffers, "_pass", counted)
        monkeypatch.setattr(nex_merge.generation, "wants_fixed_shapes", buffers.supports_fixed_shapes)
        return made

    return begin


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch_tokens", [1, 100, 200, "auto"])
def test_the_tokens_are_those_of_batches(model, tokenizer, in_fixed_shapes, config, batch_tokens):
    """Alone, with drafts that are mostly right or mostly wrong, and for some of the prompts."""
    expected = generate(model, tokenizer, PROMPTS, config)
    in_fixed_shapes()
    config = config.model_copy(update={"batch_tokens": batch_tokens})
    assert generate(model, tokenizer, PROMPTS, config) == expected
    for every in (2, 8, 10_000):
        assert generate(model, tokenizer, PROMPTS, config, references=corrupted(expected, every)) == expected
    some = generate(model, tokenizer, PROMPTS, config, only=[4, 1])
    assert some == [response for response in expected if response.prompt in (1, 4)]


def test_a_shared_prefix(model, tokenizer, in_fixed_shapes):
    prompts = [[1, *range(20, 60), *prompt[1:]] for prompt in PROMPTS]
    expected = generate(model, tokenizer, prompts, SAMPLED)
    in_fixed_shapes()
    assert generate(model, tokenizer, prompts, SAMPLED) == expected


def test_shapes_are_few_and_shrink_with_what_is_left(model, tokenizer, in_fixed_shapes, monkeypatch):
    expected = generate(model, tokenizer, PROMPTS, GREEDY)
    assert len({len(response.token_ids) for response in expected}) > 2, "otherwise the test shows nothing"
    monkeypatch.setattr(buffers, "LENGTH_STEP", 16)
    made = in_fixed_shapes()
    assert generate(model, tokenizer, PROMPTS, GREEDY, references=corrupted(expected, 8)) == expected
    rows, widths, reaches = (sorted(set(sizes)) for sizes in zip(*made, strict=True))
    assert set(rows) <= {1, 2, 3, 6} and len(rows) > 1
    assert set(widths) <= set(buffers.WIDTHS) and len(widths) > 1
    assert reaches == [reach for reach in (16, 32, 48, 64) if reach <= reaches[-1]]


def test_buffers_are_laid_out_once_for_a_model_and_go_with_it(tokenizer, toy, in_fixed_shapes):
    from transformers import AutoModelForCausalLM

    in_fixed_shapes()
    own = AutoModelForCausalLM.from_pretrained(toy["a"]).eval()
    generate(own, tokenizer, PROMPTS, GREEDY)
    first = buffers._held[own]
    generate(own, tokenizer, PROMPTS[:3], GREEDY)
    assert buffers._held[own] is first
    generate(own, tokenizer, PROMPTS, GREEDY.model_copy(update={"max_new_tokens": 50}))
    assert buffers._held[own] is not first
    gone = weakref.ref(buffers._held[own])
    del own, first
    gc.collect()
    assert gone() is None


def test_out_of_memory_halves_the_rows(model, tokenizer, in_fixed_shapes, monkeypatch):
    expected = generate(model, tokenizer, PROMPTS, GREEDY)
    made = in_fixed_shapes()
    run = buffers.Buffers._pass

    def small(self, rows, *shape):
        if rows > 2:
            raise torch.OutOfMemoryError("too large")
        return run(self, rows, *shape)

    monkeypatch.setattr(buffers.Buffers, "_pass", small)
    assert generate(model, tokenizer, PROMPTS, GREEDY) == expected
    assert max(rows for rows, *_ in made) <= 2


class Replayed:
    """What a recorded pass does: reads what stands in the buffers' inputs, and writes their logits."""

    def __init__(self, buffers, *shape):
        self._buffers, self._shape = buffers, shape

    def replay(self):
        found = self._buffers._pass(*self._shape)
        rows, width, _ = self._shape
        held = self._buffers._logits
        if width not in held:
            held[width] = found.new_empty(self._buffers.rows, *found.shape[1:])
        held[width][:rows].copy_(found)


@pytest.mark.parametrize("can_record", [True, False])
def test_recorded_passes_are_replayed_and_others_run(model, tokenizer, in_fixed_shapes, monkeypatch, can_record):
    expected = generate(model, tokenizer, PROMPTS, SAMPLED)
    made = in_fixed_shapes()
    init, recorded = buffers.Buffers.__init__, []

    def recording(self, *arguments):
        init(self, *arguments)
        self.records = True

    def record(self, *shape):
        recorded.append(shape)
        return Replayed(self, *shape) if can_record else None

    monkeypatch.setattr(buffers, "_held", {})
    monkeypatch.setattr(buffers.Buffers, "__init__", recording)
    monkeypatch.setattr(buffers.Buffers, "_recorded", record)
    for _ in range(2):
        assert generate(model, tokenizer, PROMPTS, SAMPLED, references=corrupted(expected, 8)) == expected
    assert len(recorded) == len(set(recorded)) == len(set(made)) < len(made)


def test_attention_is_transformers_again_afterwards(model, tokenizer, in_fixed_shapes):
    in_fixed_shapes()
    generate(model, tokenizer, PROMPTS[:2], GREEDY)
    assert model.config._attn_implementation == "sdpa"


def test_other_models_are_decoded_in_batches(model, sliding, monkeypatch):
    assert buffers.supports_fixed_shapes(model) and not buffers.wants_fixed_shapes(model), "on the CPU"
    assert not buffers.supports_fixed_shapes(sliding)
    monkeypatch.setattr(model.config, "attn_logit_softcapping", 50.0, raising=False)
    assert not buffers.supports_fixed_shapes(model)
