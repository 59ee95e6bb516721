"""Models of transformers that are resident in memory: a single checkpoint's. `family.py` has a family's."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from nex_merge.activations.capture import gated_mlps
from nex_merge.engines.loading import (
    check_context,
    context_of,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from nex_merge.generation import AUTO_BATCH_BYTES, end_tokens, token_bytes
from nex_merge.generation.rotary import check_sides
from nex_merge.merging import check_token_ids, generation_config, member_configs, stored_dtype
from nex_merge.records import MergeRecipe, Prompt
from nex_merge.setup.config import PromptsConfig, RuntimeConfig
from nex_merge.setup.families import Location, locate
from nex_merge.setup.rendering import encode_prompts

_MOST_ROWS = 64


class ModelResident:
    """A model in memory, with its tokenizer."""

    family_weights: Any = None  # of a family, itself

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = model.dtype  # of the forward passes
        self.clock = datetime.now()

    def tell_time(self, now: datetime) -> None:
        self.clock = now

    def load(self, recipe: MergeRecipe) -> str:
        """A single checkpoint has no other variants; see `FamilyResident`."""
        raise TypeError("this engine holds a single checkpoint, which takes no recipes")

    def begin(self, recipe: MergeRecipe) -> Callable[[], str]:
        return lambda: self.load(recipe)

    def prepare(self, recipe: MergeRecipe) -> None:
        pass

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        ids = encode_prompts(prompts, self.tokenizer, config, self.clock)
        embeddings: Any = self.model.get_input_embeddings()
        check_token_ids(ids, embeddings.weight.shape[0], self.tokenizer)
        check_context(ids, max_new_tokens, self.context, prompts)
        for model in self.configs():
            check_sides(model, ids, max_new_tokens, prompts)
        return ids

    @property
    def context(self) -> int | None:
        """The context length, in tokens; None if the config has none."""
        return context_of(self.model.config)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def batch_size(self, tokens: int, budget: int | Literal["auto"], scores: bool) -> int:
        """Rows of `tokens` tokens each that a batch may have, from 1 to 64, for libraries that want a fixed number.

        `budget`: tokens of a batch; auto: what fits 4 GiB, of keys and values alone or, if every token is scored, with
        its logits and their log-probabilities in float32.
        """
        config = self.model.config
        logits = 8 * config.get_text_config().vocab_size if scores else 0
        fitting = AUTO_BATCH_BYTES // (token_bytes(config, self.dtype.itemsize) + logits)
        return min(max(1, (fitting if budget == "auto" else budget) // tokens), _MOST_ROWS)

    def end_tokens(self) -> list[int]:
        """The tokens that end a response, ascending."""
        return sorted(end_tokens(self.model, self.tokenizer))

    def configs(self) -> Sequence[PreTrainedConfig]:
        """The configs that responses are generated under."""
        return [self.model.config]

    @torch.inference_mode()
    def logits(self, token_ids: Sequence[int], last: int = 0) -> np.ndarray:
        ids = torch.tensor([list(token_ids)], device=self.model.device)
        return self.model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0].float().cpu().numpy()


class CheckpointResident(ModelResident):
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
