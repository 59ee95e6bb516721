"""The resident model, which every variant overwrites in memory; nothing is written to disk.

Its tensors are bit-identical to those that `mergekit-yaml` writes for the same recipe and seed on the CPU.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from nex_merge import interrupts
from nex_merge.errors import TrialError
from nex_merge.merging.differences import differing_keys
from nex_merge.merging.hashing import digest, digest_later, tensor_digest
from nex_merge.merging.members import end_tokens, generation_config, member_configs
from nex_merge.merging.streamer import Streamer
from nex_merge.records import MergeRecipe
from nex_merge.threads import cores, use_one_core
from nex_merge.wording import counted

# Bytes per float -> integers of the same width, in torch (signed) and NumPy (unsigned).
INTEGERS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32)}
_NOT_FINITE = "the merged tensor {} is not finite"


class Merger:
    """A family's resident model. `load(recipe)` overwrites its weights with those of a variant.

    `folders`: checkpoint of 'base' and of every fine-tune. `donor`: the member whose config the merges get. `device`
    and `dtype` are those of the forward passes; merged tensors are first rounded to the recipe's `out_dtype`, so that
    the model holds exactly what an export stores. `merged`: see `Streamer`.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        donor: str,
        device: str,
        dtype: torch.dtype,
        merged: Mapping[str, Path] | None = None,
    ) -> None:
        self._merged = merged or {}
        self._device = torch.device(device)
        self._streamer = Streamer(merged=self._merged, device=self._device)
        self._sha256: Callable[[], str] = str  # what waits for the digest of the resident weights
        self.configs = member_configs(folders)
        self._donor = donor
        with torch.device(device):
            self.model = make_model(self.configs[donor], dtype)
        self.model.generation_config = generation_config(folders[donor])
        # A base often has another end token than its chat fine-tunes, and a merge may emit either.
        self.model.generation_config.eos_token_id = sorted(
            {token for name, folder in folders.items() for token in end_tokens(folder, self.configs[name])}
        )
        self._models = {donor: self.model}

    def load(self, recipe: MergeRecipe) -> str:
        """Merge `recipe` into the resident model. Returns the sha256 of the merged tensors (see `digest`).

        Raises TrialError if mergekit rejects the recipe, a tensor has NaN or infinite elements, or the merged tensors
        are not exactly the model's parameters.
        """
        return self.begin(recipe)()

    def begin(self, recipe: MergeRecipe) -> Callable[[], str]:
        """Merge `recipe` as `load` does. The sha256 is had from what is returned, which may have to wait for it.

        Where weights are on an accelerator, they are hashed while the model answers.
        """
        self._sha256()  # of the weights that are overwritten now
        self.model = self.under(self.member_of(recipe))
        parameters = dict(self.model.named_parameters())
        out_dtype = getattr(torch, recipe.config.get("out_dtype") or recipe.config.get("dtype") or "float32")
        # Whether a parameter has all of a merged tensor, so that what was merged can be hashed from it afterwards.
        has_all = torch.promote_types(out_dtype, self.model.dtype) == self.model.dtype
        if self.model.device.type == "cpu" or not has_all:
            sha256 = self._checked(recipe, parameters)
            return lambda: sha256
        again = False
        try:
            self._written(recipe, parameters)
        except torch.OutOfMemoryError:
            if not (again := self._streamer.let_go()):
                raise
        if again:  # here, where the error is gone, which keeps what was allocated
            self._written(recipe, parameters)
        self._sha256 = digest_later(parameters, out_dtype)
        return self._sha256

    def prepare(self, recipe: MergeRecipe) -> None:
        """Do what can be done ahead of a merge beside other work; changes nothing that can be seen."""
        self._streamer.prepare(recipe)

    def _checked(self, recipe: MergeRecipe, parameters: Mapping[str, torch.Tensor]) -> str:
        """Write the merge; tensors are checked, hashed and written on the CPU while the next ones are merged."""
        largest = max(parameter.numel() for parameter in parameters.values())
        digests, waiting, held = {}, deque(), 0
        # At most so many of them are waiting as take the memory of the two largest.
        with ThreadPoolExecutor(max(2, cores() // 2), initializer=use_one_core) as checking:
            for name, tensor in self._tensors(recipe, parameters):
                held += tensor.numel()
                while waiting and held > 2 * largest:
                    size, first = waiting.popleft()
                    first.result()
                    held -= size
                digests[name] = checking.submit(_write, name, tensor, parameters[name])
                waiting.append((tensor.numel(), digests[name]))
            return digest({name: future.result() for name, future in digests.items()})

    def _written(self, recipe: MergeRecipe, parameters: Mapping[str, torch.Tensor]) -> None:
        """Write the merge; tensors are checked where they are, and asked for the outcome once."""
        finite = {}
        for name, tensor in self._tensors(recipe, parameters):
            parameters[name].copy_(tensor)
            is_finite = torch.tensor(_finite(tensor)) if tensor.device.type == "cpu" else tensor.isfinite().all()
            finite[name] = is_finite.to(parameters[name].device)
        for name, is_finite in zip(finite, torch.stack(list(finite.values())).cpu().tolist(), strict=True):
            if not is_finite:
                raise TrialError(_NOT_FINITE.format(name))

    def _tensors(
        self, recipe: MergeRecipe, parameters: Mapping[str, torch.Tensor]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors by name. Raises TrialError if they are not the model's parameters."""
        missing = set(parameters)
        for name, tensor in self._streamer.tensors(recipe):
            interrupts.check()
            if name not in parameters:
                raise TrialError(f"the merge produced {name}, which is not a parameter of the model")
            missing.discard(name)
            yield name, tensor
        if missing:
            raise TrialError(
                f"the merge produced no tensor for {counted(len(missing), 'parameter')} of the model, for "
                f"example {min(missing)}"
            )

    def member_of(self, recipe: MergeRecipe) -> str:
        """The member whose config a variant runs with: a baseline's is the member itself, a merge's is the donor."""
        return self._donor if recipe.kind == "merge" else recipe.parameters["model"]

    def keep_ranks(self, folder: Path) -> None:
        """Keep orders of weights in this folder, so that later merges need not sort again; see `Streamer`."""
        self._streamer = Streamer(folder, self._merged, self._device)

    def differing(self, member: str) -> dict[str, tuple[Any, Any]]:
        """The config keys whose values differ between a member and the donor, with both values."""
        return differing_keys(self.configs[member], self.configs[self._donor])

    def under(self, member: str) -> PreTrainedModel:
        """The resident weights under a member's own config; the resident model itself if that is the donor's.

        Weights are the same tensors, so that a model for every member takes no more memory than one.
        """
        if member not in self._models:
            donor = self._models[self._donor]
            own = self.configs[member]
            self._models[member] = share_weights(donor, own) if self.differing(member) else donor
        return self._models[member]


def make_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model with a config of its own, for inference; its weights are random or empty."""
    model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, trust_remote_code=False)
    return model.eval().requires_grad_(False)


def share_weights(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """A model under another config whose parameters are those of `model`: the same tensors, not copies."""
    from accelerate import init_empty_weights

    # Buffers, such as rotary frequencies, follow from the config; parameters would be a second copy of the weights.
    with torch.device(model.device), init_empty_weights(include_buffers=False):
        other = make_model(config, model.dtype)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, parameter)
    other.generation_config = model.generation_config
    return other


def _write(name: str, tensor: torch.Tensor, parameter: torch.Tensor) -> str:
    """Write a merged tensor into its parameter. Returns its digest. Raises TrialError if it is not finite."""
    tensor = tensor.cpu()
    if not _finite(tensor):
        raise TrialError(_NOT_FINITE.format(name))
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
