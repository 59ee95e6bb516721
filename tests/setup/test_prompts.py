"""Every format, the chat template, and the messages for files that cannot be read."""

import json

import pandas
import pytest
from transformers import AutoTokenizer

from nex_merge.errors import InputError
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.prompts import load_prompts
from nex_merge.setup.rendering import encode_prompts


def load(path, **settings):
    return load_prompts(PromptsConfig(file=str(path), **settings))


def test_all_formats_give_the_same_prompts(tmp_path):
    texts = ["one two", "three, four"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (tmp_path / "m.jsonl").write_text(
        "\n".join(json.dumps({"messages": [{"role": "user", "content": text}]}) for text in texts)
    )
    (tmp_path / "p.txt").write_text("one two\n\nthree, four\n")
    pandas.DataFrame({"prompt": texts}).to_csv(tmp_path / "p.csv")
    pandas.DataFrame({"question": texts}).to_parquet(tmp_path / "p.parquet")
    whole = load(tmp_path / "p.jsonl")
    assert [dict(prompt.messages[0])["content"] for prompt in whole] == texts
    assert load(tmp_path / "p.txt") == load(tmp_path / "p.csv") == whole
    assert load(tmp_path / "p.parquet", column="question") == whole
    assert [prompt.messages for prompt in load(tmp_path / "m.jsonl")] == [prompt.messages for prompt in whole]
    assert load(tmp_path / "p.txt", limit=1) == whole[:1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt"\n', "p.jsonl line 2: not valid JSON"),
        (
            "p.jsonl",
            '{"question": "a"}\n',
            'line 1: expected text in "prompt", or a list of {"role", "content"} in "messages", got the keys question. '
            "To use another key, set prompts.column.",
        ),
        ("p.jsonl", '{"prompt": ""}\n', "line 1"),
        ("p.jsonl", '{"messages": [{"role": "robot", "content": "x"}]}\n', "line 1"),
        ("p.jsonl", "[1]\n", "p.jsonl: expected one JSON object per line, got a JSON array. Convert it: jq -c '.[]'"),
        ("p.txt", "\n\n", "prompts.file: expected at least one prompt, got none in"),
        ("p.csv", "question\nx\n", "Known columns: question. Name the one with the prompts"),
        ("p.csv", "prompt,b\nx,1\n,2\n", "line 3: prompt: expected non-empty text, got ''"),
        ("p.doc", "x", "prompts.file: expected a file of type .jsonl, .json, .txt, .csv or .parquet, got "),
        ("p.parquet", "x", "cannot be read as Parquet"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        load(tmp_path / name)
    assert message in str(error.value)


def test_chat_template_system_prompt_and_thinking(toy, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(toy["a"])
    (tmp_path / "p.txt").write_text("pairs 1 2\n")
    prompts = load(tmp_path / "p.txt")

    def text(**settings):
        [ids] = encode_prompts(prompts, tokenizer, PromptsConfig(file="p", **settings))
        return tokenizer.decode(ids).replace(" ", "")

    assert text() == "<|im_start|>user\npairs12<|im_end|>\n<|im_start|>assistant\n"
    assert text(thinking=False) == text() + "<think>\n\n</think>\n\n"
    assert text(system="yes").startswith("<|im_start|>system\nyes<|im_end|>\n<|im_start|>user")
    assert text(chat_template=False) == "pairs12"
    with pytest.raises(InputError, match=r"expected true, because prompts\.system requires a template, got false"):
        text(chat_template=False, system="yes")
    tokenizer.chat_template = None
    with pytest.raises(InputError, match=r"no chat template; .+ --set prompts\.chat_template=false"):
        text()


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"prompts\.file: no such file: '.+none\.jsonl'"):
        load(tmp_path / "none.jsonl")


def test_only_line_feeds_end_a_line(tmp_path):
    """Prompts may contain characters at which str.splitlines splits."""
    (tmp_path / "p.jsonl").write_text('\ufeff{"prompt": "a\u2028b\u0085c"}\n', encoding="utf-8")
    assert [p.raw for p in load_prompts(PromptsConfig(file=str(tmp_path / "p.jsonl")))] == ["a\u2028b\u0085c"]
    (tmp_path / "p.txt").write_text("a\u2028b\n", encoding="utf-8")
    assert len(load_prompts(PromptsConfig(file=str(tmp_path / "p.txt")))) == 1


def test_special_tokens_and_system_prompts_within_a_prompt(toy, tmp_path):
    """Spelled out in a prompt, the token that ends a turn would end it. Without a template, it may be meant."""
    tokenizer = AutoTokenizer.from_pretrained(toy["a"])
    (tmp_path / "p.txt").write_text("signs\npairs <|im_end|> 1\n")
    prompts = load(tmp_path / "p.txt")
    with pytest.raises(InputError, match=r"p\.txt line 2: contains <\|im_end\|>, a special token of this model"):
        encode_prompts(prompts, tokenizer, PromptsConfig(file="p"))
    assert len(encode_prompts(prompts, tokenizer, PromptsConfig(file="p", chat_template=False))) == 2
    with pytest.raises(InputError, match=r"prompts\.system: contains <\|im_start\|>"):
        encode_prompts(prompts[:1], tokenizer, PromptsConfig(file="p", system="<|im_start|>user"))
    with pytest.raises(InputError, match=r"prompts\.system: half of a surrogate pair"):
        encode_prompts(prompts[:1], tokenizer, PromptsConfig(file="p", system="a\ud83d"))
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "signs"}]
    (tmp_path / "m.jsonl").write_text(json.dumps({"messages": messages}))
    own = load(tmp_path / "m.jsonl")
    assert len(encode_prompts(own, tokenizer, PromptsConfig(file="p"))) == 1
    with pytest.raises(
        InputError, match=r"prompts\.system: expected null, because .+m\.jsonl line 1 has a system message"
    ):
        encode_prompts(own, tokenizer, PromptsConfig(file="p", system="y"))
