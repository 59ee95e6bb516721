"""Rotary frequencies that depend on the length: a response is what transformers gives it for its prompt alone."""

import dataclasses
from collections import Counter

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from nex_merge.errors import InputError
from nex_merge.generation import batches, generate
from nex_merge.generation.rotary import boundaries, check_sides
from nex_merge.records import Prompt
from nex_merge.setup.config import GenerationConfig

LONG, NEW = 64, 24
ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "factor": 10.0, "original_max_position_embeddings": LONG,
    "short_factor": [1.0] * 4, "long_factor": [2.0, 6.0, 10.0, 14.0],
}  # fmt: skip
SIZE = {
    "vocab_size": 190, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None,
}  # fmt: skip
# Both sides of the boundary, with a common beginning that is shorter than it, and lengths right at it.
HEAD = [1, *range(20, 50)]
PROMPTS = [[1, 20, 30], [*HEAD, *range(60, 100)], HEAD, [*HEAD, *range(70, 90), *range(30, 70)], [1, 50, 60],
           [*range(10, LONG + 11)], [*range(90, 90 + LONG - NEW)]]  # fmt: skip


@pytest.fixture(scope="module")
def longrope():
    torch.manual_seed(0)
    more = {"original_max_position_embeddings": LONG, "max_position_embeddings": 640}
    return Phi3ForCausalLM(Phi3Config(**SIZE, **more, rope_parameters=ROPE)).eval()


def alone(model, ids):
    prompt = torch.tensor([list(ids)])
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False)
    return made[0, len(ids) :].tolist()


@pytest.mark.parametrize("drafted", [False, True], ids=["plain", "drafted"])
@pytest.mark.parametrize("batch_tokens", ["auto", 250])
def test_every_response_is_what_transformers_gives_alone(longrope, tokenizer, monkeypatch, batch_tokens, drafted):
    monkeypatch.setattr(batches, "PASS_TOKENS", 4)  # prefixes are shared, drafts long
    config = GenerationConfig(max_new_tokens=NEW, batch_tokens=batch_tokens)
    wanted = [alone(longrope, ids) for ids in PROMPTS]
    found = generate(longrope, tokenizer, PROMPTS, config)
    if drafted:
        odd = [dataclasses.replace(one, token_ids=(*one.token_ids[:9], 3, *one.token_ids[10:])) for one in found]
        found = generate(longrope, tokenizer, PROMPTS, config, references=odd)
    assert [(one.prompt, list(one.token_ids)) for one in found] == list(enumerate(wanted))


def batched_beside_alone(model, monkeypatch, longest):
    """Responses of one that ends at the boundary and others that join later, with drafts; and what they are alone."""
    monkeypatch.setattr(batches, "PASS_TOKENS", 640)  # long drafts pay off
    prompts = [[*range(90, 90 + LONG - NEW)], *([1, 20 + i, 30 + 3 * i] for i in range(40))]
    config = GenerationConfig(max_new_tokens=NEW, batch_tokens=10 * LONG)
    whole = generate(model, NoEnd(), prompts, config)
    often = Counter(token for one in whole[1:] for token in set(one.token_ids[:14]))
    end = next(token for token, _ in often.most_common() if token not in whole[0].token_ids)
    monkeypatch.setattr(model.generation_config, "eos_token_id", [end])
    rotary, forward = type(model.model.rotary_emb), type(model.model.rotary_emb).forward

    def seen(self, x, position_ids):
        longest.append(int(position_ids.max()))
        return forward(self, x, position_ids)

    with monkeypatch.context() as patch:
        patch.setattr(rotary, "forward", seen)
        found = generate(model, NoEnd(), prompts, config, references=[one for one in whole[1:] if one.prompt % 3 == 0])
    return [one.token_ids for one in found], [tuple(alone(model, ids)) for ids in prompts]


class NoEnd:
    eos_token_id = None

    def decode(self, tokens, **kwargs):
        return ""


def test_finished_rows_and_padding_change_no_frequencies(longrope, monkeypatch):
    longest = []
    found, wanted = batched_beside_alone(longrope, monkeypatch, longest)
    assert found == wanted and max(longest) == LONG - 1


def test_dynamic_frequencies_stay_as_they_are_within_the_context(monkeypatch):
    torch.manual_seed(1)
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = LlamaForCausalLM(LlamaConfig(**SIZE, max_position_embeddings=LONG, rope_parameters=rope)).eval()
    longest = []
    found, wanted = batched_beside_alone(model, monkeypatch, longest)
    assert found == wanted and max(longest) == LONG - 1
    assert torch.equal(model.model.rotary_emb.inv_freq, model.model.rotary_emb.original_inv_freq)


def test_a_boundary_crossed_within_a_response_is_refused_by_its_name(longrope, tokenizer):
    crossing = [[1, 2, 3], [*range(50)]]
    message = (
        r"^generation\.max_new_tokens: 24: the response to prompt 2 of 50 tokens could cross token 64, beyond which "
        r"this model has other rotary frequencies \(.+original_max_position_embeddings in config\.json\).+Lower it to "
        r"at most 14, or remove prompts of up to 64 tokens$"
    )
    with pytest.raises(InputError, match=message):
        generate(longrope, tokenizer, crossing, GenerationConfig(max_new_tokens=NEW))
    prompts = [Prompt((), "a"), Prompt((), "b", where="p.jsonl line 2")]
    with pytest.raises(InputError, match=r"prompt 2 \(p\.jsonl line 2\) of 50 tokens"):
        check_sides(longrope.config, crossing, NEW, prompts)
    check_sides(longrope.config, crossing, 14)
    with pytest.raises(InputError, match=r" Remove prompts of up to 64 tokens$"):
        check_sides(longrope.config, [[0] * 64], 1)


def test_which_models_have_boundaries():
    plain = {"rope_type": "default", "rope_theta": 1e4}
    assert boundaries(LlamaConfig(**SIZE, rope_parameters=plain)) == []
    for kind in ("linear", "yarn", "llama3"):
        rope = {**plain, "rope_type": kind, "factor": 2.0, "original_max_position_embeddings": 64,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0}  # fmt: skip
        assert boundaries(LlamaConfig(**SIZE, rope_parameters=rope)) == []
    dynamic = {**plain, "rope_type": "dynamic", "factor": 2.0}
    assert boundaries(LlamaConfig(**SIZE, max_position_embeddings=512, rope_parameters=dynamic)) == [512]
    by_layer = {"sliding_attention": plain, "full_attention": {**ROPE, "original_max_position_embeddings": 32}}
    config = Gemma3TextConfig(**SIZE, head_dim=8, max_position_embeddings=512, rope_parameters=by_layer)
    assert boundaries(config) == [32]


def test_frequencies_by_layer_type(tokenizer):
    torch.manual_seed(0)
    plain = {"rope_type": "default", "rope_theta": 1e4}
    rope = {"sliding_attention": plain, "full_attention": ROPE}
    config = Gemma3TextConfig(**SIZE, head_dim=8, max_position_embeddings=640, rope_parameters=rope,
                              layer_types=["sliding_attention", "full_attention"])  # fmt: skip
    model = Gemma3ForCausalLM(config).eval()
    found = generate(model, tokenizer, PROMPTS, GenerationConfig(max_new_tokens=NEW))
    assert [list(one.token_ids) for one in found] == [alone(model, ids) for ids in PROMPTS]
