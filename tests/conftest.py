"""A toy family of random two-layer checkpoints, and the family that the package carries cut short, for quick runs."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="nex-merge-cache-")

import pytest
import torch
import yaml
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.postgres import BINARIES, Server
from toy.tokenizer import make_tokenizer

ROOT = Path(__file__).parents[1]


def make_toy(folder: Path, seed: int, **changes) -> Path:
    """A random checkpoint, bfloat16, with the tiny family's tokenizer."""
    tokenizer = make_tokenizer()
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "initializer_range": 0.3,
    }
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**{**settings, **changes})).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> dict[str, Path]:
    """name -> checkpoint folder of base, a and b."""
    root = tmp_path_factory.mktemp("toy")
    return {name: make_toy(root / name, seed) for seed, name in enumerate(["base", "a", "b"])}


@pytest.fixture(scope="session")
def model(toy):
    """The toy expert `a`, in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(toy["a"], dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tokenizer(toy):
    from nex_merge.engines.loading import load_tokenizer

    return load_tokenizer(toy["a"])


@pytest.fixture(scope="session")
def sliding(tokenizer):
    """A model whose layers attend to a window alone."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, sliding_window=6, initializer_range=0.5,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def toy_settings(toy, output: Path) -> dict:
    """A quick search over the toy family."""
    return {
        "family": {"base": str(toy["base"]), "models": {"a": str(toy["a"]), "b": str(toy["b"])}},
        "search_space": {
            "methods": ["ties"],
            "parameters": {"weight": {"low": 0.0, "high": 1.2}, "density": {"low": 0.2, "high": 1.0, "step": 0.05}},
        },
        "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 4},
        "generation": {"max_new_tokens": 24},
        "activations": {"slice_tokens": 2, "top_k": 8},
        "study": {"trials": 4},
        "output": str(output),
    }


@pytest.fixture
def toy_config(toy, tmp_path) -> Path:
    """A configuration file of a quick search over the toy family."""
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_settings(toy, tmp_path / "run")))
    return path


@pytest.fixture(scope="session")
def toy_run(toy, tmp_path_factory) -> Path:
    """The finished run of a quick search over the toy family, to be read only."""
    from nex_merge.setup.resolve import resolve_config
    from nex_merge.study.search import run_search

    folder = tmp_path_factory.mktemp("searched") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_search(resolve_config(toy_settings(toy, folder)))
    return folder


@pytest.fixture
def toy_run_copy(toy_run, tmp_path) -> Path:
    """A copy of that run, to be written to."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


def without_hashes(run: Path) -> Path:
    """A run folder as an earlier version left it: its study has no hashes, so that a test may plant what it likes."""
    with closing(sqlite3.connect(run / "study.db")) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes")
    return run


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server."""
    if BINARIES is None:
        assert os.environ.get("NEX_MERGE_POSTGRES") != "required", "NEX_MERGE_POSTGRES=required, but it's not installed"
        pytest.skip("PostgreSQL is not installed")
    server = Server()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request, tmp_path) -> str:
    """The URL of a new database, of either kind, that several runs may share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.db"
    return request.getfixturevalue("postgres").fresh()


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
