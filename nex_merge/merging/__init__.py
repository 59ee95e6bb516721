"""MergeRecipe -> merged model in memory, with the tensors that mergekit would write."""

from nex_merge.checkpoints.tokenizers import check_token_ids
from nex_merge.checkpoints.weights import weight_files
from nex_merge.merging.differences import behaviour_keys, differing_keys
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
from nex_merge.merging.merger import Merger, digest, tensor_digest
from nex_merge.merging.recipes import method_specs, rank_bytes
from nex_merge.merging.references import mergekit_config
from nex_merge.merging.scan import survey

__all__ = [
    "Merger", "behaviour_keys", "check_distinct", "check_token_ids", "differing_keys", "digest", "generation_config",
    "member_configs", "member_notes", "mergekit_config", "method_specs", "preflight", "rank_bytes", "rounded_members",
    "stored_dtype", "survey", "tensor_digest", "weight_files", "weights_dtype",
]  # fmt: skip
