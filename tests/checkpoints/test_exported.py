"""What an export holds beside its weights: a tokenizer as it was, and a config for two versions of transformers."""

import json

import pytest
from transformers import AutoConfig, Gemma3TextConfig, LlamaConfig, Olmo3Config, Phi3Config, Qwen3Config, StableLmConfig

from nex_merge.checkpoints.exported import add_older_names, copy_tokenizer, forget_places, needs_transformers_5

SMALL = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "rope_theta": 5e5}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def flat(kind="default", theta=1e6, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


def by_layer(full, local=1e4):
    return {
        "rope_parameters": {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    }


@pytest.mark.parametrize(
    ("kind", "settings", "older"),
    [
        (Qwen3Config, flat(), {"rope_theta": 1e6, "rope_scaling": None}),
        (LlamaConfig, flat("linear", 5e5, factor=8.0),
         {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        (StableLmConfig, flat(partial_rotary_factor=0.5),
         {"rope_theta": 1e6, "rope_scaling": None, "partial_rotary_factor": 0.5}),
        (Gemma3TextConfig, by_layer({"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}),
         {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        (Olmo3Config, by_layer(YARN, 5e5),
         {"rope_theta": 5e5, "rope_scaling": {name: YARN[name] for name in YARN if name != "rope_theta"}}),
        # Not the same model for both.
        (Olmo3Config, by_layer(YARN, 1e4), None),
        (Phi3Config, {"rope_parameters": LONG, "original_max_position_embeddings": 512}, None),
    ],
)  # fmt: skip
def test_rotary_settings_have_both_names_where_both_can_express_them(tmp_path, kind, settings, older):
    kind(**SMALL, **settings, dtype="bfloat16").save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert needs_transformers_5(tmp_path)
    add_older_names(tmp_path, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == before and written["torch_dtype"] == "bfloat16"
    if older is None:
        (reason,) = needs_transformers_5(tmp_path)
        assert reason == "config.json has rotary frequencies that transformers 4 has no names for"
        assert "rope_theta" not in written and "rope_scaling" not in written
    else:
        assert written.items() >= older.items() and needs_transformers_5(tmp_path) == []


def test_a_member_that_has_the_older_names_keeps_them(tmp_path):
    """phi3's own form has a third of the keys that another model's would."""
    member, folder = tmp_path / "member", tmp_path / "out"
    scaling = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    Phi3Config(**SMALL, original_max_position_embeddings=512).save_pretrained(member)
    content = json.loads((member / "config.json").read_text())
    del content["rope_parameters"]
    content |= {"rope_theta": 2e4, "rope_scaling": scaling}
    (member / "config.json").write_text(json.dumps(content))
    AutoConfig.from_pretrained(member).save_pretrained(folder)
    add_older_names(folder, member)
    written = json.loads((folder / "config.json").read_text())
    assert written["rope_scaling"] == scaling and written["rope_theta"] == 2e4
    assert needs_transformers_5(folder) == []


def test_names_that_would_change_the_model_are_not_added(tmp_path, monkeypatch):
    from nex_merge.checkpoints import exported

    Qwen3Config(**SMALL, **flat()).save_pretrained(tmp_path)
    monkeypatch.setattr(exported, "_older_rope", lambda *_: {"rope_scaling": {"rope_type": "linear", "factor": 2.0}})
    add_older_names(tmp_path, tmp_path)
    assert "rope_scaling" not in json.loads((tmp_path / "config.json").read_text())


def test_all_files_of_a_tokenizer_are_copied_as_they_are(tmp_path):
    member, folder = tmp_path / "member", tmp_path / "out"
    names = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "additional_chat_templates/tool_use.jinja"]
    for name in [*names, "config.json", "requirements.txt"]:
        (member / name).parent.mkdir(parents=True, exist_ok=True)
        (member / name).write_text(f"{name}\r\n")
    (member / "tokenizer.model").symlink_to(member / "vocab.txt")
    folder.mkdir()
    copies = copy_tokenizer(member, folder)
    assert sorted(str(path.relative_to(folder)) for path in copies) == sorted([*names, "tokenizer.model"])
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(copies)
    for path in copies:
        assert not path.is_symlink() and path.read_bytes() == (member / path.relative_to(folder)).read_bytes()


@pytest.mark.parametrize(
    "content", [{"tokenizer_class": "TokenizersBackend"}, {"extra_special_tokens": ["<x>"], "tokenizer_class": "Any"}]
)
def test_a_tokenizer_that_transformers_5_wrote(tmp_path, content):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
    assert needs_transformers_5(tmp_path) == ["transformers 5 wrote its tokenizer"]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Any", "extra_special_tokens": {"x": "<x>"}}')
    assert needs_transformers_5(tmp_path) == []


def test_places_of_this_machine_are_left_out_and_nothing_else(tmp_path):
    others = {"pad_token": "/", "unk_token": "/tmp", "vocab_file": "/no/such/file", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(others))
    before = (tmp_path / "tokenizer_config.json").read_bytes()
    (tmp_path / "config.json").write_text(
        json.dumps({"_name_or_path": str(tmp_path), "a": {"b": str(tmp_path), "c": 1}})
    )
    assert forget_places(tmp_path) == ["config.json: _name_or_path, a.b left out: a path of this machine"]
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": {"c": 1}}
    assert (tmp_path / "tokenizer_config.json").read_bytes() == before
