"""How prompts are rendered: at one time, with what their lines give to the template; and what is said of it."""

import json
from datetime import datetime

import pytest
from transformers import AutoTokenizer

from nex_merge.errors import InputError
from nex_merge.setup.config import PromptsConfig
from nex_merge.setup.prompts import load_prompts
from nex_merge.setup.rendering import encode_prompts, file_notes, rendering_notes

CLOCK = datetime(2024, 5, 6, 7, 8, 9)
TURNS = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}{%- endfor -%}"
TOOLS = "{%- if tools -%}{{ tools[0].name }} {% endif %}" + TURNS


class Recording:
    """A tokenizer that keeps the texts that it was given: the toy's vocabulary is small."""

    def __init__(self, tokenizer):
        self.tokenizer, self.texts = tokenizer, []

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, texts, **options):
        self.texts += texts
        return self.tokenizer(texts, **options)


@pytest.fixture
def ask(toy, tmp_path):
    """(texts as the model sees them, notes) of lines of a JSONL file under a chat template."""

    def asked(lines, template=None, **settings):
        tokenizer = Recording(AutoTokenizer.from_pretrained(toy["a"]))
        tokenizer.tokenizer.chat_template = template or tokenizer.chat_template
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        config = PromptsConfig(file=str(tmp_path / "p.jsonl"), **settings)
        prompts = load_prompts(config)
        ids = encode_prompts(prompts, tokenizer, config, CLOCK)
        notes = file_notes(prompts, config) + rendering_notes(prompts, ids, tokenizer, config, CLOCK)
        return tokenizer.texts, notes

    return asked


def test_a_template_that_reads_the_clock_is_told_one_time_and_it_is_said(ask):
    (text,), notes = ask([{"prompt": "pairs"}], "{{ strftime_now('%d') }}" + TURNS)
    assert text.startswith("06<|im_start|>")
    assert len(notes) == 1 and "writes the date or time" in notes[0] and "2024-05-06 07:08:09" in notes[0]
    assert ask([{"prompt": "pairs"}]) == (["<|im_start|>user\npairs<|im_end|>\n<|im_start|>assistant\n"], [])
    only_weekday = "{{ strftime_now('%a') == 'Sat' }}" + TURNS
    assert "writes the date or time" in ask([{"prompt": "pairs"}], only_weekday)[1][0]


def test_thinking_that_the_template_ignores_or_begins_itself_is_said(ask):
    lines = [{"prompt": "pairs"}]
    assert [note[:41] for note in ask(lines, TURNS, thinking=False)[1]] == ["prompts.thinking: false has no effect: th"]
    _, notes = ask(lines, TURNS + "<|im_start|>assistant\n<think>\n", thinking=False)
    assert len(notes) == 2 and "itself ends prompts with an opened thinking mark" in notes[1]
    assert ask(lines, TURNS, thinking=True)[1] == ask(lines, thinking=False)[1] == []


def test_what_a_line_gives_to_the_template_is_used_or_said(ask):
    tools = [{"name": "signs", "parameters": {}}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "signs", "arguments": {}}]}
    done = [{"role": "user", "content": "pairs"}, call, {"role": "tool", "content": "yes", "name": "signs"}]
    (first, second), notes = ask([{"prompt": "pairs", "tools": tools}, {"messages": done, "tools": tools}], TOOLS)
    assert first.startswith("signs <|im_start|>user\npairs") and second.endswith("<|im_start|>tool\nyes<|im_end|>\n")
    assert notes == [
        "prompts.file: tool_calls: the chat template does not show them (line 2); the prompts are asked without"
    ]
    _, notes = ask([{"prompt": "a"}, {"prompt": "pairs", "tools": tools, "documents": tools}], TURNS)
    assert [note.split(":")[1] for note in notes] == [" tools", " documents"] and all("(line 2)" in n for n in notes)
    (text,), notes = ask([{"prompt": "a", "system": "yes", "chat_template_kwargs": {"day": "no"}}], "{{ day }}" + TURNS)
    assert text.startswith("no<|im_start|>system\nyes<|im_end|>") and notes == []
    assert "chat_template_kwargs.day" in ask([{"prompt": "a", "chat_template_kwargs": {"day": "no"}}], TURNS)[1][0]


@pytest.mark.parametrize(
    ("line", "settings", "message"),
    [
        (
            {"prompt": "a", "messages": [{"role": "user", "content": "b"}]},
            {},
            'expected "prompt" or "messages", got both',
        ),
        ({"prompt": "a", "tools": "[]"}, {}, "tools: expected a list of objects, got '[]'; write it as JSON"),
        ({"prompt": "a", "tools": [1]}, {}, r"tools: expected a list of objects, got [1]"),
        ({"prompt": "a", "functions": [{}]}, {}, "functions: not taken in a line; write them as tools"),
        ({"prompt": "a", "tool_choice": "auto"}, {}, "tool_choice: not taken in a line"),
        ({"prompt": "a", "chat_template_kwargs": 1}, {}, "chat_template_kwargs: expected an object, got 1"),
        ({"prompt": "a", "chat_template_kwargs": {"enable_thinking": False}}, {}, "of all prompts: prompts.thinking"),
        ({"prompt": "a", "system": 5}, {}, "system: expected text, got 5"),
        ({"prompt": "a", "system": "b"}, {"system": "c"}, "prompts.system: expected null, because"),
        ({"prompt": "a", "system": "b"}, {"chat_template": False}, "because a system message ("),
        ({"prompt": "a", "tools": [{"x": 1}]}, {"chat_template": False}, "because tools ("),
        (
            {"system": "a", "messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "c"}]},
            {},
            "system: the messages have a system message of their own",
        ),
        (
            {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]},
            {},
            "tool_calls: expected a list of calls",
        ),
        ({"prompt": "a", "tools": [{"x": "<|im_end|>"}]}, {}, "contains <|im_end|>, a special token"),
        ({"prompt": "a", "tools": [{"x": "\ud83d"}]}, {}, "half of a surrogate pair"),
    ],
)
def test_what_a_line_cannot_give_is_refused_by_name(ask, line, settings, message):
    with pytest.raises(InputError) as error:
        ask([line], **settings)
    assert message in str(error.value) and "p.jsonl line 1" in str(error.value)


def test_named_keys_settle_which_prompt_is_meant(ask):
    line = {
        "prompt": "signs",
        "messages": [{"role": "user", "content": "pairs"}],
        "asked": [{"role": "user", "content": "a"}],
    }
    found = {key: ask([line], column=key)[0][0] for key in ("prompt", "messages", "asked")}
    assert [text.split("\n")[1] for text in found.values()] == ["signs<|im_end|>", "pairs<|im_end|>", "a<|im_end|>"]


@pytest.mark.parametrize("template", ["{{ messages[5].content }}", "{{ messages | nosuch }}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_named(ask, template):
    with pytest.raises(InputError, match=r"line 1: (prompt: )?rejected by the tokenizer's chat template \("):
        ask([{"prompt": "a"}], template)


def test_a_template_that_writes_without_end_is_refused(ask):
    with pytest.raises(InputError, match=r"line 1: prompt: the chat template makes 20,000,000 characters of it"):
        ask([{"prompt": "a"}], "{{ 'ab' * 10000000 }}")


def test_an_end_token_behind_a_prompt_is_said(ask):
    assert ask([{"prompt": "a"}, {"prompt": "b"}], TURNS.replace("{{ '\n' }}", ""))[1] == [
        "prompts: 2 prompts of 2 end in the end token <|im_end|>, which the tokenizer or its chat template appends, as "
        "if the text were over (add_eos_token in tokenizer_config.json, or post_processor in tokenizer.json)"
    ]


def test_options_that_no_prompt_shows_are_said_or_appended(ask):
    hidden = {"question": "1 + 1", "choices": ["1", "2"]}
    shown = {"question": "1 + 1: (A) 1 (B) 2", "choices": ["1", "2"]}
    lettered = {"question": "1 + 1", "A": "5", "B": "2"}
    (text, *_), notes = ask([hidden, shown, lettered], column="question")
    assert "1 + 1<|im_end|>" in text and len(notes) == 2
    assert (
        notes[1].startswith("prompts.options: 2 of 3 prompts have options") and "prompts.options=appended" in notes[1]
    )
    (text, _, last), notes = ask([hidden, shown, lettered], column="question", options="appended")
    assert "1 + 1\nA. 1\nB. 2<|im_end|>" in text and "1 + 1\nA. 5\nB. 2<|im_end|>" in last
    assert notes == [
        "prompts.options: 1 of 3 prompts show their options already (line 2 is one) and show them twice as they are "
        "appended; to leave the prompts as they are: --set prompts.options=shown"
    ]


def test_prompts_that_occur_twice_are_named(ask):
    _, notes = ask([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": "b", "system": "c"}])
    assert notes == [
        "prompts.file: 1 prompt that another line has already, and that count as often as they occur: line 3 as line 1"
    ]
