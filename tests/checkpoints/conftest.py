"""Copies of the toy checkpoints, to be damaged."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file


def edit(path: Path, **changes) -> None:
    """Change a JSON file; a value of ... takes the key out."""
    data = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        data.pop(key, None) if value is ... else data.__setitem__(key, value)
    path.write_text(json.dumps(data))


def rewrite(folder: Path, change) -> None:
    """Store `change(tensors)` as the tensors of a checkpoint."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path, {"format": "pt"})


def shard(folder: Path) -> dict[str, str]:
    """Split a checkpoint into two shards. Returns its weight_map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[:10], names[10:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def folder(toy, tmp_path) -> Path:
    """A copy of the toy expert `a`, to be changed."""
    return Path(shutil.copytree(toy["a"], tmp_path / "a"))
