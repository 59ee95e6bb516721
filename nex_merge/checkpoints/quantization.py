"""Whether a checkpoint's weights are codes of a quantization, and whether its config only says so.

Codes cannot be averaged: a weight is code times scale, and every member has scales of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.weights import StoredTensor
from nex_merge.errors import InputError

# safetensors' names of the dtypes of weights, and torch's.
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
# Tensors that only quantized layers have, in the formats of bitsandbytes, GPTQ, AWQ, AQLM, VPTQ, SpQR, HQQ, Quanto,
# EETQ, FP8, compressed-tensors, torchao, MXFP4, HIGGS, FP-Quant and Quark.
_COMPANIONS = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|SCB|"
    r"weight_format|weight_scale|weight_scale_inv|weight_scale_2|weight_zero_point|weight_packed|weight_shape|"
    r"weight_global_scale|input_scale|input_global_scale|activation_scale|weight_scales|codes|codebooks|centroids|"
    r"indices|W_q|meta|weight\._data|weight\.bitmask|weight\.compressed|weight\._scale|weight\.qdata|weight\.scale|dense_weights|row_offsets|qidata|"
    r"hadamard_matrix|tables2?|qmeth|wf)$|_(blocks|scales|scale_inv)$"
)
# Integers that are no weights: masks and positions that older versions of transformers stored.
_BUFFERS = re.compile(r"(position_ids|masked_bias|attn\.bias|attention\.bias|rotary_emb\.\w+|num_batches_tracked)$")
# How transformers turns weights back into floats: the config that asks for it while loading, or a method of the model.
_DEQUANTIZING_CONFIG = {
    "fp8": "FineGrainedFP8Config",
    "mxfp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
    "compressed-tensors": "CompressedTensorsConfig",
    "metal": "MetalConfig",
}
_DEQUANTIZING_METHOD = {"bitsandbytes", "higgs"}
# 16-bit weights that are rounded in every forward pass, as their config demands.
_ON_THE_FLY = {"bitnet", "fp_quant", "fouroversix"}


def quantized_tensor(tensors: Mapping[str, StoredTensor]) -> str | None:
    """A tensor by which a checkpoint is known to be quantized, with its dtype; None if its weights are floats."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and not _BUFFERS.search(name):
            return f"{name} ({tensor.dtype})"
    return next((name for name in tensors if _COMPANIONS.search(name)), None)


def method_of(raw: Mapping[str, Any]) -> str | None:
    """The quantization method in a raw config; None if it has no quantization_config."""
    config = raw.get("quantization_config") or raw.get("compression_config")
    if not isinstance(config, Mapping):
        return None
    if "quant_method" not in config and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        return "bitsandbytes"
    return str(config.get("quant_method", "unknown method"))


def check_not_quantized(folder: Path, raw: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str | None:
    """The method of a quantization_config that is stale, since the weights are floats; None if there is none.

    Raises InputError, with the way to 16-bit weights, if weights are quantized or become so in the forward pass.
    """
    method, evidence = method_of(raw), quantized_tensor(tensors)
    if evidence is not None:
        raise InputError(
            f"{folder}: the weights are quantized ({method or 'no quantization_config says how'}: {evidence}): codes "
            f"cannot be merged. Use the 16-bit checkpoint that they were made from{_dequantize(folder, method)}"
        )
    if method in _ON_THE_FLY:
        raise InputError(
            f"{folder / 'config.json'}: quantization_config: {method} rounds the weights in every forward pass, "
            "which a merge would lose; use a checkpoint that is not quantized"
        )
    return method


def _dequantize(folder: Path, method: str | None) -> str:
    options = call = ""
    if method in _DEQUANTIZING_CONFIG:
        options = f", quantization_config={_DEQUANTIZING_CONFIG[method]}(dequantize=True)"
    elif method in _DEQUANTIZING_METHOD:
        call = ".dequantize()"
    else:
        return ""
    # In its original format, transformers would save the codes again.
    return (
        f', or dequantize it once: AutoModelForCausalLM.from_pretrained("{folder}"{options}){call}'
        '.save_pretrained("NEW_FOLDER", save_original_format=False)'
    )
