"""The resident variant as a checkpoint: its weights, config, generation config and tokenizer; and reading one back."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from nex_merge.checkpoints.exported import add_older_names, copy_tokenizer, forget_places
from nex_merge.engines.family import FamilyResident
from nex_merge.engines.loading import load_tokenizer
from nex_merge.engines.resident import ModelResident
from nex_merge.errors import InputError
from nex_merge.merging import generation_config
from nex_merge.records import MergeRecipe


def write_weights(resident: FamilyResident, folder: Path, shard_bytes: int) -> None:
    """Write the loaded variant's weights, in the dtype that they are stored in, and a config.

    `shard_bytes`: the size that no file exceeds, unless a single tensor does.
    """
    resident.as_stored().save_pretrained(folder, max_shard_size=shard_bytes)


def write_settings(
    resident: FamilyResident, recipe: MergeRecipe, folder: Path, dtype: torch.dtype | None = None
) -> list[str]:
    """Write the config, generation config and tokenizer of a variant; `recipe`: the one that is loaded.

    `dtype`: what the config says that weights are stored in; None: what merges are stored in. Returns what is worth a
    note.
    """
    member = resident.family.folders[resident.member_of(recipe)]
    config = copy.deepcopy(resident.config)
    config.architectures = [type(resident.model).__name__]
    config.dtype = dtype or resident.stored_dtype
    config.save_pretrained(folder)
    add_older_names(folder, member)
    generation = generation_config(member)
    generation.eos_token_id = resident.end_tokens()
    generation.save_pretrained(folder)
    notes = _write_tokenizer(resident, folder)
    return notes + forget_places(folder)


def _write_tokenizer(resident: FamilyResident, folder: Path) -> list[str]:
    """The donor's own files, if what is read from them in this folder is the tokenizer that encoded the prompts."""
    donor = resident.family.donor
    copies = copy_tokenizer(resident.family.folders[donor], folder)
    try:
        if _contents(load_tokenizer(folder)) == _contents(resident.tokenizer):
            return []
    except InputError:
        pass
    for path in copies:
        path.unlink()
    resident.tokenizer.save_pretrained(folder)
    return [
        f"the tokenizer's files are written by transformers {transformers.__version__}: those of {donor} would give "
        "another tokenizer beside the export's config.json"
    ]


def _contents(tokenizer: Any) -> list[Any]:
    """All that says which ids a tokenizer gives a text or a conversation."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # How the last call was padded and cut.
    rules |= {"padding": None, "truncation": None}
    return [type(tokenizer), rules, tokenizer.special_tokens_map, tokenizer.chat_template, tokenizer.padding_side]


def read_back(resident: ModelResident, folder: Path) -> ModelResident:
    """A written checkpoint as transformers alone loads it, on the device and in the dtype of the resident model."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=resident.dtype, trust_remote_code=False)
    loaded.to(resident.device).eval()
    return ModelResident(loaded, resident.tokenizer)


def decoded(resident: ModelResident, ids: Sequence[int], tokens: int, ends: Sequence[int] | None = None) -> list[int]:
    """The tokens that transformers makes of a prompt, greedily, with the model's own generation config.

    `ends`: tokens that end the response, instead of those of the generation config.
    """
    model: Any = resident.model
    prompt = torch.tensor([list(ids)], device=model.device)
    given = {} if ends is None else {"eos_token_id": list(ends)}
    answer = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False,
        temperature=None, top_p=None, top_k=None, **given,
    )  # fmt: skip
    return answer[0, len(ids) :].tolist()
