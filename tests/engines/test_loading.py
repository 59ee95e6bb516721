"""Checkpoints as trainers leave them: indexes without metadata, tokenizer files with values that are no tokens."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.engines.loading import load_model, load_tokenizer
from nex_merge.errors import InputError
from tests.checkpoints.conftest import edit, shard

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(toy, tmp_path) -> Path:
    return Path(shutil.copytree(toy["a"], tmp_path / "a"))


@pytest.mark.parametrize("metadata", [..., None])
def test_an_index_without_metadata_is_taken(folder, model, metadata):
    shard(folder)
    edit(folder / INDEX, metadata=metadata)
    loaded, report = load_model(folder, AutoConfig.from_pretrained(folder), torch.float32)
    assert not report["missing_keys"]
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_metadata_of_another_kind_is_refused(folder):
    shard(folder)
    edit(folder / INDEX, metadata=["x"])
    with pytest.raises(InputError, match=rf"{INDEX}: metadata: expected a mapping, got a list; remove the key"):
        stored_tensors(folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pad_token", ["<pad>"]),
        ("eos_token", []),
        ("pad_token", {"content": ["<pad>"]}),
        ("additional_special_tokens", "<pad>"),
        ("extra_special_tokens", [["<pad>"]]),
    ],
)
def test_a_special_token_that_is_none_is_named(folder, file, key, value):
    edit(folder / file, **{key: value})
    with pytest.raises(InputError, match=rf"{file}: {key}: expected a (list of )?token.*, got .+; correct the file"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_max_length": "x"}, r"tokenizer_config\.json: model_max_length: expected a number, got 'x'"),
        ({"tokenizer_class": ["x"]}, "cannot load a tokenizer: "),
    ],
)
def test_whatever_transformers_makes_of_a_wrong_value_is_no_traceback(folder, changes, message):
    edit(folder / "tokenizer_config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_tokenizer(folder)


def test_tokens_in_the_forms_that_transformers_takes(folder):
    path = folder / "tokenizer_config.json"
    pad = json.loads(path.read_text())["pad_token"]
    edit(path, pad_token={"__type": "AddedToken", "content": pad, "special": True}, extra_special_tokens={"a": pad})
    assert load_tokenizer(folder).pad_token == pad
