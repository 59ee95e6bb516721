"""Which attention kernels answering and capturing allow. torch keeps the switches on machines without a GPU, too."""

import torch
from transformers import AutoModelForCausalLM

from nex_merge.engines.loading import load_tokenizer
from nex_merge.engines.resident import ModelResident
from nex_merge.engines.transformers import TransformersEngine
from nex_merge.setup.config import ActivationsConfig, GenerationConfig


def test_no_pass_takes_kernels_that_are_planned_for_every_length(toy):
    engine = TransformersEngine(
        ModelResident(AutoModelForCausalLM.from_pretrained(toy["a"]).eval(), load_tokenizer(toy["a"]))
    )
    allowed = []

    def look(*_):
        allowed.append((torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))

    engine.resident.model.model.layers[0].register_forward_pre_hook(look)
    responses = engine.answer([[11, 12, 13]], GenerationConfig(max_new_tokens=3))
    answering = len(allowed)
    engine.capture(responses, ActivationsConfig(slice_tokens=8, top_k=20))
    assert 0 < answering < len(allowed) and set(allowed) == {(False, True)}
    assert torch.backends.cuda.cudnn_sdp_enabled()
