"""What is fetched from the hub and what is pushed to it, by the real client, against a stand-in."""

import json
import logging

import pytest

from nex_merge.checkpoints import hub
from nex_merge.errors import InputError
from nex_merge.setup.families import Location, locate, locate_adapter
from tests.standin_hub import READER, SHA, TOKEN, standing_in


@pytest.fixture
def standin(monkeypatch, tmp_path):
    with standing_in(monkeypatch, tmp_path / "cache") as found:
        yield found


# What lies in repositories beside a checkpoint, and is no business of ours.
OTHERS = [
    "pytorch_model.bin", "consolidated.safetensors", "model.gguf", "original/params.json", "original/tokenizer.model",
    "original/consolidated.00.pth", "onnx/model.onnx", "onnx/config.json", "flax_model.msgpack", "figures/plot.png",
    "modeling_x.py", "optimizer.pt", "openvino/openvino_model.xml",
]  # fmt: skip


def test_of_a_repository_only_what_is_read_is_fetched_and_only_once(standin, toy):
    files = {path.name: path.read_bytes() for path in toy["a"].iterdir()}
    index = {"metadata": {}, "weight_map": {"x": "model-00001-of-00001.safetensors"}}
    files["model-00001-of-00001.safetensors"] = files.pop("model.safetensors")
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    files["additional_chat_templates/tool.jinja"] = b"x"
    files["README.md"] = b"---\nlicense: other\nlicense_name: mine\n---\n"
    standin.repos["you/model"] = files | dict.fromkeys(OTHERS, b"{}")
    folder = locate(Location(path="you/model"), "family x: a")
    assert sorted(standin.files_fetched()) == sorted(files)
    assert folder.name == SHA and hub.licence_of(folder) == "mine"
    assert locate(Location(path="you/model"), "family x: a") == folder
    assert sorted(standin.files_fetched()) == sorted(files), "once"


def test_an_adapter_is_fetched_without_the_checkpoint_beside_it(standin):
    config = json.dumps({"peft_type": "LORA"}).encode()
    standin.repos["you/lora"] = {"adapter_config.json": config, "adapter_model.safetensors": b"x"}
    standin.repos["you/lora"] |= dict.fromkeys([*OTHERS, "adapter_model.bin", "model.safetensors"], b"{}")
    assert locate_adapter("you/lora", "family x: a").name == SHA
    assert sorted(standin.files_fetched()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("model.safetensors", "README.md", "config.json", hub.IDENTITY):
        (folder / name).write_bytes(name.encode() * 3)
    return folder


def test_a_push_is_one_commit_and_private_unless_asked_otherwise(standin, export, caplog):
    with caplog.at_level(logging.DEBUG):
        pushed = hub.push(export, "mine", False, "Trial 3")
    assert pushed == hub.Pushed("me/mine", f"{standin.url}/me/mine/commit/{SHA}", True)
    there = standin.repos["me/mine"]
    assert there == {".gitattributes": b""} | {path.name: path.read_bytes() for path in export.iterdir()}
    assert standin.commits == ["Trial 3"] and TOKEN not in caplog.text
    # An earlier export gives way as a whole; what somebody added stays.
    there |= {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"old", "notes.md": b"mine"}
    hub.push(export, "me/mine", False, "Trial 4")
    assert sorted(there) == sorted([".gitattributes", "notes.md", *(path.name for path in export.iterdir())])
    assert len(standin.commits) == 2 and not hub.push(export, "me/open", True, "Trial 3").is_private


@pytest.mark.parametrize(
    ("repo", "token", "said"),
    [
        ("me/other", TOKEN, r"it holds something that isn't an export of nex-merge \(a.bin, b, c and 1 more\)"),
        ("me/open", TOKEN, "it is public; say --public"),
        ("me/mine", READER, r"the token may not write there \(not allowed to write\)"),
        ("me/mine", "hf_" + "x" * 34, r"the hub does not accept the token \(not allowed to write\); log in with"),
        ("me/mine", None, "there is no token; log in with `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_what_a_push_is_refused_for(monkeypatch, tmp_path, export, repo, token, said):
    with standing_in(monkeypatch, tmp_path / "cache", token) as standin:
        standin.repos |= {"me/other": dict.fromkeys(["a.bin", "b", "c", "d", "README.md"], b""), "me/open": {}}
        standin.public.add("me/open")
        with pytest.raises(hub.HubError, match=f"^{said}") as raised:
            hub.push(export, repo, False, "Trial 3")
    assert not standin.commits and "hf_" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_hub_that_is_not_there(monkeypatch, tmp_path, export):
    with standing_in(monkeypatch, tmp_path / "cache"):
        pass
    with pytest.raises(hub.HubError, match=r"^the hub cannot be reached: [^\n]+$"):
        hub.push(export, "me/mine", False, "Trial 3")
    with pytest.raises(InputError, match=r"^family x: a: you/m is not a local folder and could not be downloaded"):
        locate(Location(path="you/m"), "family x: a")


@pytest.mark.parametrize("name", ["a/b/c", "", "a b", "-x/y", "a--b"])
def test_names_that_no_repository_has(name):
    with pytest.raises(InputError, match=r"^--push: expected a repository on the Hugging Face hub .+, got "):
        hub.check_repo(name, "--push")
    hub.check_repo("owner/name", "--push")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        (b"---\nlicense: mit\n---\ntext", "mit"), (b"---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        (b"---\nlicense: other\nlicense_name: llama3\n---\n", "llama3"), (b"---\nlicense: other\n---\n", "other"),
        (b"---\nlicense: {a: b}\n---\n", None), (b"---\n- a\n---\n", None), (b"---\na: [\n---\n", None),
        (b"no metadata", None), (b"\xff\xfe", None), (None, None),
    ],
)  # fmt: skip
def test_a_licence_is_what_the_model_card_names(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card)
    assert hub.licence_of(tmp_path) == licence
