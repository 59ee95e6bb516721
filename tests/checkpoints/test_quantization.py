"""Codes are never averaged; a quantization_config beside floats is stale."""

import pytest
import torch
from safetensors.torch import load_file

from nex_merge.checkpoints.configs import mended_config
from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.errors import InputError
from tests.checkpoints.conftest import edit, rewrite

pytestmark = pytest.mark.quick
FP8 = torch.float8_e4m3fn


def mended(folder):
    return mended_config(folder, stored_tensors(folder))


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "torchao", "quant_type": "int4_weight_only"},
        {"quant_method": "unheard-of"},
    ],
)
def test_a_config_left_beside_floats_is_dropped_and_said(folder, config):
    edit(folder / "config.json", quantization_config=config)
    made, notes = mended(folder)
    method = config.get("quant_method", "bitsandbytes")
    assert notes == [f"config.json: quantization_config ({method}) dropped: the weights are stored in BF16"]
    assert not hasattr(made, "quantization_config") and "quantization_config" not in made.to_dict()


# method -> what a quantized layer stores instead of `weight`, given its name without `.weight` and the weight.
LAYERS = {
    "compressed-tensors": lambda stem, w: {f"{stem}.weight": w.to(FP8), f"{stem}.weight_scale": torch.ones(2, 1)},
    "fp8": lambda stem, w: {f"{stem}.weight": w.to(FP8), f"{stem}.weight_scale_inv": torch.ones(1, 1)},
    "bitsandbytes": lambda stem, w: {
        f"{stem}.weight": torch.zeros(w.numel() // 2, 1, dtype=torch.uint8), f"{stem}.weight.absmax": torch.ones(3),
        f"{stem}.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    },
    "awq": lambda stem, w: {f"{stem}.qweight": torch.zeros(4, 2, dtype=torch.int32), f"{stem}.scales": torch.ones(2)},
    "gptq": lambda stem, w: {f"{stem}.qweight": torch.zeros(4, 2, dtype=torch.int32), f"{stem}.g_idx": torch.ones(2)},
    "aqlm": lambda stem, w: {f"{stem}.codes": torch.zeros(2, 2, dtype=torch.int8), f"{stem}.codebooks": torch.ones(2)},
    "hqq": lambda stem, w: {f"{stem}.W_q": torch.zeros(4, 2), f"{stem}.meta": torch.ones(2)},
    "quanto": lambda stem, w: {f"{stem}.weight._data": w.to(torch.int8), f"{stem}.weight._scale": torch.ones(2)},
    "mxfp4": lambda stem, w: {f"{stem}.weight_blocks": torch.zeros(4, dtype=torch.uint8)},
    "bitnet": lambda stem, w: {f"{stem}.weight": torch.zeros(4, 4, dtype=torch.uint8)},
    "scales beside floats": lambda stem, w: {f"{stem}.weight": w, f"{stem}.weight_scale": torch.ones(1)},
}  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("method", LAYERS)
def test_quantized_weights_are_refused_with_and_without_a_config(folder, method, named):
    def quantize(tensors):
        found = {}
        for name, tensor in tensors.items():
            found |= LAYERS[method](name.removesuffix(".weight"), tensor) if "_proj" in name else {name: tensor}
        return found

    rewrite(folder, quantize)
    if named:
        edit(folder / "config.json", quantization_config={"quant_method": method})
    said = method if named else "no quantization_config says how"
    with pytest.raises(InputError, match=rf"quantized \({said}: .+codes cannot be merged\. Use the 16-bit") as error:
        mended(folder)
    ways = {
        "compressed-tensors": "quantization_config=CompressedTensorsConfig(dequantize=True)",
        "fp8": "FineGrainedFP8Config(dequantize=True)", "mxfp4": "Mxfp4Config(dequantize=True)",
        "bitsandbytes": ").dequantize().save_pretrained(",
    }  # fmt: skip
    assert ("dequantize it once" in str(error.value)) == (named and method in ways)
    assert not named or ways.get(method, "") in str(error.value)


def test_the_ways_to_dequantize_are_transformers_own():
    import inspect

    import transformers
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    from nex_merge.checkpoints.quantization import _DEQUANTIZING_CONFIG, _DEQUANTIZING_METHOD

    for name in _DEQUANTIZING_CONFIG.values():
        assert "dequantize" in inspect.signature(getattr(transformers, name)).parameters
    for method in _DEQUANTIZING_METHOD:
        kinds = [kind for name, kind in AUTO_QUANTIZER_MAPPING.items() if name.startswith(method)]
        assert kinds and all("_dequantize" in vars(kind) for kind in kinds)


def test_weights_rounded_on_the_fly_are_refused(folder):
    online = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    edit(folder / "config.json", quantization_config=online)
    with pytest.raises(InputError, match="bitnet rounds the weights in every forward pass"):
        mended(folder)


def test_masks_and_positions_of_older_versions_are_no_codes(folder):
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "model.position_ids": torch.arange(4)}
    rewrite(folder, lambda tensors: tensors | buffers)
    assert mended(folder)[1] == []


def test_the_printed_way_to_dequantize_fp8_gives_floats(tmp_path):
    from tests.conftest import make_toy

    folder = make_toy(tmp_path / "fp8", 3, hidden_size=128, intermediate_size=128, head_dim=64, num_hidden_layers=1)
    before = load_file(folder / "model.safetensors")
    scale = 0.005

    def quantize(tensors):
        codes = {n: (t.float() / scale).clamp(-448, 448).to(FP8) for n, t in tensors.items() if "_proj" in n}
        return tensors | codes | {f"{name}_scale_inv": torch.full((1, 1), scale) for name in codes}

    rewrite(folder, quantize)
    edit(folder / "config.json", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    with pytest.raises(InputError) as error:
        mended(folder)
    command = str(error.value).partition("dequantize it once: ")[2].replace("NEW_FOLDER", str(tmp_path / "new"))
    exec(f"from transformers import AutoModelForCausalLM, FineGrainedFP8Config\n{command}")
    after = load_file(tmp_path / "new" / "model.safetensors")
    assert after.keys() == before.keys() and {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.allclose(after[name].float(), before[name].float(), atol=0.05)
    assert mended(tmp_path / "new")[1] == []
