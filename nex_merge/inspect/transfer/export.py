"""A transplanted checkpoint on disk, and the proof that it is the recipient but for the neurons that were copied."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from nex_merge.errors import InputError, RunError
from nex_merge.inspect.transfer.copying import copy_neurons, neuron_slices, transplanted
from nex_merge.inspect.transfer.experiment import Pair
from nex_merge.inspect.transfer.neuron_sets import Chosen
from nex_merge.merging import digest, tensor_digest
from nex_merge.runs.export import IDENTITY

# What belongs to a checkpoint besides its weights; a model card would be the recipient's.
_BESIDES = ("*.json", "*.jinja", "*.txt", "*.model")


def check_out(out: Path, donor: Path, recipient: Path) -> None:
    """Refuse, with InputError, a folder that is in use, and checkpoints stored in different dtypes."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: {out} exists and is not empty; a new folder would do")
    if recipient.resolve() in (out.resolve(), *out.resolve().parents):
        raise InputError(f"--out: {out} is within the recipient's folder; a folder beside it would do")
    ours, theirs = (
        {dtype for name, dtype in _dtypes(folder).items() if ".mlp." in name} for folder in (recipient, donor)
    )
    if ours != theirs:
        raise InputError(
            f"--out: the recipient's MLPs are stored as {', '.join(sorted(ours))}, the donor's as "
            f"{', '.join(sorted(theirs))}, so that copies would be rounded; checkpoints of one dtype would do"
        )


def _dtypes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                found |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path} can't be read: {error}") from None
    return found


def export_transplant(pair: Pair, chosen: Chosen, about: Mapping[str, Any], out: Path) -> Iterator[str]:
    """Write the recipient with the chosen neurons of the donor; what was done and shown, line by line.

    Tensors are copied between files, in the dtype they are stored in. `about`: what nex_merge.json says besides. `out`
    appears whole, by rename, once everything is checked. Raises RunError where the checkpoint isn't what it should be.
    """
    donor, recipient = pair
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for pattern in _BESIDES:
        for path in recipient.folder.glob(pattern):
            if path.name != IDENTITY:
                shutil.copyfile(path, partial / path.name)
    for path in sorted(recipient.folder.glob("*.safetensors")):
        tensors, metadata = _read(path)
        copy_neurons(_chosen_tensors(donor.folder, chosen), tensors, chosen.keys)
        save_file(tensors, partial / path.name, metadata)
    same = _check_tensors(donor.folder, recipient.folder, partial, chosen)
    yield (
        f"{out}: read back from disk, the {len(chosen.keys)} chosen neurons are the donor's and everything else is the "
        f"recipient's, bit for bit" + (f" ({same} of the chosen are the same in both)" if same else "")
    )
    identity = {
        **about,
        "neurons": chosen.neurons,
        "count": chosen.count,
        "seed": chosen.seed,
        "keys": chosen.keys.tolist(),
        "weights_sha256": _digest(partial),
        "recipient_sha256": _digest(recipient.folder),
        "donor_sha256": _digest(donor.folder),
    }
    (partial / IDENTITY).write_text(json.dumps({"transfer": identity}, indent=1), encoding="utf-8")
    _check_logits(pair, chosen, partial)
    yield f"{out}: transformers loads it and gives the logits of the recipient with these neurons, bit for bit"
    if out.exists():
        out.rmdir()
    partial.replace(out)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _digest(folder: Path) -> str:
    """sha256 of all tensors stored in a checkpoint, as `merging.digest` has it."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {name: tensor_digest(name, tensor) for name, tensor in _read(path)[0].items()}
    return digest(found)


def _chosen_tensors(folder: Path, chosen: Chosen) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint that hold chosen neurons."""
    wanted, found = neuron_slices(chosen.keys), {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys() if name in wanted}  # noqa: SIM118
    return found


def _check_tensors(donor: Path, recipient: Path, out: Path, chosen: Chosen) -> int:
    """Compare the written tensors with both models'; how many chosen neurons are the same in both."""
    slices, given = neuron_slices(chosen.keys), _chosen_tensors(donor, chosen)
    if not given:
        raise RunError(f"{donor}: stores no tensor {next(iter(slices))} or the like, so that nothing can be copied")
    differs: dict[int, torch.Tensor] = {}
    for path in sorted(recipient.glob("*.safetensors")):
        ours, _ = _read(path)
        written, _ = _read(out / path.name)
        if ours.keys() != written.keys():
            raise RunError(f"{out / path.name}: holds other tensors than the recipient's; it is left to look at")
        for name, tensor in ours.items():
            found = written[name]
            if name in given:
                axis, units = slices[name]
                own, theirs = tensor.index_select(axis, units), given[name].index_select(axis, units)
                unequal = own != theirs if tensor.ndim == 1 else (own != theirs).any(1 - axis)
                layer = int(name.split(".")[2])
                differs[layer] = differs.get(layer, torch.zeros_like(unequal)) | unequal
                # With the recipient's own put back, everything has to be the recipient's again.
                back = found.clone().index_copy_(axis, units, own)
                right = torch.equal(found.index_select(axis, units), theirs) and torch.equal(back, tensor)
            else:
                right = torch.equal(found, tensor)
            if not right or found.dtype != tensor.dtype:
                raise RunError(f"{out / path.name}: {name} is not what was to be written; it is left to look at")
    return len(chosen.keys) - sum(int(rows.sum()) for rows in differs.values())


def _check_logits(pair: Pair, chosen: Chosen, folder: Path) -> None:
    """Load the checkpoint with transformers alone and compare its logits with those of the model in memory."""
    donor, recipient = pair
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=recipient.model.dtype, trust_remote_code=False)
    loaded.to(recipient.model.device).eval()
    ids = torch.arange(min(32, int(recipient.model.config.vocab_size)), device=recipient.model.device)[None]
    with torch.inference_mode():
        found = loaded(input_ids=ids).logits
    with transplanted(donor.model, recipient.model, chosen.keys), torch.inference_mode():
        expected = recipient.model(input_ids=ids).logits
    if not torch.equal(found, expected):
        raise RunError(
            f"{folder}: transformers gives other logits than the recipient with these neurons; it is left to look at"
        )
