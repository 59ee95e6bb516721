"""Neurons from one model to another: rows of gate_proj and up_proj, columns of down_proj, layer by layer.

A neuron (layer, unit) of the donor takes the place of the same (layer, unit) of the recipient. The bias of down_proj
belongs to no neuron and stays.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from nex_merge.activations.capture import gated_mlps
from nex_merge.errors import InputError

# Where a neuron is in the tensors of its MLP: name -> axis.
_PARTS = {"gate_proj.weight": 0, "gate_proj.bias": 0, "up_proj.weight": 0, "up_proj.bias": 0, "down_proj.weight": 1}


class Slice(NamedTuple):
    """Indices along one axis of a tensor."""

    axis: int
    units: torch.Tensor  # int64 [k], ascending


def neuron_slices(keys: np.ndarray) -> dict[str, Slice]:
    """What neurons, uint32 [K], are of every tensor, by its name; biases are named whether a model has them or not."""
    found = {}
    for layer in np.unique(keys >> 16).tolist():
        units = torch.from_numpy(np.sort(keys[keys >> 16 == layer] & 0xFFFF).astype(np.int64))
        for part, axis in _PARTS.items():
            found[f"model.layers.{layer}.mlp.{part}"] = Slice(axis, units)
    return found


@torch.no_grad()
def copy_neurons(
    donor: Mapping[str, torch.Tensor], recipient: Mapping[str, torch.Tensor], keys: np.ndarray
) -> dict[str, torch.Tensor]:
    """Overwrite the recipient's neurons with the donor's, in place; what was there before, by tensor.

    Both map names to tensors of the same shapes; those that either lacks are passed over.
    """
    before = {}
    for name, (axis, units) in neuron_slices(keys).items():
        if name in recipient and name in donor:
            target = recipient[name]
            at = units.to(target.device)
            before[name] = target.index_select(axis, at)
            theirs = donor[name].index_select(axis, units.to(donor[name].device))
            target.index_copy_(axis, at, theirs.to(target.device, target.dtype))
    return before


@contextmanager
def transplanted(donor: PreTrainedModel, recipient: PreTrainedModel, keys: np.ndarray) -> Iterator[None]:
    """The recipient with the donor's neurons; it is as before once the context ends."""
    tensors = dict(recipient.named_parameters())
    before = copy_neurons(dict(donor.named_parameters()), tensors, keys)
    try:
        yield
    finally:
        slices = neuron_slices(keys)
        with torch.no_grad():
            for name, values in before.items():
                axis, units = slices[name]
                tensors[name].index_copy_(axis, units.to(values.device), values)


@torch.no_grad()
def neuron_norms(model: PreTrainedModel) -> list[np.ndarray]:
    """The norm of every neuron's weights (gate row, up row and down column, end to end), float64 [U] a layer."""
    tensors = dict(model.named_parameters())
    return _norms(lambda name: tensors[name], len(gated_mlps(model)))


@torch.no_grad()
def neuron_distances(donor: PreTrainedModel, recipient: PreTrainedModel) -> list[np.ndarray]:
    """The norm of the difference between every neuron of two models, float64 [U] a layer."""
    ours, theirs = dict(recipient.named_parameters()), dict(donor.named_parameters())
    return _norms(lambda name: theirs[name] - ours[name], len(gated_mlps(recipient)))


def _norms(tensor: Callable[[str], torch.Tensor], layers: int) -> list[np.ndarray]:
    found = []
    for layer in range(layers):
        squares = [
            tensor(f"model.layers.{layer}.mlp.{part}").double().square().sum(1 - axis)
            for part, axis in _PARTS.items()
            if part.endswith("weight")
        ]
        found.append(torch.stack(squares).sum(0).sqrt().cpu().numpy())
    return found


def share_of_way(distances: Sequence[np.ndarray], keys: np.ndarray) -> float:
    """How far copying `keys` moves the recipient: the norm of the change, over that of copying all neurons.

    Between 0 and 1; 0 where the two models have the same MLPs. `distances` as neuron_distances has them.
    """
    total = sum(float(np.square(layer).sum()) for layer in distances)
    chosen = sum(float(distances[key >> 16][key & 0xFFFF]) ** 2 for key in keys.tolist())
    return float(np.sqrt(chosen / total)) if total > 0 else 0.0


def check_pair(donor: PreTrainedModel, recipient: PreTrainedModel) -> None:
    """Refuse, with InputError, two models between which neurons can't be copied."""
    for model, option in ((donor, "--from"), (recipient, "--into")):
        for layer in range(len(gated_mlps(model))):
            mlp = model.model.layers[layer].mlp
            for part in ("gate_proj", "up_proj"):
                if not isinstance(getattr(mlp, part, None), nn.Linear):
                    raise InputError(
                        f"{option}: {type(model).__name__} has no {part} of its own in its MLPs, whose rows are the "
                        "neurons; Qwen, Llama, Mistral and Gemma checkpoints have it"
                    )
    advice = "a recipient of the donor's architecture, best of its family, would do"
    for key in ("model_type", "hidden_act", "hidden_activation"):
        ours, theirs = getattr(recipient.config, key, None), getattr(donor.config, key, None)
        if ours != theirs:
            raise InputError(f"--into: its {key} is {ours!r}, the donor's {theirs!r}; {advice}")
    if donor.dtype != recipient.dtype:
        raise InputError(
            f"--into: computes in {recipient.dtype}, the donor in {donor.dtype}, so that copies would be rounded; "
            "--set runtime.dtype=float32 would do"
        )
    shapes, others = (
        {name: tuple(tensor.shape) for name, tensor in model.named_parameters()} for model in (recipient, donor)
    )
    for name in [*shapes, *others]:
        if shapes.get(name) != others.get(name):
            raise InputError(
                f"--into: {name} is {shapes.get(name) or 'not there'}, the donor's {others.get(name) or 'not there'}; "
                f"{advice}"
            )
