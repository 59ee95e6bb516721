"""The engine on transformers: one resident model, overwritten by every variant of a family, or a single checkpoint."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from nex_merge.activations.capture import capture, gated_mlps
from nex_merge.checkpoints.files import about
from nex_merge.engines.engine import Captured
from nex_merge.engines.loading import (
    check_context,
    context_of,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from nex_merge.generation import generate
from nex_merge.generation.rotary import check_sides
from nex_merge.merging import (
    Merger,
    check_token_ids,
    generation_config,
    member_configs,
    merge_adapters,
    preflight,
    stored_dtype,
    weights_dtype,
)
from nex_merge.records import MergeRecipe, Prompt, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import Family, Location, locate
from nex_merge.setup.rendering import encode_prompts

# Attention without cuDNN's kernels. torch prefers those in half precision where a GPU has them, and they are planned
# anew for every length, while lengths change with every pass; results/studies/speed.md has what that cost.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class TransformersEngine:
    """A model in memory that answers and is captured."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        # What chat templates are told is now, so that a template that writes it makes the same of a prompt every time.
        self.clock = datetime.now()

    def load(self, recipe: MergeRecipe) -> str:
        """A single checkpoint has no other variants; see `FamilyEngine`."""
        raise TypeError("this engine holds a single checkpoint, which takes no recipes")

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        ids = encode_prompts(prompts, self.tokenizer, config, self.clock)
        embeddings: Any = self.model.get_input_embeddings()
        check_token_ids(ids, embeddings.weight.shape[0], self.tokenizer)
        check_context(ids, max_new_tokens, context_of(self.model.config), prompts)
        for model in self.configs():
            check_sides(model, ids, max_new_tokens, prompts)
        return ids

    def configs(self) -> Sequence[PreTrainedConfig]:
        """The configs that responses are generated under."""
        return [self.model.config]

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
        only: Collection[int] | None = None,
    ) -> list[Response]:
        with sdpa_kernel(ATTENTION):
            return generate(self.model, self.tokenizer, prompts, config, notify, drafts, only)

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        with sdpa_kernel(ATTENTION):
            rows, stats = capture(self.model, responses, config, notify)
        neurons = sum(projection.in_features for projection in gated_mlps(self.model))
        return Captured(rows, stats, neurons)

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int], last: int = 0) -> np.ndarray:
        """`last`: after so many of the last tokens only; 0: after all."""
        ids = torch.tensor([list(token_ids)], device=self.model.device)
        return self.model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0].float().cpu().numpy()


class CheckpointEngine(TransformersEngine):
    """One checkpoint, for the commands that look at a single model."""

    def __init__(self, model: str, runtime: RuntimeConfig, source: str = "--model") -> None:
        """`model`: a folder or a hub id. Raises InputError, naming `source`, where it can't be had or captured."""
        self.folder: Path = locate(Location(path=model), source)
        tokenizer = load_tokenizer(self.folder)
        device = resolve_device(runtime.device)
        dtype = resolve_dtype(runtime.dtype, device, stored_dtype(self.folder))
        config = member_configs({source: self.folder})[source]
        loaded = load_model(self.folder, config, dtype)[0]
        loaded.generation_config = generation_config(self.folder)
        loaded.to(device)
        gated_mlps(loaded)
        super().__init__(loaded, tokenizer)


class FamilyEngine(TransformersEngine):
    """A family's resident model, which every variant overwrites."""

    def __init__(self, family: Family, runtime: RuntimeConfig) -> None:
        """Raises InputError for whatever is wrong with the family or the device."""
        self.family = family
        merge_adapters(family.adapters, family.folders)
        self.tensors = preflight(family.folders, family.donor, family.donor_named)
        # What merged weights are stored in: most of the base's.
        self.out_dtype = weights_dtype(self.tensors, family.dtype)
        with about(family.donor):
            tokenizer = load_tokenizer(family.folders[family.donor])
        device = resolve_device(runtime.device)
        self.dtype = resolve_dtype(runtime.dtype, device, self.out_dtype)
        self.merger = Merger(family.folders, family.donor, device, self.dtype, family.merged)
        gated_mlps(self.merger.model)
        super().__init__(self.merger.model, tokenizer)

    def configs(self) -> Sequence[PreTrainedConfig]:
        return list(self.merger.configs.values())

    def load(self, recipe: MergeRecipe) -> str:
        sha256 = self.merger.load(recipe)
        self.model = self.merger.model  # a baseline's runs under its own config
        return sha256
