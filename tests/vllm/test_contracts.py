"""The suite that every engine passes, with vLLM answering."""

import pytest

from nex_merge.engines.vllm_engine import VllmEngine
from nex_merge.setup.config import RuntimeConfig
from tests.engines.test_contracts import *  # noqa: F403
from tests.engines.test_contracts import family_of, variants


@pytest.fixture(scope="module")
def engine(toy):
    engine = VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))
    engine.load(variants(toy)[0])
    return engine


@pytest.fixture
def loading(engine):
    return engine
