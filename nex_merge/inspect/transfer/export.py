"""Write a recipient with copied neurons as a checkpoint, and verify it against both models."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nex_merge.atomic import new_folder
from nex_merge.checkpoints.exported import copy_tokenizer, forget_places
from nex_merge.checkpoints.files import INDEX, weights_of
from nex_merge.engines.saving import read_back
from nex_merge.errors import InputError, RunError
from nex_merge.inspect.transfer.copying import copy_neurons, neuron_slices, transplanted
from nex_merge.inspect.transfer.experiment import Pair
from nex_merge.inspect.transfer.neuron_sets import NeuronSet
from nex_merge.runs.card import public_name
from nex_merge.runs.proof import checkpoint_digest, read_tensors, write_identity
from nex_merge.setup.paths import check_new_folder
from nex_merge.wording import counted

# Files of a checkpoint besides its weights and tokenizer; a model card would describe the recipient.
_OTHER_FILES = ("config.json", "generation_config.json", INDEX)


def check_out(out: Path, donor: Path, recipient: Path) -> None:
    """Raise InputError if the folder is in use, or the checkpoints are stored in different dtypes."""
    check_new_folder(out, "--out")
    if recipient.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out: expected a folder outside the recipient's, got {out}")
    actual, expected = (
        {dtype for name, dtype in _dtypes(folder).items() if ".mlp." in name} for folder in (recipient, donor)
    )
    if actual != expected:
        raise InputError(
            f"--out: expected checkpoints of one dtype, got a recipient in {', '.join(sorted(actual))} and a donor in "
            f"{', '.join(sorted(expected))}: copies would be rounded"
        )


def _dtypes(folder: Path) -> dict[str, str]:
    found = {}
    for path in weights_of(folder):
        try:
            with safe_open(path, "pt") as file:
                found |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path}: cannot be read: {error}") from None
    return found


def export_transplant(pair: Pair, chosen: NeuronSet, about: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Write the recipient with the chosen neurons of the donor, verify it, and yield a line about each step.

    Tensors are copied between files in their stored dtype. `about`: more entries for nex_merge.json. `out` appears by
    atomic rename after all checks. Raises RunError if a check fails.
    """
    donor, recipient = pair.donor.resident.folder, pair.recipient.resident.folder
    with new_folder(out) as folder:
        copy_tokenizer(recipient, folder)
        for name in _OTHER_FILES:
            if (recipient / name).is_file():
                shutil.copyfile(recipient / name, folder / name)
        yield from (f"note: {note}" for note in forget_places(folder))
        donated = _chosen_tensors(donor, chosen)
        for path in weights_of(recipient):
            tensors = read_tensors(path)
            copy_neurons(donated, tensors, chosen.keys)
            save_file(tensors, folder / path.name, {"format": "pt"})
        identical = _check_tensors(donor, recipient, folder, chosen)
        alike = f"; of these, {counted(identical, 'neuron')} alike in both models" if identical else ""
        yield (
            f"{out}: verified on disk, bit for bit: {counted(len(chosen.keys), 'chosen neuron')} as in the donor, all "
            f"other weights as in the recipient{alike}"
        )
        identity = {
            **_without_paths(about, pair),
            "neurons": chosen.neurons,
            "count": chosen.count,
            "seed": chosen.seed,
            "keys": chosen.keys.tolist(),
            "weights_sha256": checkpoint_digest(folder, every=True),
            "recipient_sha256": checkpoint_digest(recipient, every=True),
            "donor_sha256": checkpoint_digest(donor, every=True),
        }
        write_identity(folder, {"transfer": identity})
        _check_logits(pair, chosen, folder)
        yield f"{out}: verified with transformers: same logits as the recipient with these neurons, bit for bit"


def _without_paths(about: Mapping[str, Any], pair: Pair) -> dict[str, Any]:
    """`about` with names in place of this machine's folders and files."""
    named = {key: public_name(engine.resident.folder) for key, engine in zip(("donor", "recipient"), pair, strict=True)}
    named = {key: name for key, name in named.items() if Path(about[key]).exists()}
    prompts = {**about["prompts"], "file": Path(about["prompts"]["file"]).name}
    return {**about, **named, "prompts": prompts}


def _chosen_tensors(folder: Path, chosen: NeuronSet) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that contain chosen neurons."""
    names = neuron_slices(chosen.keys)
    return {name: tensor for path in weights_of(folder) for name, tensor in read_tensors(path, names).items()}


def _check_tensors(donor: Path, recipient: Path, out: Path, chosen: NeuronSet) -> int:
    """Compare the written tensors with both models. Returns the number of chosen neurons identical in both."""
    slices, donated = neuron_slices(chosen.keys), _chosen_tensors(donor, chosen)
    if not donated:
        raise RunError(f"{donor}: has no tensor such as {next(iter(slices))}, so no neurons can be copied")
    differs: dict[int, torch.Tensor] = {}
    for path in weights_of(recipient):
        originals, written = read_tensors(path), read_tensors(out / path.name)
        if originals.keys() != written.keys():
            raise RunError(f"{out / path.name}: its tensors are not the recipient's; it is kept for inspection")
        for name, tensor in originals.items():
            found = written[name]
            if name in donated:
                axis, units = slices[name]
                original, expected = tensor.index_select(axis, units), donated[name].index_select(axis, units)
                unequal = original != expected if tensor.ndim == 1 else (original != expected).any(1 - axis)
                layer = int(name.split(".")[2])
                differs[layer] = differs.get(layer, torch.zeros_like(unequal)) | unequal
                # Undoing the copy must restore the recipient's tensor.
                restored = found.clone().index_copy_(axis, units, original)
                is_correct = torch.equal(found.index_select(axis, units), expected) and torch.equal(restored, tensor)
            else:
                is_correct = torch.equal(found, tensor)
            if not is_correct or found.dtype != tensor.dtype:
                raise RunError(f"{out / path.name}: {name} differs from what was copied; it is kept for inspection")
    return len(chosen.keys) - sum(int(rows.sum()) for rows in differs.values())


def _check_logits(pair: Pair, chosen: NeuronSet, folder: Path) -> None:
    """Load the checkpoint with transformers and compare its logits with those of the model in memory."""
    donor, recipient = pair
    ids = range(min(32, int(recipient.resident.model.config.vocab_size)))
    found = read_back(recipient.resident, folder).logits(ids)
    with transplanted(donor.resident.model, recipient.resident.model, chosen.keys):
        expected = recipient.logits(ids)
    if not np.array_equal(found, expected):
        raise RunError(
            f"{folder}: transformers computes other logits than the recipient with these neurons; it is kept for "
            "inspection"
        )
