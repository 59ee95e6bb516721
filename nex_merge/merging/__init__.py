"""MergeRecipe -> merged model in memory, with the tensors that mergekit would write."""

from nex_merge.merging.adapters import merge_adapters
from nex_merge.merging.members import (
    generation_config,
    member_configs,
    preflight,
    rounded_members,
    stored_dtype,
    weights_dtype,
)
from nex_merge.merging.merger import Merger, digest, make_model, share_weights, tensor_digest
from nex_merge.merging.recipes import method_specs, rank_bytes

__all__ = [
    "Merger", "digest", "generation_config", "make_model", "member_configs", "merge_adapters", "method_specs",
    "preflight", "rank_bytes", "rounded_members", "share_weights", "stored_dtype", "tensor_digest", "weights_dtype",
]  # fmt: skip
