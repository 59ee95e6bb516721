"""Captured rows against a dense reference; other architectures; the statistics of the same pass."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from nex_merge.activations.capture import capture, capture_all, check_capacity, gated_mlps, pack_all
from nex_merge.errors import InputError
from nex_merge.records import Response
from nex_merge.setup.config import ActivationsConfig

RESPONSES = [
    Response(0, 0, (1, 20, 30), tuple(range(40, 51)), "", True),
    Response(1, 0, (1, 5), (60, 61, 62, 60, 61), "", False),
]


@pytest.fixture(scope="module")
def model(toy):
    return AutoModelForCausalLM.from_pretrained(toy["b"], dtype=torch.float32).eval()


@torch.no_grad()
def dense_scores(model, response, score):
    """Scores [tokens, layers, units], straight from the definition, from all layers' inputs."""
    kept = []
    handles = [
        projection.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0][0]))
        for projection in gated_mlps(model)
    ]
    ids = torch.tensor([[*response.prompt_ids, *response.token_ids]])
    model(input_ids=ids)
    for handle in handles:
        handle.remove()
    first, n = len(response.prompt_ids) - 1, len(response.token_ids)
    layers = []
    for projection, a in zip(gated_mlps(model), kept, strict=True):
        a = a[first : first + n]
        if score == "logit_contribution":
            effect = torch.stack([model.lm_head.weight[y] @ projection.weight for y in response.token_ids])
            a = a * effect
        layers.append(a.abs() if score == "magnitude" else a)
    return torch.stack(layers, 1).numpy()


@pytest.mark.parametrize("score", ["logit_contribution", "activation", "magnitude"])
@pytest.mark.parametrize("top_k", [5, 10_000])
def test_rows_are_the_top_scores_summed_by_neuron(model, score, top_k):
    config = ActivationsConfig(score=score, slice_tokens=4, top_k=top_k)
    cache, _ = capture(model, RESPONSES, config)
    assert cache.sample_row_ptr.tolist() == [0, 3, 5]
    assert cache.token_row_ptr.tolist() == [0, 4, 8, 11, 15, 16]
    row = 0
    for response in RESPONSES:
        dense = dense_scores(model, response, score)
        for start in range(0, len(dense), 4):
            block = dense[start : start + 4]
            order = np.argsort(-block, axis=None)[:top_k]
            expected = {}
            for at in order:
                token, layer, unit = np.unravel_index(at, block.shape)
                if block[token, layer, unit] > 0:
                    key = int(layer) << 16 | int(unit)
                    expected[key] = expected.get(key, 0.0) + float(block[token, layer, unit])
            keys, masses = cache.rows.group(row)
            assert keys.tolist() == sorted(expected)
            np.testing.assert_allclose(masses, [expected[key] for key in sorted(expected)], rtol=1e-3, atol=1e-6)
            row += 1


def test_base_is_the_sum_of_the_rows(model):
    cache, _ = capture(model, RESPONSES, ActivationsConfig(slice_tokens=4, top_k=20))
    for i in range(2):
        expected = {}
        for row in range(cache.sample_row_ptr[i], cache.sample_row_ptr[i + 1]):
            for key, mass in zip(*cache.rows.group(row), strict=True):
                expected[int(key)] = expected.get(int(key), 0.0) + float(mass)
        keys, masses = cache.base.group(i)
        assert keys.tolist() == sorted(expected)
        np.testing.assert_allclose(masses, [expected[int(key)] for key in keys], rtol=1e-3)


def test_a_response_does_not_depend_on_its_neighbours(model):
    config = ActivationsConfig(slice_tokens=4, top_k=20)
    together, _ = capture(model, RESPONSES, config)
    alone, _ = capture(model, RESPONSES[1:], config)
    assert together.base.group(1)[0].tolist() == alone.base.group(0)[0].tolist()
    assert together.base.group(1)[1].tolist() == alone.base.group(0)[1].tolist()


@pytest.mark.parametrize("score", ["logit_contribution", "magnitude"])
def test_a_pack_gives_what_each_response_gives_alone(model, monkeypatch, score):
    """As on accelerators: some responses are padded, some end within a row."""
    long, short = RESPONSES
    responses = [short, long, dataclasses.replace(long, token_ids=long.token_ids[:-3]), short]
    config = ActivationsConfig(slice_tokens=4, top_k=20, score=score)
    alone, stats = capture(model, responses, config)
    forward, shapes, done = type(model.model).forward, [], []

    def counted(self, *args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", counted)
    for name in ("_are_alone", "_side_by_side"):
        monkeypatch.setattr(f"nex_merge.activations.capture.{name}", lambda *_: False)
    packed, found = capture(model, responses, config, done.append)
    assert shapes == [(2, 14), (2, 7)] and done == [2, 4]
    for before, after in ((alone.rows, packed.rows), (alone.base, packed.base)):
        assert before.ptr.tolist() == after.ptr.tolist() and before.keys.tolist() == after.keys.tolist()
        np.testing.assert_allclose(after.masses.astype(float), before.masses.astype(float), rtol=2e-3)
    for one, other in zip(stats, found, strict=True):
        np.testing.assert_allclose(dataclasses.astuple(other), dataclasses.astuple(one), rtol=1e-5, atol=1e-6)


def test_packs_hold_responses_of_like_lengths():
    def response(tokens):
        return dataclasses.replace(RESPONSES[0], prompt_ids=(1,), token_ids=(2,) * (tokens - 1))

    assert pack_all([response(n) for n in (40, 100, 31, 90, 76, 75)], 3) == [[1, 3, 4], [5], [0, 2]]
    assert pack_all([response(n) for n in (40, 100)], 1) == [[1], [0]]


@pytest.mark.parametrize("sharpness", [1, 200])
def test_token_statistics_are_those_of_float64(model, sharpness):
    # The vocabulary is larger than a layer, so it is processed in blocks.
    assert model.lm_head.out_features > 2 * gated_mlps(model)[0].in_features
    model, exact = (copy.deepcopy(model) for _ in range(2))
    for each in (model, exact.double()):
        each.lm_head.weight = torch.nn.Parameter(each.lm_head.weight * sharpness)
    _, stats = capture(model, RESPONSES, ActivationsConfig())
    for response, found in zip(RESPONSES, stats, strict=True):
        ids = torch.tensor([[*response.prompt_ids, *response.token_ids]])
        with torch.inference_mode():
            log_p = exact(input_ids=ids).logits[0, len(response.prompt_ids) - 1 : -1].log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        emitted = log_p[torch.arange(len(log_p)), torch.tensor(response.token_ids)]
        certainty = -log_p.mean(-1) - math.log(log_p.shape[-1])
        assert found.entropy == pytest.approx(entropy.mean().item(), abs=2e-6 * sharpness)
        assert found.entropy_spread == pytest.approx(entropy.std(correction=0).item(), abs=2e-6 * sharpness)
        assert found.self_certainty == pytest.approx(certainty.mean().item(), abs=2e-6 * sharpness)
        assert found.logprob == pytest.approx(emitted.mean().item(), abs=2e-6 * sharpness)


def test_hooks_are_gone_afterwards(model):
    capture(model, RESPONSES, ActivationsConfig())
    assert not any(projection._forward_pre_hooks for projection in gated_mlps(model))


def test_hooks_are_gone_after_an_error(model):
    with pytest.raises(IndexError):
        capture(model, [RESPONSES[0], dataclasses.replace(RESPONSES[1], token_ids=(10**6,))], ActivationsConfig())
    assert not any(projection._forward_pre_hooks for projection in gated_mlps(model))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_frequencies_that_depend_on_the_length_are_not_shared(kind, monkeypatch):
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 2.0}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 8}
    config = LlamaConfig(
        vocab_size=70, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=16, rope_parameters=rope,
    )  # fmt: skip
    monkeypatch.setattr("nex_merge.activations.capture.on_cores", lambda *_: pytest.fail("ran concurrently"))
    cache, _ = capture(LlamaForCausalLM(config).eval(), RESPONSES, ActivationsConfig())
    assert cache.responses == 2


def test_long_responses_wait_for_memory(model, monkeypatch):
    expected, _ = capture(model, RESPONSES * 4, ActivationsConfig())
    under_way, most = [], []
    forward = type(model.model).forward

    def counted(self, *args, **kwargs):
        under_way.append(1)
        most.append(len(under_way))
        try:
            return forward(self, *args, **kwargs)
        finally:
            under_way.pop()

    monkeypatch.setattr(type(model.model), "forward", counted)
    monkeypatch.setattr("nex_merge.activations.capture.IN_FLIGHT_BYTES", 1)
    found, _ = capture(model, RESPONSES * 4, ActivationsConfig())
    assert max(most) == 1 and found.rows.masses.tolist() == expected.rows.masses.tolist()


def test_more_than_64_layers():
    config = Qwen3Config(
        vocab_size=70, hidden_size=8, intermediate_size=4, num_hidden_layers=70, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    cache, _ = capture(Qwen3ForCausalLM(config).eval(), RESPONSES, ActivationsConfig(score="magnitude", top_k=10_000))
    assert set((cache.rows.keys >> 16).tolist()) == set(range(70))


@pytest.mark.parametrize(
    ("layers", "units", "message"),
    [
        (256, 4, "at most 255 layers of 65,536 MLP units, got 256 layers of 4"),
        (1, 65_537, "at most 255 layers of 65,536 MLP units, got 1 layer of 65,537"),
    ],
)
def test_models_with_more_neurons_than_keys_are_rejected(layers, units, message):
    """A key is layer << 16 | unit: unit 65,536 of layer 0 would become unit 0 of layer 1; layer 255 is reserved."""
    config = Qwen3Config(
        vocab_size=70, hidden_size=8, intermediate_size=units, num_hidden_layers=layers, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8,
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        capture(Qwen3ForCausalLM(config).eval(), RESPONSES, ActivationsConfig())
    with pytest.raises(InputError, match=message):
        check_capacity(layers, units)
    check_capacity(min(layers, 255), min(units, 65_536))


def test_llama_works_and_gpt2_is_rejected():
    llama = LlamaForCausalLM(
        LlamaConfig(vocab_size=70, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=1)
    ).eval()
    cache, _ = capture(llama, RESPONSES, ActivationsConfig())
    assert cache.responses == 2 and len(cache.rows.keys) > 0
    with pytest.raises(InputError, match=r"expected gated MLPs at .+, got GPT2LMHeadModel, which has none"):
        gated_mlps(GPT2LMHeadModel(GPT2Config(vocab_size=70, n_embd=8, n_layer=1, n_head=1)))


@pytest.mark.parametrize("sharpness", [1, 1e4])
def test_masses_beyond_float16_are_counted_and_reported_once(model, caplog, sharpness):
    model = copy.deepcopy(model)
    model.requires_grad_(False).model.layers[1].mlp.up_proj.weight *= sharpness
    config = ActivationsConfig(score="magnitude", slice_tokens=4, top_k=20)
    cache, _ = capture(model, RESPONSES, config)
    masses = np.concatenate([cache.rows.masses, cache.base.masses])
    assert np.isfinite(masses).all()
    clipped = int((cache.rows.masses == 65_504).sum())
    for i in range(2):
        rows = [cache.rows.group(row) for row in range(cache.sample_row_ptr[i], cache.sample_row_ptr[i + 1])]
        keys, values = (np.concatenate([row[part] for row in rows]) for part in (0, 1))
        clipped += sum(values[keys == key].sum() > 65_504 for key in np.unique(keys))
    assert (clipped > 0) == (sharpness > 1) == bool(caplog.records)
    if clipped:
        (record,) = caplog.records
        assert record.name.startswith("nex_merge.") and record.levelname == "WARNING"
        assert f"{clipped} of {len(masses)} activation masses ({clipped / len(masses):.2%})" in record.getMessage()


def test_one_pass_for_many_configurations_gives_what_each_alone_gives(model):
    configs = [
        ActivationsConfig(score=score, slice_tokens=width, top_k=k)
        for score in ("logit_contribution", "magnitude")
        for width, k in ((2, 3), (2, 8), (5, 4))
    ]
    caches, _ = capture_all(model, RESPONSES, configs)
    for config, cache in zip(configs, caches, strict=True):
        alone, _ = capture(model, RESPONSES, config)
        assert np.array_equal(cache.rows.keys, alone.rows.keys) and np.array_equal(cache.rows.ptr, alone.rows.ptr)
        assert np.array_equal(cache.rows.masses, alone.rows.masses)
        assert np.array_equal(cache.token_row_ptr, alone.token_row_ptr)
