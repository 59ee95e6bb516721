"""A whole trial on a device that has no hardware: what forgets to say where its tensors belong fails there."""

import pytest
import torch

from nex_merge.engines.transformers import FamilyEngine
from nex_merge.records import Prompt
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import open_family
from tests import pretend
from tests.merging.test_devices import recipe_of

PROMPTS = [Prompt(({"role": "user", "content": text},), text) for text in ("a: a1 12", "b: b1 3 b2 4", "a")]
TOKENS = 10


@pytest.fixture
def on(toy, monkeypatch):
    """A function: device -> engine. Views of pretended tensors want a version, which inference mode is without."""
    monkeypatch.setattr(torch.inference_mode, "__enter__", lambda mode: torch.no_grad.__enter__(mode))
    monkeypatch.setattr(torch.inference_mode, "__exit__", lambda mode, *error: torch.no_grad.__exit__(mode, *error))

    def make(device):
        monkeypatch.setattr("nex_merge.engines.family.resolve_device", lambda name: str(device))
        family = open_family({"base": str(toy["base"]), "models": {"a": str(toy["a"]), "b": str(toy["b"])}}, None)
        return FamilyEngine(family, RuntimeConfig(dtype="float32"))

    return make


@pytest.mark.parametrize("fixed_shapes", [True, False])
def test_a_trial_on_a_device(toy, on, fixed_shapes, monkeypatch):
    if not fixed_shapes:
        monkeypatch.setattr("nex_merge.generation.wants_fixed_shapes", lambda model: False)
    greedy = GenerationConfig(max_new_tokens=TOKENS)
    sampled = GenerationConfig(max_new_tokens=TOKENS, samples=2, temperature=0.8, top_p=0.9, top_k=20)
    found = []
    for device in ("cpu", pretend.device()):
        engine, recipe = on(device), recipe_of("ties", toy)
        ids = engine.encode(PROMPTS, PromptsConfig(file=""), TOKENS)
        sha256 = engine.load(recipe)
        pretend.waits.clear()
        answers = engine.answer(ids, greedy)
        passes = max(len(answer.token_ids) for answer in answers)
        most = passes + 3 if fixed_shapes else 2 * passes + 3  # transformers asks the mask of every pass for something
        assert len(pretend.waits) <= most, "it is waited for the tokens of a pass, and for nothing else"
        drafted = engine.answer(ids, sampled, answers)
        captured = engine.capture(drafted, ActivationsConfig(slice_tokens=4, top_k=20))
        rows = captured.rows.rows
        found.append((sha256, answers, drafted, rows.keys.tolist(), rows.masses.tolist()))
        assert engine.resident.model.device.type == torch.device(device).type
    assert found[0][:4] == found[1][:4]
    assert found[0][4] == pytest.approx(found[1][4], rel=2e-3)
