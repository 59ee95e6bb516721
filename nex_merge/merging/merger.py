"""The resident model, which every variant overwrites; nothing is written to disk.

Its tensors are bit for bit those that `mergekit-yaml` writes for the same recipe and seed on the CPU.
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

# Integers as wide as a float of so many bytes.
INTEGERS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32), 8: (torch.int64, np.uint64)}


class Merger:
    """A family's resident model. `load(recipe)` overwrites it with a variant.

    `device` and `dtype` are those of computing; the variant's tensors are first rounded to the recipe's `out_dtype`,
    so that a wider dtype holds exactly what an export stores. `ranks`: see `Streamer`.
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
        # A base often ends with another token than its chat fine-tunes; a merge may use either's.
        self.model.generation_config.eos_token_id = sorted(
            {token for name, folder in folders.items() for token in end_tokens(folder, self._configs[name])}
        )
        self._rotary = {"": self.model.model.rotary_emb}

    def load(self, recipe: MergeRecipe) -> str:
        """Merge `recipe` into the resident model; the sha256 of the merged tensors (see `digest`).

        Raises TrialError where a tensor is not finite, or a parameter was not written.
        """
        self._run_as(recipe)
        parameters = dict(self.model.named_parameters())
        digests = {}
        # Checked, hashed and written beside the merging, at most two tensors behind.
        with ThreadPoolExecutor(2, initializer=use_one_core) as checking:
            for name, tensor in self._streamer.tensors(recipe):
                if name not in parameters:
                    raise TrialError(f"the merge gave a tensor that the model does not have: {name}")
                if len(digests) > 1:
                    list(digests.values())[-2].result()
                digests[name] = checking.submit(_taken_in, name, tensor, parameters[name])
            found = {name: future.result() for name, future in digests.items()}
        missing = sorted(parameters.keys() - digests.keys())
        if missing:
            raise TrialError(f"the merge left {len(missing)} parameters unwritten, the first {missing[0]}")
        return digest(found)

    def member_of(self, recipe: MergeRecipe) -> str:
        """Whose config a variant runs under: base's and parents' own, the donor's for merges."""
        return self._donor if recipe.kind == "merge" else recipe.parameters["model"]

    def config_of(self, recipe: MergeRecipe) -> PreTrainedConfig:
        """The config that a variant runs under, to be saved with it."""
        return copy.deepcopy(self._configs[self.member_of(recipe)])

    def _run_as(self, recipe: MergeRecipe) -> None:
        """Give base and parents their own rotary embedding, and merges the donor's."""
        member = self.member_of(recipe)
        if self._configs[member].to_dict().get("rope_parameters") == self._configs[self._donor].rope_parameters:
            member = ""
        if member not in self._rotary:
            kind = type(self._rotary[""])
            self._rotary[member] = kind(self._configs[member]).to(self.model.device)
        self.model.model.rotary_emb = self._rotary[member]


def _taken_in(name: str, tensor: torch.Tensor, parameter: torch.Tensor) -> str:
    """Write a merged tensor into its parameter; its digest. Raises TrialError where it is not finite."""
    if not _finite(tensor):
        raise TrialError(f"the merge is not finite: {name}")
    parameter.copy_(tensor)
    return tensor_digest(name, tensor)


def _finite(tensor: torch.Tensor) -> bool:
    """Whether a contiguous float tensor on the CPU has neither infinities nor NaN.

    Their bits, read as integers, lie above those of every finite number of their sign; NumPy finds the largest integer
    ten times faster than torch sums bfloat16.
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
    """sha256 of a checkpoint from its tensors' digests, whatever their order."""
    return hashlib.sha256("\n".join(tensors[name] for name in sorted(tensors)).encode()).hexdigest()
