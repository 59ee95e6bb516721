"""Settings that change what the tensors mean are told from harmless ones."""

import pytest
from transformers import GraniteConfig, Qwen3Config

from nex_merge.merging import behaviour_keys, differing_keys

pytestmark = pytest.mark.quick


def test_differing_keys_are_all_that_the_models_class_declares():
    one = GraniteConfig(embedding_multiplier=1.0, residual_multiplier=1.0, logits_scaling=1.0, attention_multiplier=0.2)
    other = GraniteConfig(embedding_multiplier=12.0, residual_multiplier=0.1, logits_scaling=8.0, hidden_size=64)
    differing = differing_keys(one, other)
    scales = {"embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier"}
    assert set(differing) == scales | {"hidden_size"} and differing["logits_scaling"] == (1.0, 8.0)
    assert set(behaviour_keys(differing)) == scales


def test_the_context_counts_where_the_rotary_embedding_depends_on_it():
    def config(length, kind):
        rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
        return Qwen3Config(max_position_embeddings=length, rope_parameters=rope)

    assert "max_position_embeddings" in differing_keys(config(64, "dynamic"), config(128, "dynamic"))
    assert differing_keys(config(64, "linear"), config(128, "linear")) == {}
