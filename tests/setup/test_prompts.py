"""Every format, the chat template, and the messages for what can't be read."""

import json

import pandas
import pytest

from nex_merge.errors import InputError
from nex_merge.search.trial import load_tokenizer
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.prompts import encode_prompts, load_prompts


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
        ("p.jsonl", '{"question": "a"}\n', 'line 1: found keys question; "prompt" with text, or "messages"'),
        ("p.jsonl", '{"prompt": ""}\n', "line 1"),
        ("p.jsonl", '{"messages": [{"role": "robot", "content": "x"}]}\n', "line 1"),
        ("p.jsonl", "[1]\n", "line 1: found list"),
        ("p.txt", "\n\n", "holds no prompts"),
        ("p.csv", "question\nx\n", "has no column 'prompt'; it has question"),
        ("p.csv", "prompt,b\nx,1\n,2\n", "row 2: prompt is"),
        ("p.doc", "x", "is .doc; .jsonl, .txt, .csv and .parquet are read"),
        ("p.parquet", "x", "can't be read as parquet"),
    ],
)
def test_what_can_not_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        load(tmp_path / name)
    assert message in str(error.value)


def test_chat_template_system_prompt_and_thinking(toy, tmp_path):
    tokenizer = load_tokenizer(toy["a"])
    (tmp_path / "p.txt").write_text("pairs 1 2\n")
    prompts = load(tmp_path / "p.txt")

    def text(**settings):
        [ids] = encode_prompts(prompts, tokenizer, PromptsConfig(file="p", **settings))
        return tokenizer.decode(ids).replace(" ", "")

    assert text() == "<|im_start|>user\npairs12<|im_end|>\n<|im_start|>assistant\n"
    assert text(thinking=False) == text() + "<think>\n\n</think>\n\n"
    assert text(system="yes").startswith("<|im_start|>system\nyes<|im_end|>\n<|im_start|>user")
    assert text(chat_template=False) == "pairs12"
    with pytest.raises(InputError, match="leaves no place for a system prompt"):
        text(chat_template=False, system="yes")
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        text()


def test_only_line_feeds_end_a_line(tmp_path):
    """Text may hold line separators that str.splitlines would cut at."""
    (tmp_path / "p.jsonl").write_text('\ufeff{"prompt": "a\u2028b\u0085c"}\n', encoding="utf-8")
    assert [p.raw for p in load_prompts(PromptsConfig(file=str(tmp_path / "p.jsonl")))] == ["a\u2028b\u0085c"]
    (tmp_path / "p.txt").write_text("a\u2028b\n", encoding="utf-8")
    assert len(load_prompts(PromptsConfig(file=str(tmp_path / "p.txt")))) == 1
