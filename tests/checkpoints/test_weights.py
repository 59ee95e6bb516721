"""Tensors are those that transformers and mergekit both read; damage is named with the file."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.errors import InputError
from tests.checkpoints.conftest import rewrite, shard, write_index

pytestmark = pytest.mark.quick
SECOND = "model-00002-of-00002.safetensors"


def test_what_is_read_of_one_file_and_of_shards(folder, toy):
    whole = stored_tensors(folder)
    assert whole["model.norm.weight"].dtype == "BF16" and whole["model.norm.weight"].shape == [16]
    assert {tensor.file for tensor in whole.values()} == {folder / "model.safetensors"}
    weight_map = shard(folder)
    save_file({"layers.0.wq": torch.zeros(2)}, folder / "consolidated.safetensors")
    save_file({"model.norm.weight": torch.zeros(2)}, folder / "model-00003-of-00003.safetensors")
    assert {name: tensor.file.name for name, tensor in stored_tensors(folder).items()} == weight_map
    assert {name: tensor.shape for name, tensor in stored_tensors(folder).items()} == {
        name: tensor.shape for name, tensor in whole.items()
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file: this checkpoint is incomplete"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), r"expected [\d,]+ bytes, got [\d,]+: cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), r"cut short or no safetensors file at all \(100 byt"),
        (lambda path: path.write_bytes(path.read_bytes()[:4]), "cut short or no safetensors file at all"),
        (lambda path: path.write_bytes(bytes(5000)), "a file with a broken header"),
        (lambda path: path.write_bytes(path.read_bytes() + b"xx"), "not readable as safetensors"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda path: path.write_bytes(b""), "an empty file; fetch or copy it again"),
        (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "zip archive or pickled weights"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(100)), "GGUF weights under another name"),
        (lambda path: path.write_text("<html>Sign in</html>"), "a web page"),
        (lambda path: save_file({}, path), "holds no tensors"),
    ],
)
def test_a_damaged_shard_is_named(folder, damage, message):
    shard(folder)
    damage(folder / SECOND)
    with pytest.raises(InputError, match=rf"{SECOND}: .*{message}"):
        stored_tensors(folder)


FIRST = SECOND.replace("00002-of", "00001-of")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: {**names, "model.norm.weight": FIRST}, f"is said to be in {FIRST}, but it is in {SECOND}"),
        (lambda names: {**names, "ghost": FIRST}, "ghost is said to be in .+, but no shard holds it"),
        (lambda names: {k: v.replace("of-00002", "of-00003") for k, v in names.items()}, "00001-of-00003.+no such fil"),
        (lambda names: {k: v for k, v in names.items() if k != "model.norm.weight"}, "which the index does not name"),
        (lambda names: {}, "expected a mapping weight_map"),
        (lambda names: dict.fromkeys(names, "../x.safetensors"), r"in this folder, got '\.\./x\.safetensors'"),
        (lambda names: dict.fromkeys(names, "pytorch_model.bin"), r"got 'pytorch_model\.bin'"),
        (lambda names: dict.fromkeys(names, 5), "got 5"),
    ],
)
def test_an_index_that_does_not_fit_its_files(folder, change, message):
    write_index(folder, change(shard(folder)))
    with pytest.raises(InputError, match=message):
        stored_tensors(folder)


def test_weights_that_transformers_and_mergekit_would_read_from_different_files(folder, toy):
    write_index(folder, dict.fromkeys(stored_tensors(folder), "model.safetensors"))
    assert len(stored_tensors(folder)) == 24, "an index of the one file is harmless"
    (folder / "model.safetensors.index.json").unlink()
    shard(folder)
    shutil.copy(toy["b"] / "model.safetensors", folder)
    with pytest.raises(InputError, match=r"two sets of weights: transformers reads model\.safetensors, mergekit the"):
        stored_tensors(folder)


def test_a_tensor_in_two_shards(folder):
    weight_map = shard(folder)
    (folder / "model.safetensors").hardlink_to(folder / SECOND)
    rewrite(folder, lambda tensors: tensors | {next(iter(weight_map)): torch.zeros(2)})
    (folder / "model.safetensors").replace(folder / SECOND)
    with pytest.raises(InputError, match=f"{FIRST} holds, too"):
        stored_tensors(folder)
