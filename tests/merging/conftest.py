"""Copies of the toy family, to be changed, and their merge."""

import shutil
from pathlib import Path

import pytest
import torch

from nex_merge.merging import Merger
from nex_merge.records import MergeRecipe


@pytest.fixture
def family(toy, tmp_path) -> dict[str, Path]:
    """Copies of base, a and b, to be changed."""
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in toy.items()}


def linear(folders, **config):
    models = [{"model": str(folders[name]), "parameters": {"weight": 0.5}} for name in ("a", "b")]
    made = {"merge_method": "linear", "models": models, "dtype": "float32", "out_dtype": "bfloat16", **config}
    return MergeRecipe("merge", "linear", made, 0)


def merged(folders):
    return Merger(folders, "base", "cpu", torch.float32).load(linear(folders))
