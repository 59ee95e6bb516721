"""A family's resident model: every variant overwrites its weights, and a rehearsal or an export asks what it holds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from nex_merge.activations.capture import gated_mlps
from nex_merge.checkpoints.files import about
from nex_merge.engines.loading import load_model, load_tokenizer, resolve_device, resolve_dtype
from nex_merge.engines.resident import ModelResident
from nex_merge.merging import Merger, make_model, merge_adapters, preflight, share_weights, weights_dtype
from nex_merge.records import MergeRecipe
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.families import Family
from nex_merge.wording import listed

_LISTED = 3  # names in a message


class FamilyResident(ModelResident):
    """The weights of a family under the recipe that was loaded last.

    `tensors`: the merges' tensors by name: (dtype as safetensors writes it, shape). `out_dtype`: what merged weights
    are rounded to and stored in, most of the base's.
    """

    def __init__(self, family: Family, runtime: RuntimeConfig) -> None:
        """Raises InputError for whatever is wrong with the family or the device."""
        self.family = family
        merge_adapters(family.adapters, family.folders)
        self.tensors = preflight(family.folders, family.donor, family.donor_named)
        self.out_dtype = weights_dtype(self.tensors, family.dtype)
        with about(family.donor):
            tokenizer = load_tokenizer(family.folders[family.donor])
        device = resolve_device(runtime.device)
        dtype = resolve_dtype(runtime.dtype, device, self.out_dtype)
        self._merger = Merger(family.folders, family.donor, device, dtype, family.merged)
        gated_mlps(self._merger.model)
        super().__init__(self._merger.model, tokenizer)
        self.family_weights = self

    def load(self, recipe: MergeRecipe) -> str:
        return self.begin(recipe)()

    def begin(self, recipe: MergeRecipe) -> Callable[[], str]:
        sha256 = self._merger.begin(recipe)
        self.model = self._merger.model  # a baseline's runs under its own config
        return sha256

    def prepare(self, recipe: MergeRecipe) -> None:
        if self.device.type != "cpu":  # whose cores are all answering: there it cost more than it saved
            self._merger.prepare(recipe)

    def configs(self) -> Sequence[PreTrainedConfig]:
        return list(self._merger.configs.values())

    @property
    def config(self) -> PreTrainedConfig:
        """The config that the loaded variant runs under."""
        return self.model.config

    @property
    def stored_dtype(self) -> torch.dtype:
        """`out_dtype` as torch has it."""
        return getattr(torch, self.out_dtype)

    def keep_ranks(self, folder: Path) -> None:
        """Keep orders of weights in this folder, so that later merges need not sort again."""
        self._merger.keep_ranks(folder)

    def member_of(self, recipe: MergeRecipe) -> str:
        """The member whose config a variant runs under."""
        return self._merger.member_of(recipe)

    def differing(self, member: str) -> dict[str, tuple[Any, Any]]:
        """The config keys whose values differ between a member and the donor, with both values."""
        return self._merger.differing(member)

    @contextmanager
    def under_the_donors_config(self) -> Iterator[None]:
        """The loaded member as merges run: under the config of the donor."""
        own = self.model
        self.model = self._merger.under(self.family.donor)
        try:
            yield
        finally:
            self.model = own

    def as_stored(self) -> Any:
        """A model on the CPU with the loaded variant's weights in the dtype that they are stored in.

        Exact: the resident weights were rounded to it before they were widened.
        """
        stored = {name: tensor.detach().to("cpu", self.stored_dtype) for name, tensor in self.model.named_parameters()}
        shell: Any = make_model(self.config, self.stored_dtype)
        shell.load_state_dict(stored, strict=False)
        shell.tie_weights()
        return shell

    def beside(self, config: PreTrainedConfig, generation: Any, tokenizer: Any) -> ModelResident:
        """The loaded variant's own weights, not copies, under what was read back from an export's other files."""
        model = share_weights(self.model, config)
        model.generation_config = generation
        found = ModelResident(model, tokenizer)
        found.tell_time(self.clock)
        return found

    def checkpoint(self, folder: Path) -> tuple[ModelResident, list[str]]:
        """A member as transformers loads it, with its weights rounded as merges are stored; and what it didn't load.

        Raises InputError if transformers can't load it.
        """
        loaded, info = load_model(folder, self.config, self.dtype)
        loaded.to(self.device)
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.copy_(parameter.to(self.stored_dtype))
        problems = [
            f"tensors {what}: {listed(sorted(map(str, info[key])), _LISTED)}"
            for key, what in (("missing_keys", "not in the checkpoint"), ("unexpected_keys", "of no use to the model"))
            if info.get(key)
        ]
        return ModelResident(loaded, self.tokenizer), problems

    def differences(self, other: ModelResident) -> list[str]:
        """What differs between the loaded variant and another model: parameters, weights, buffers; a line each."""
        causes = []
        ours, theirs = dict(self.model.named_parameters()), dict(other.model.named_parameters())
        if alone := sorted(ours.keys() ^ theirs.keys()):
            causes.append(f"only one of the two has the parameters {listed(alone, _LISTED)}")
        if weights := [name for name in ours if name in theirs and not torch.equal(ours[name], theirs[name])]:
            causes.append(f"other weights: {listed(weights, _LISTED)}")
        buffers = dict(other.model.named_buffers())
        named = self.model.named_buffers()
        if unlike := [name for name, buffer in named if name in buffers and not torch.equal(buffer, buffers[name])]:
            causes.append(f"other buffers: {listed(unlike, _LISTED)}")
        return causes
