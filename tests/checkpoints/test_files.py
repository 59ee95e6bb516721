"""Folders and JSON files: what is wrong is named with file, line and what to do."""

import os
import shutil

import pytest

from nex_merge.checkpoints import files
from nex_merge.checkpoints.files import check_folder, leftovers, read_json
from nex_merge.errors import InputError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": }', r"x\.json: not valid JSON \(line 2: .+\); correct it, or fetch or copy it again"),
        ("", "expected JSON, got an empty file"),
        ("[1]", r"expected a JSON object \(\{\.\.\.\}\), got a list"),
        ("null", "got null"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer .+ `git lfs pull`"),
        ("<!DOCTYPE html><html>", "got a web page"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


def test_json_with_a_byte_order_mark_is_read_and_other_encodings_are_not(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_json(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file: this checkpoint is incomplete"):
        read_json(path)
    path.mkdir()
    with pytest.raises(InputError, match="expected a file, got a folder"):
        read_json(path)


def test_files_and_folders_without_permission(folder, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != folder / "config.json")
    with pytest.raises(InputError, match=r"config\.json: no permission to read this file; change it with chmod u\+r"):
        check_folder(folder)
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != folder)
    with pytest.raises(InputError, match=r"/a: no permission to read this folder; change it with chmod u\+rx"):
        check_folder(folder)


def snapshot(folder, tmp_path):
    """A checkpoint as the hub's cache holds it: links to blobs."""
    hub = tmp_path / "models--me--tiny"
    made = hub / "snapshots" / "0123abc"
    made.mkdir(parents=True)
    shutil.copytree(folder, hub / "blobs")
    for path in (hub / "blobs").iterdir():
        (made / path.name).symlink_to(os.path.relpath(path, made))
    return made


def test_a_damaged_file_of_the_hubs_cache_is_fetched_alone(folder, tmp_path):
    (folder / "config.json").write_text("{")
    made = snapshot(folder, tmp_path)
    with pytest.raises(InputError, match=r"hf download me/tiny config\.json --force-download --revision 0123abc$"):
        read_json(made / "config.json")


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_of_the_hubs_cache_whose_target_is_gone(folder, tmp_path, lost):
    made = snapshot(folder, tmp_path)
    check_folder(made)
    (tmp_path / "models--me--tiny" / "blobs" / lost).unlink()
    with pytest.raises(InputError, match=rf"{lost}: a link .+ incomplete; fetch it again: hf download me/tiny --rev"):
        check_folder(made)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", "no config.json: this download is incomplete"),
        ("model.safetensors", "got no weights: this down"),
    ],
)
def test_a_snapshot_of_which_a_file_was_not_fetched(folder, tmp_path, lost, message):
    made = snapshot(folder, tmp_path)
    (made / lost).unlink()
    with pytest.raises(InputError, match=f"{message}.+hf download me/tiny"):
        check_folder(made)
    if lost == "model.safetensors":
        check_folder(made, weights=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"got only pickled weights \(\*\.bin\), which are never loaded; convert it once"),
        ("model.pth", "got only pickled weights"),
        ("model-Q4_K_M.gguf", "got only GGUF weights .+ take the checkpoint in safetensors"),
        ("tf_model.h5", "got only TensorFlow weights"),
        ("consolidated.safetensors", r"only consolidated\*\.safetensors in the vendor's own format"),
        ("model-00001-of-00002.safetensors", r"shards without their index model\.safetensors\.index\.json"),
        ("model.fp16.safetensors", "got model.fp16.safetensors, which transformers does not read"),
        ("training_args.bin", "got no weights"),
    ],
)
def test_weights_that_are_not_read(folder, name, message):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(InputError, match=message):
        check_folder(folder)


def test_a_file_or_a_folder_of_checkpoints_in_place_of_one(folder, tmp_path):
    with pytest.raises(InputError, match=r"expected a checkpoint folder, got a file; use its folder, .+/a$"):
        check_folder(folder / "model.safetensors")
    with pytest.raises(InputError, match="got one that holds a; use one of these"):
        check_folder(tmp_path)


def adapter(folder, base="you/base"):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "base_model_name_or_path": "{base}"}}')
    return folder


def test_an_adapter_is_recognised_with_and_without_a_config(folder, tmp_path):
    bare = adapter(tmp_path / "bare")
    expected = r"got a LoRA adapter \(adapter_config\.json\).+: \{path: you/base, adapter: .+/bare\}"
    with pytest.raises(InputError, match=expected):
        check_folder(bare)
    shutil.copy(folder / "config.json", bare / "config.json")
    with pytest.raises(InputError, match=expected):
        check_folder(bare)
    (bare / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"\{path: BASE, adapter: "):
        check_folder(bare)


def test_an_adapter_left_beside_full_weights_is_ignored_and_said(folder):
    check_folder(adapter(folder))
    (folder / "consolidated.safetensors").write_bytes(b"x")
    (folder / "optimizer.pt").write_bytes(b"x")
    assert leftovers(folder, {folder / "model.safetensors"}) == [
        "adapter_config.json ignored: an adapter left beside full weights",
        "consolidated.safetensors ignored: weights are read from what model.safetensors or its index names",
    ]
