"""Drafts from other models' responses: they change the number of forward passes, and no token."""

import dataclasses
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from nex_merge.generation import batches, generate
from nex_merge.generation.drafts import CONTEXT, Draft
from nex_merge.setup.config import GenerationConfig

PROMPTS = [[1, 20, 30], [1, 40], [1, 50, 60, 70, 80], [1, 11, 12, 13], [1, 90], [1, 25, 35, 45]]
GREEDY = GenerationConfig(max_new_tokens=60)
SAMPLED = GenerationConfig(max_new_tokens=60, temperature=0.8, top_p=0.9, top_k=20, samples=2, seed=3)


@pytest.fixture
def passes(model, monkeypatch):
    forward, made = type(model).forward, []

    def counted(self, input_ids=None, **kwargs):
        made.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    return made


def corrupted(responses, every):
    """The responses with about one in `every` tokens replaced."""
    rng = random.Random(0)
    return [
        dataclasses.replace(r, token_ids=tuple(3 if rng.random() < 1 / every else t for t in r.token_ids))
        for r in responses
    ]


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch_tokens", [1, 150, "auto"])
@pytest.mark.parametrize("every", [2, 8, 10_000])
def test_drafts_change_no_token(model, tokenizer, passes, config, batch_tokens, every):
    config = config.model_copy(update={"batch_tokens": batch_tokens})
    alone = generate(model, tokenizer, PROMPTS, config)
    without = len(passes)
    passes.clear()
    assert generate(model, tokenizer, PROMPTS, config, references=corrupted(alone, every)) == alone
    if every > 2:
        assert len(passes) < without


@pytest.mark.parametrize("batch_tokens", [300, "auto"])
def test_drafts_after_a_shared_prefix(model, tokenizer, passes, batch_tokens):
    prompts = [[1, *range(20, 60), *prompt[1:]] for prompt in PROMPTS]
    config = SAMPLED.model_copy(update={"batch_tokens": batch_tokens})
    alone = generate(model, tokenizer, prompts, config)
    without = len(passes)
    passes.clear()
    assert generate(model, tokenizer, prompts, config, references=corrupted(alone, 8)) == alone
    assert len(passes) < without


def test_half_precision_gives_the_same_twice(toy, tokenizer):
    model = AutoModelForCausalLM.from_pretrained(toy["a"], dtype=torch.bfloat16).eval()
    alone = generate(model, tokenizer, PROMPTS, SAMPLED)
    first, again = (generate(model, tokenizer, PROMPTS, SAMPLED, references=corrupted(alone, 8)) for _ in range(2))
    assert first == again


def test_a_draft_goes_no_further_than_a_response_may(model, tokenizer):
    alone = generate(model, tokenizer, PROMPTS, GREEDY)
    short = GREEDY.model_copy(update={"max_new_tokens": 13})
    found = generate(model, tokenizer, PROMPTS, short, references=alone)
    assert found == generate(model, tokenizer, PROMPTS, short)
    assert max(len(r.token_ids) for r in found) == 13


def test_many_logits_leave_room_for_short_drafts_only(model, tokenizer, passes, monkeypatch):
    alone = generate(model, tokenizer, PROMPTS, GREEDY)
    monkeypatch.setattr(batches, "LOGITS", len(PROMPTS) * 3 * model.config.vocab_size)
    passes.clear()
    assert generate(model, tokenizer, PROMPTS, GREEDY, references=alone) == alone
    assert (len(PROMPTS), 3) in passes and all(rows * columns <= len(PROMPTS) * 5 for rows, columns in passes)


def test_out_of_memory_in_the_middle(model, tokenizer, monkeypatch):
    expected = generate(model, tokenizer, PROMPTS, SAMPLED)
    forward, calls = type(model).forward, []

    def failing(self, input_ids=None, **kwargs):
        calls.append(len(input_ids))
        if len(calls) in (4, 9):
            raise torch.OutOfMemoryError("too large")
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "forward", failing)
    assert generate(model, tokenizer, PROMPTS, SAMPLED, references=corrupted(expected, 8)) == expected
    assert len(calls) > 9


def test_layers_without_masked_gaps_get_no_drafts(sliding, tokenizer):
    assert not batches.supports_masked_gaps(sliding)
    alone = generate(sliding, tokenizer, PROMPTS, GREEDY)
    assert generate(sliding, tokenizer, PROMPTS, GREEDY, references=corrupted(alone, 8)) == alone


def test_a_draft_continues_from_the_same_context_to_the_end_of_its_text():
    response = [10, 11, 12, 13]
    draft = Draft([7, 3, 4], [[10, 11, 12, 13, 20, 21], [30, 31]])
    assert CONTEXT == 2
    assert draft.propose([], 9) == [30, 31]  # the later reference wins
    assert draft.propose(response[:2], 9) == [12, 13, 20, 21]  # after 10 11
    assert draft.propose(response, 1) == [20] and draft.propose(response, 0) == [] and draft.propose(response, -1) == []
    assert draft.propose([*response, 99], 9) == []


def test_a_draft_follows_its_text_if_the_context_occurs_twice():
    reference = [1, 2, 5, 1, 2, 6]
    draft = Draft([9, 9], [reference])
    assert draft.propose([], 2) == [1, 2]
    assert draft.propose(reference[:2], 2) == [5, 1]  # the later 1 2 goes on with 6
    assert Draft([1, 2], [[5, 1, 2, 6]]).propose([], 2) == [6]


def test_a_response_is_a_source_of_its_own_drafts():
    draft = Draft([1], [[50, 51]])
    response = [5, 6, 7, 8, 5, 6]
    assert [draft.propose(response[:n], 2) for n in range(1, 7)] == [*[[]] * 5, [7, 8]]


def test_drafts_are_cut_to_the_length_with_most_tokens_per_cost():
    assert batches.best_draft_length([(0, 1.0)] * 3) == 0
    assert batches.best_draft_length([(15, 1.0)] * 64) == 15 == batches.best_draft_length([(15, 1.0)])
    # Sixty-three rows would be padded to one row's draft.
    assert batches.best_draft_length([(15, 1.0), *[(0, 1.0)] * 63]) == 0
    assert batches.best_draft_length([(15, 0.0)] * 64) == 0
    assert 0 < batches.best_draft_length([(15, 0.5)] * 4) < 15


def test_a_draft_measures_its_acceptance():
    draft = Draft([1, 2], [[3, 4, 5, 6, 7]])
    initial = draft.acceptance
    assert draft.propose([], 9) == [3, 4, 5, 6, 7]
    draft.propose([3, 4, 5], 9)  # three accepted
    assert draft.acceptance > initial
    draft.propose([3, 4, 5, 6, 99], 9)  # one accepted, one rejected
    assert draft.acceptance < (initial * 5 + 4) / 9
