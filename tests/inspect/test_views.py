"""Settings of a checkpoint that answers a prompt, and that `phases --model` observes as a search does."""

from types import SimpleNamespace

from nex_merge.inspect import views
from nex_merge.inspect.models import AnswerConfig
from nex_merge.inspect.views import resolve_settings
from tests.engines.fakes import FakeEngine


def test_a_checkpoint_of_a_known_family_uses_its_defaults():
    for model in ("families/qwen3_tiny/weights/pairs", "nex_merge/families/qwen3_tiny/weights/../weights/pairs"):
        config, family = resolve_settings(model, None, {"activations": {"top_k": 32}})
        assert (family, config.activations.slice_tokens, config.activations.top_k) == ("qwen3-tiny", 5, 32)
        assert config.generation.max_new_tokens == 832
    assert resolve_settings("Qwen/Qwen3-0.6B", None, {})[1] == "qwen3-0.6b"
    assert resolve_settings("tests", None, {})[1] is None


def test_every_sample_has_a_reading(tokenizer, monkeypatch):
    engine = FakeEngine()
    engine.resident = SimpleNamespace(tokenizer=tokenizer)
    monkeypatch.setattr(views, "CheckpointEngine", lambda model, runtime: engine)
    config = AnswerConfig.model_validate({"generation": {"samples": 3}, "activations": {"slice_tokens": 2}})
    found = views.answer("model", "a prompt", config)
    assert [reading.response.sample for reading in found] == [0, 1, 2]
    assert [len(reading.rows) for reading in found] == [3, 3, 3] and engine.captured == 1
