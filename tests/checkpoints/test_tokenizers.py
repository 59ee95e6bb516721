"""Ids are compared token by token, added ones included."""

import json
from types import SimpleNamespace

import pytest

from nex_merge.checkpoints.tokenizers import check_same_tokens, check_token_ids, read_vocabulary
from nex_merge.errors import InputError
from tests.checkpoints.conftest import edit

pytestmark = pytest.mark.quick


def change(folder, function):
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    function(data)
    path.write_text(json.dumps(data))
    return read_vocabulary(folder)


def add(number, content, **flags):
    return lambda data: data["added_tokens"].append({"id": number, "content": content, "special": True, **flags})


def swap(data):
    vocab = data["model"]["vocab"]
    first, second = list(vocab)[10:12]
    vocab[first], vocab[second] = vocab[second], vocab[first]


def test_equal_tokenizers(toy):
    assert check_same_tokens(read_vocabulary(toy["base"]), read_vocabulary(toy["a"])) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (swap, r"id 10 is '\w+' in base and '\w+' here"),
        (add(5, "<x>"), "id 5 is '<unk>' in base and '<x>' here"),
    ],
)
def test_one_id_with_two_tokens_is_refused(toy, folder, function, message):
    other = change(folder, function)
    with pytest.raises(InputError, match=message):
        check_same_tokens(read_vocabulary(toy["base"]), other)


def test_added_tokens_of_tokenizer_config_count(toy, folder):
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"7": {"content": "<odd>"}})
    with pytest.raises(InputError, match=r"id 7 is '.+' in base and '<odd>' here"):
        check_same_tokens(read_vocabulary(toy["base"]), read_vocabulary(folder))


def test_tokens_that_only_one_knows_are_noted(toy, folder):
    base, more = read_vocabulary(toy["base"]), change(folder, add(190, "<start>"))
    assert check_same_tokens(base, more) == ["tokenizer.json: 1 token only here, for example '<start>'"]
    assert check_same_tokens(more, base) == ["tokenizer.json: 1 token only in base, for example '<start>'"]


def test_merges_are_compared_whatever_their_spelling(toy, folder):
    def as_bpe(merges):
        return lambda data: data.update(model={"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges})

    pairs, text = change(folder, as_bpe([["a", "b"]])), change(folder, as_bpe(["a b"]))
    assert check_same_tokens(pairs, text) == []
    with pytest.raises(InputError, match="the merges of their tokenizers differ"):
        check_same_tokens(pairs, change(folder, as_bpe([])))


def test_a_unigram_vocabulary_is_read_in_order(folder):
    found = change(folder, lambda data: data.update(model={"vocab": [["<a>", 0.0], ["b", -1.0]]}, added_tokens=[]))
    assert found.tokens == {0: "<a>", 1: "b"} and found.merges is None


def test_named_templates_and_two_defaults_are_noted(toy, folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    default = (folder / "chat_template.jinja").read_text()
    named = [{"name": "default", "template": default}, {"name": "tool_use", "template": "{{ tools }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    base = read_vocabulary(toy["base"])
    assert check_same_tokens(base, read_vocabulary(folder)) == [], "the file takes precedence over the list"
    (folder / "chat_template.jinja").unlink()
    assert check_same_tokens(base, read_vocabulary(folder)) == [
        "chat template (tool_use) differs from base's; all variants are asked with the donor's"
    ]
    (folder / "chat_template.jinja").write_text(default)
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    assert check_same_tokens(base, read_vocabulary(folder)) == [
        "tokenizer_config.json has another chat template than chat_template.jinja; transformers uses the latter"
    ]


def test_other_rules_and_templates_are_noted(toy, folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}")

    def otherwise(data):
        data["normalizer"] = {"type": "Lowercase"}
        data["added_tokens"][3]["lstrip"] = True

    notes = check_same_tokens(read_vocabulary(toy["base"]), change(folder, otherwise))
    assert [note.split(" differs")[0] for note in notes] == [
        "tokenizer.json: normalizer", "tokenizer.json: added_tokens", "chat template",
    ]  # fmt: skip


def test_a_slow_tokenizer_is_told_how_to_be_converted(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        InputError, match=r"expected a fast tokenizer \(tokenizer\.json\), got none; copy the tokenizer"
    ):
        read_vocabulary(folder)
    (folder / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(InputError, match=r"got only tokenizer\.model; convert it once: AutoTokenizer\.from_pretrained"):
        read_vocabulary(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json: not valid JSON"),
        ("tokenizer.json", "{}", "expected a tokenizer of the tokenizers library"),
        ("tokenizer.json", '{"model": {"vocab": {"a": "x"}}}', "expected a tokenizer of the tokenizers library"),
        ("tokenizer_config.json", "{", "tokenizer_config.json: not valid JSON"),
        ("special_tokens_map.json", "[]", "special_tokens_map.json: expected a JSON object"),
        ("added_tokens.json", "", "added_tokens.json: expected JSON, got an empty file"),
    ],
)
def test_a_broken_file_is_named(folder, file, text, message):
    (folder / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_vocabulary(folder)


def test_a_template_that_is_not_utf8(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"chat_template\.jinja: expected UTF-8"):
        read_vocabulary(folder)


def test_ids_beyond_the_embeddings_name_token_and_prompt():
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda number: f"<{number}>", name_or_path="there")
    check_token_ids([[0, 189], [], [5]], 190, tokenizer)
    with pytest.raises(InputError, match=r"prompt 2: token '<190>' has id 190, .+ 190 rows \(ids up to 189\).+there"):
        check_token_ids([[0], [3, 190]], 190, tokenizer)
