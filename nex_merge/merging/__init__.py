"""MergeRecipe -> merged model in memory, with the tensors that mergekit would write."""

from nex_merge.checkpoints.tokenizers import check_token_ids
from nex_merge.merging.adapters import adapter_logits, adapter_notes, merge_adapters
from nex_merge.merging.differences import behaviour_keys, differing_keys
from nex_merge.merging.hashing import digest, tensor_digest
from nex_merge.merging.members import (
    check_distinct,
    generation_config,
    member_configs,
    member_notes,
    preflight,
    rounded_members,
    stored_dtype,
    weights_dtype,
)
from nex_merge.merging.mergekit_plan import check_structure, method_specs, rank_bytes
from nex_merge.merging.merger import Merger, make_model, share_weights
from nex_merge.merging.references import mergekit_config
from nex_merge.merging.scan import survey
from nex_merge.merging.user_recipes import adopt_recipe

__all__ = [
    "Merger", "adapter_logits", "adapter_notes", "adopt_recipe", "behaviour_keys", "check_distinct",
    "check_structure", "check_token_ids", "differing_keys", "digest", "generation_config", "make_model",
    "member_configs", "member_notes", "merge_adapters", "mergekit_config", "method_specs", "preflight", "rank_bytes",
    "rounded_members", "share_weights", "stored_dtype", "survey", "tensor_digest", "weights_dtype",
]  # fmt: skip
