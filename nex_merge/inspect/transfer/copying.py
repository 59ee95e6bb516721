"""Copy neurons from one model into another: rows of gate_proj and up_proj, columns of down_proj.

Unit u of layer l of the donor replaces unit u of layer l of the recipient. The bias of down_proj belongs to no neuron
and is kept.
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

# The axis along which neurons lie in each tensor of an MLP.
_PARTS = {"gate_proj.weight": 0, "gate_proj.bias": 0, "up_proj.weight": 0, "up_proj.bias": 0, "down_proj.weight": 1}


class Slice(NamedTuple):
    """Indices along one axis of a tensor."""

    axis: int
    units: torch.Tensor  # int64 [k], ascending


def neuron_slices(keys: np.ndarray) -> dict[str, Slice]:
    """tensor name -> slice of the neurons, uint32 [K]; includes biases, which a model may lack."""
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
    """Overwrite the recipient's neurons with the donor's, in place. Returns the previous values by tensor name.

    Both map names to tensors of equal shapes; tensors that either lacks are skipped.
    """
    before = {}
    for name, (axis, units) in neuron_slices(keys).items():
        if name in recipient and name in donor:
            target = recipient[name]
            at = units.to(target.device)
            before[name] = target.index_select(axis, at)
            source = donor[name].index_select(axis, units.to(donor[name].device))
            target.index_copy_(axis, at, source.to(target.device, target.dtype))
    return before


@contextmanager
def transplanted(donor: PreTrainedModel, recipient: PreTrainedModel, keys: np.ndarray) -> Iterator[None]:
    """Copy the donor's neurons into the recipient, and restore it when the context ends."""
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
    """The norm of every neuron's weights (gate row, up row and down column), one float64 [U] per layer."""
    tensors = dict(model.named_parameters())
    return _norms(lambda name: tensors[name], len(gated_mlps(model)))


@torch.no_grad()
def neuron_distances(donor: PreTrainedModel, recipient: PreTrainedModel) -> list[np.ndarray]:
    """The norm of the difference of every neuron's weights between two models, one float64 [U] per layer."""
    target, source = dict(recipient.named_parameters()), dict(donor.named_parameters())
    return _norms(lambda name: source[name] - target[name], len(gated_mlps(recipient)))


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


def relative_change(distances: Sequence[np.ndarray], keys: np.ndarray) -> float:
    """Norm of the change that copying `keys` makes to the recipient, relative to copying all neurons; 0 to 1.

    `distances` are those of `neuron_distances`. 0 if both models have the same MLPs.
    """
    total = sum(float(np.square(layer).sum()) for layer in distances)
    chosen = sum(float(distances[key >> 16][key & 0xFFFF]) ** 2 for key in keys.tolist())
    return float(np.sqrt(chosen / total)) if total > 0 else 0.0


def check_pair(donor: PreTrainedModel, recipient: PreTrainedModel) -> None:
    """Raise InputError if neurons can't be copied between two models."""
    for model, option in ((donor, "--from"), (recipient, "--into")):
        for layer in range(len(gated_mlps(model))):
            mlp = model.model.layers[layer].mlp
            for part in ("gate_proj", "up_proj"):
                if not isinstance(getattr(mlp, part, None), nn.Linear):
                    raise InputError(
                        f"{option}: expected a separate {part} in every MLP, got {type(model).__name__}. Qwen, Llama, "
                        "Mistral and Gemma checkpoints have one"
                    )
    advice = "Use a recipient of the donor's architecture"
    for key in ("model_type", "hidden_act", "hidden_activation"):
        actual, expected = getattr(recipient.config, key, None), getattr(donor.config, key, None)
        if actual != expected:
            raise InputError(f"--into: expected the donor's {key} {expected!r}, got {actual!r}. {advice}")
    if donor.dtype != recipient.dtype:
        raise InputError(
            f"--into: expected the donor's dtype {donor.dtype}, got {recipient.dtype}: copies would be rounded. Use "
            "--set runtime.dtype=float32"
        )
    shapes, others = (
        {name: tuple(tensor.shape) for name, tensor in model.named_parameters()} for model in (recipient, donor)
    )
    for name in [*shapes, *others]:
        if shapes.get(name) != others.get(name):
            raise InputError(
                f"--into: {name}: expected the donor's shape {others.get(name) or '(none)'}, got "
                f"{shapes.get(name) or '(none)'}. {advice}"
            )
