"""The resident model, which every variant overwrites in memory; nothing is written to disk.

Its tensors are bit-identical to those that `mergekit-yaml` writes for the same recipe and seed on the CPU.
"""

import copy
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from nex_merge.errors import TrialError
from nex_merge.merging.members import end_tokens, generation_config, member_configs
from nex_merge.merging.recipes import Streamer
from nex_merge.records import MergeRecipe
from nex_merge.threads import use_one_core

# Bytes per float -> integers of the same width, in torch (signed) and NumPy (unsigned).
INTEGERS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32), 8: (torch.int64, np.uint64)}


class Merger:
    """A family's resident model. `load(recipe)` overwrites its weights with those of a variant.

    `folders`: checkpoint of 'base' and of every fine-tune. `donor`: the member whose config the merges get. `device`
    and `dtype` are those of the forward passes; merged tensors are first rounded to the recipe's `out_dtype`, so that
    the model holds exactly what an export stores. `ranks`: see `Streamer`.
    """

    def __init__(
        self, folders: Mapping[str, Path], donor: str, device: str, dtype: torch.dtype, ranks: Path | None = None
    ) -> None:
        self._streamer = Streamer(ranks)
        self._configs = member_configs(folders)
        self._donor = donor
        with torch.device(device):
            self.model: PreTrainedModel = AutoModelForCausalLM.from_config(
                copy.deepcopy(self._configs[donor]), dtype=dtype, trust_remote_code=False
            )
        self.model.eval().requires_grad_(False)
        self.model.generation_config = generation_config(folders[donor])
        # A base often has another end token than its chat fine-tunes, and a merge may emit either.
        self.model.generation_config.eos_token_id = sorted(
            {token for name, folder in folders.items() for token in end_tokens(folder, self._configs[name])}
        )
        self._rotary = {"": self.model.model.rotary_emb}

    def load(self, recipe: MergeRecipe) -> str:
        """Merge `recipe` into the resident model. Returns the sha256 of the merged tensors (see `digest`).

        Raises TrialError if mergekit rejects the recipe, a tensor has NaN or infinite elements, or the merged tensors
        are not exactly the model's parameters.
        """
        self._set_rotary(recipe)
        parameters = dict(self.model.named_parameters())
        digests = {}
        # Tensors are checked, hashed and written while the next ones are merged, at most two of them waiting.
        with ThreadPoolExecutor(2, initializer=use_one_core) as checking:
            for name, tensor in self._streamer.tensors(recipe):
                if name not in parameters:
                    raise TrialError(f"the merge produced {name}, which is not a parameter of the model")
                if len(digests) > 1:
                    list(digests.values())[-2].result()
                digests[name] = checking.submit(_write, name, tensor, parameters[name])
            found = {name: future.result() for name, future in digests.items()}
        missing = sorted(parameters.keys() - digests.keys())
        if missing:
            raise TrialError(
                f"the merge produced no tensor for {len(missing)} parameters of the model, for example {missing[0]}"
            )
        return digest(found)

    def member_of(self, recipe: MergeRecipe) -> str:
        """The member whose config a variant runs with: a baseline's is the member itself, a merge's is the donor."""
        return self._donor if recipe.kind == "merge" else recipe.parameters["model"]

    def config_of(self, recipe: MergeRecipe) -> PreTrainedConfig:
        """A copy of the config that a variant runs with, to be saved with it."""
        return copy.deepcopy(self._configs[self.member_of(recipe)])

    def _set_rotary(self, recipe: MergeRecipe) -> None:
        """Use the rotary embedding of the variant's config (see `member_of`)."""
        member = self.member_of(recipe)
        if self._configs[member].to_dict().get("rope_parameters") == self._configs[self._donor].rope_parameters:
            member = ""
        if member not in self._rotary:
            kind = type(self._rotary[""])
            self._rotary[member] = kind(self._configs[member]).to(self.model.device)
        self.model.model.rotary_emb = self._rotary[member]


def _write(name: str, tensor: torch.Tensor, parameter: torch.Tensor) -> str:
    """Write a merged tensor into its parameter. Returns its digest. Raises TrialError if it is not finite."""
    if not _finite(tensor):
        raise TrialError(f"the merged tensor {name} is not finite")
    parameter.copy_(tensor)
    return tensor_digest(name, tensor)


def _finite(tensor: torch.Tensor) -> bool:
    """Whether a contiguous float tensor on the CPU has neither infinities nor NaN.

    Read as integers, the bits of both lie above those of all finite numbers of the same sign. NumPy finds the largest
    integer ten times faster than torch sums bfloat16.
    """
    signed, unsigned = INTEGERS[tensor.element_size()]
    infinity = torch.tensor(torch.inf, dtype=tensor.dtype).view(signed).item()
    bits = tensor.view(signed).numpy()
    negative = infinity - torch.iinfo(signed).min  # the bits of minus infinity
    return not bits.size or (int(bits.max()) < infinity and int(bits.view(unsigned).max()) < negative)


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """sha256 over a tensor's name, dtype, shape and bytes."""
    content = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def digest(tensors: Mapping[str, str]) -> str:
    """sha256 of a checkpoint from the digests of its tensors by name; independent of their order."""
    return hashlib.sha256("\n".join(tensors[name] for name in sorted(tensors)).encode()).hexdigest()
