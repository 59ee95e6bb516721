"""Tensors belong on the model's device: with another default device, whatever forgets to say its own lands there.

No accelerator is needed: the model is on the CPU, and `meta`, whose tensors hold nothing, is the wrong device.
"""

import pytest
import torch
from transformers import AutoModelForCausalLM

from nex_merge.activations.capture import capture
from nex_merge.engines.loading import load_tokenizer
from nex_merge.generation import generate
from nex_merge.generation.buffers import let_go, supports_fixed_shapes
from nex_merge.setup.config import ActivationsConfig, GenerationConfig

PROMPTS = [[11, 12, 13], [20, 21, 22, 23], [30, 31]]
SAMPLED = {"samples": 2, "temperature": 0.8, "top_p": 0.9, "top_k": 20}


@pytest.mark.parametrize("as_on_gpus", [False, True], ids=["batches", "fixed shapes and packs"])
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_answering_and_capturing_stay_on_the_models_device(toy, sampling, as_on_gpus, monkeypatch):
    if as_on_gpus:
        monkeypatch.setattr("nex_merge.generation.wants_fixed_shapes", supports_fixed_shapes)
        monkeypatch.setattr("nex_merge.activations.capture._are_alone", lambda model: False)
    # A default device holds for one thread, and off the CPU responses are captured in the caller's.
    monkeypatch.setattr("nex_merge.activations.capture.on_cores", lambda work, items: (work(item) for item in items))
    model = AutoModelForCausalLM.from_pretrained(toy["a"], dtype=torch.float32).eval()
    tokenizer = load_tokenizer(toy["a"])
    config = GenerationConfig(max_new_tokens=16, batch_tokens=64, **sampling)

    def run():
        let_go(model)
        generate(model, tokenizer, PROMPTS, config)
        drafts = generate(model, tokenizer, PROMPTS, config)
        responses = generate(model, tokenizer, PROMPTS, config, references=drafts)
        return responses, *capture(model, responses, ActivationsConfig(slice_tokens=8, top_k=20))

    responses, rows, stats = run()
    with torch.device("meta"):
        elsewhere, rows_again, stats_again = run()
    assert elsewhere == responses and stats_again == stats
    assert rows_again.rows.masses.tolist() == rows.rows.masses.tolist()
