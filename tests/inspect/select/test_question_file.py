"""Input files and settings of `nex-merge select`."""

import pytest

from nex_merge.engines.loading import load_tokenizer
from nex_merge.errors import InputError
from nex_merge.inspect.select.question_file import encode_texts, read_questions, read_settings
from nex_merge.setup.config import PromptsConfig


@pytest.mark.parametrize(
    ("lines", "match", "sampled", "message"),
    [
        ("", "text", False, "RESPONSES: expected at least one prompt, got none"),
        ("{", "text", False, "line 1: not valid JSON"),
        ("[1]", "text", False, "expected one JSON object per line, got a JSON array"),
        (
            '{"prompt": "x"}',
            "text",
            False,
            'line 1: expected "responses" with a list of texts, got none. To generate them, use --samples N',
        ),
        ('{"prompt": "x", "responses": []}', "text", False, "with a list of texts, got '[]'"),
        ('{"prompt": "x", "responses": ["a", 3]}', "text", False, "with a list of texts, got \"['a', 3]\""),
        (
            '{"prompt": "x", "responses": ["a"]}',
            "text",
            True,
            "line 1: expected no responses, because --samples generates them",
        ),
        (
            '{"prompt": "x", "responses": ["a"], "answer": "z"}',
            "number",
            False,
            "line 1: answer 'z' cannot be read as number",
        ),
        (
            '{"prompt": "x", "answer": 4}\n\n{"prompt": "y"}',
            "text",
            True,
            "line 3: expected an answer, because other lines have one, got none",
        ),
        ('{"prompt": "x"}', "fuzzy", True, "--match: expected number, choice, text or regex:PATTERN, got 'fuzzy'"),
    ],
)
def test_invalid_questions_are_rejected(tmp_path, lines, match, sampled, message):
    (tmp_path / "r.jsonl").write_text(lines + "\n")
    with pytest.raises(InputError) as error:
        read_questions(PromptsConfig(file=str(tmp_path / "r.jsonl")), match, sampled)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("samples", "settings", "message"),
    [
        (
            4,
            {"generation": {"temperature": 0}},
            "generation.temperature: expected a positive number, got 0: all 4 samples would be equal",
        ),
        (4, {"generation": {"samples": 2}}, "--set generation.samples: not allowed; use --samples N"),
        (None, {"generation": {"top_p": 0.9}}, "--set generation: requires --samples N"),
        (None, {"prompts": {"file": "x"}}, "--set prompts.file: not allowed, because the argument RESPONSES sets it"),
        (None, {"activation": {}}, "unknown key 'activation'. Did you mean 'activations'?"),
        (None, {"prompts": 3}, "prompts: expected a mapping, got 3"),
    ],
)
def test_contradictory_settings_are_rejected(samples, settings, message):
    with pytest.raises(InputError) as error:
        read_settings("r.jsonl", samples, settings)
    assert message in str(error.value)


def test_a_single_sample_may_be_greedy():
    assert read_settings("r.jsonl", 1, {"generation": {"temperature": 0}}).generation.temperature == 0
    assert read_settings("r.jsonl", 16, {}).generation.temperature > 0


def test_settings_override_a_familys_defaults():
    defaults = {"generation": {"max_new_tokens": 832}, "activations": {"slice_tokens": 5, "top_k": 64}}
    config = read_settings("r.jsonl", 4, {"activations": {"top_k": 8}}, defaults)
    assert (config.activations.slice_tokens, config.activations.top_k) == (5, 8)
    assert (config.generation.max_new_tokens, config.generation.samples) == (832, 4)


def test_texts_are_tokenized_unchanged(toy, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"prompt": "pairs", "responses": ["a= a1 a2", "a= a1 a2<|im_end|>", ""]}\n')
    questions = read_questions(PromptsConfig(file=str(tmp_path / "r.jsonl")), "text", False)
    tokenizer = load_tokenizer(toy["a"])
    first, ended, empty = encode_texts(questions, [[1, 2]], tokenizer, 100)
    assert tokenizer.decode(first.token_ids) == "a= a1 a2" and first.prompt_ids == (1, 2)
    assert ended.text == first.text == "a= a1 a2"
    assert ended.token_ids == (*first.token_ids, tokenizer.eos_token_id) and empty.token_ids == ()
    with pytest.raises(InputError) as error:
        encode_texts(questions, [[1, 2]], tokenizer, 4)
    assert (
        "line 1: response 0: expected at most 2 tokens, got 3: the prompt has 2 tokens and the model's context is 4"
        in str(error.value)
    )
