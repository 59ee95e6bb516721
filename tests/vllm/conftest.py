"""vLLM as the engine that answers. Skipped where it is not installed; `make test-vllm` has an environment with it.

vLLM on the CPU knows no heads of 8 units, so that those of the toy family are larger here.
"""

import os
from importlib.util import find_spec

import pytest

from tests.conftest import make_toy

if find_spec("vllm") is None:
    assert os.environ.get("NEX_MERGE_VLLM") != "required", "NEX_MERGE_VLLM=required, but vLLM is not installed"


def pytest_collection_modifyitems(items):
    if find_spec("vllm") is None:
        for item in items:
            if item.path.parent.name == "vllm":
                item.add_marker(pytest.mark.skip(reason="vLLM is not installed; make test-vllm"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    return {name: make_toy(root / name, seed, head_dim=32) for seed, name in enumerate(["base", "a", "b"])}
