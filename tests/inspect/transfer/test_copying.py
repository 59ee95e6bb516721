"""Copying neurons between models in memory."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from nex_merge.errors import InputError
from nex_merge.inspect.transfer.copying import (
    check_pair,
    copy_neurons,
    neuron_distances,
    neuron_norms,
    relative_change,
    transplanted,
)

KEYS = np.array([0 << 16 | 3, 1 << 16 | 0, 1 << 16 | 31], np.uint32)
CHOSEN = {0: [3], 1: [0, 31]}
EVERY = np.array([layer << 16 | unit for layer in range(2) for unit in range(32)], np.uint32)


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def pair(toy):
    return load(toy["a"]), load(toy["b"])


def state(model):
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def test_exactly_the_chosen_rows_and_columns_are_copied_and_restored(pair):
    donor, recipient = pair
    before, theirs = state(recipient), state(donor)
    with transplanted(donor, recipient, KEYS):
        inside = state(recipient)
    for name, tensor in before.items():
        expected = tensor.clone()
        for layer, units in CHOSEN.items():
            for unit in units:
                if name.endswith((f"layers.{layer}.mlp.gate_proj.weight", f"layers.{layer}.mlp.up_proj.weight")):
                    expected[unit, :] = theirs[name][unit, :]
                if name.endswith(f"layers.{layer}.mlp.down_proj.weight"):
                    expected[:, unit] = theirs[name][:, unit]
        assert torch.equal(inside[name], expected), name
        assert torch.equal(recipient.get_parameter(name), tensor), name
    assert all(torch.equal(donor.get_parameter(name), tensor) for name, tensor in theirs.items())
    moved = {name for name in before if not torch.equal(inside[name], before[name])}
    assert len(moved) == 6 and all(".mlp." in name for name in moved)


def test_the_recipient_is_restored_after_an_error(pair):
    donor, recipient = pair
    before = state(recipient)
    with pytest.raises(KeyboardInterrupt), transplanted(donor, recipient, KEYS):
        raise KeyboardInterrupt
    assert all(torch.equal(recipient.get_parameter(name), tensor) for name, tensor in before.items())


def test_copying_all_neurons_gives_the_donors_logits_if_only_the_mlps_differ(pair):
    donor, other = pair
    recipient = copy.deepcopy(donor)
    for name, tensor in other.named_parameters():
        if ".mlp." in name:
            recipient.get_parameter(name).data.copy_(tensor)
    ids = torch.arange(24)[None]
    with torch.inference_mode():
        expected, before = donor(ids).logits, recipient(ids).logits
    with transplanted(donor, recipient, EVERY), torch.inference_mode():
        found = recipient(ids).logits
    assert torch.equal(found, expected) and not torch.allclose(before, expected)
    assert relative_change(neuron_distances(donor, recipient), EVERY) == pytest.approx(1)


def test_biases_of_gate_and_up_are_copied_and_that_of_down_is_kept():
    config = LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=6, num_hidden_layers=1,
                         num_attention_heads=2, mlp_bias=True)  # fmt: skip
    donor, recipient = LlamaForCausalLM(config), LlamaForCausalLM(config)
    for model in (donor, recipient):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
    check_pair(donor, recipient)
    before, theirs = state(recipient), state(donor)
    copy_neurons(theirs, dict(recipient.named_parameters()), np.array([2, 5], np.uint32))
    mlp = "model.layers.0.mlp."
    for part in ("gate_proj.bias", "up_proj.bias"):
        found = recipient.get_parameter(mlp + part)
        assert [torch.equal(found[u], theirs[mlp + part][u]) for u in range(6)] == [u in (2, 5) for u in range(6)]
    assert torch.equal(recipient.get_parameter(mlp + "down_proj.bias"), before[mlp + "down_proj.bias"])


def test_norms_and_relative_change_by_hand(pair):
    donor, recipient = pair
    ours, theirs = state(recipient), state(donor)

    def vector(tensors, layer, unit):
        gate, up, down = (tensors[f"model.layers.{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        return torch.cat([gate[unit], up[unit], down[:, unit]]).double()

    norms = neuron_norms(donor)
    assert [len(layer) for layer in norms] == [32, 32]
    assert norms[1][7] == pytest.approx(float(vector(theirs, 1, 7).norm()))
    gaps = {
        (layer, unit): float((vector(theirs, layer, unit) - vector(ours, layer, unit)).norm() ** 2)
        for layer in range(2)
        for unit in range(32)
    }
    chosen = sum(gaps[layer, unit] for layer, units in CHOSEN.items() for unit in units)
    found = relative_change(neuron_distances(donor, recipient), KEYS)
    assert found == pytest.approx(np.sqrt(chosen / sum(gaps.values())), rel=1e-5)
    assert relative_change(neuron_distances(donor, donor), KEYS) == 0


def test_another_architecture_is_rejected(toy, tmp_path):
    from tests.conftest import make_toy

    donor = load(toy["a"])
    for changes, message in (
        (
            {"intermediate_size": 48},
            r"--into: model.layers.0.mlp.gate_proj.weight: expected the donor's shape \(32, 16\), got \(48, 16\)",
        ),
        (
            {"num_hidden_layers": 1},
            r"--into: model.layers.1.self_attn.q_proj.weight: expected the donor's shape .*, got \(none\)",
        ),
        ({"hidden_act": "gelu"}, "--into: expected the donor's hidden_act 'silu', got 'gelu'"),
    ):
        with pytest.raises(InputError, match=message):
            check_pair(donor, load(make_toy(tmp_path / str(len(message)), 5, **changes)))
    with pytest.raises(InputError, match=r"expected the donor's dtype torch\.float32, got torch\.bfloat16"):
        check_pair(donor, load(toy["b"]).to(torch.bfloat16))
