"""What servers and harnesses write beside a response that was cut off."""

import pytest

from nex_merge.answer_files.endings import Endings, read_cut
from nex_merge.errors import InputError


@pytest.mark.parametrize(
    "line",
    [
        {"truncated": True},
        {"finish_reason": "length"},  # OpenAI, vLLM
        {"finish_reason": "length", "stop_reason": None},
        {"stop_reason": "max_tokens", "stop_sequence": None},  # Anthropic
        {"finishReason": "MAX_TOKENS"},  # Gemini
        {"finish_reason": "FinishReason.MAX_TOKENS"},
        {"finish_reason": "max_length"},
        {"stopReason": "max_tokens"},  # Bedrock
        {"done_reason": "length"},  # Ollama
        {"finish_reason": "model_length"},  # Mistral
        {"finish_reason": {"type": "length", "length": 512}},  # SGLang
        {"stop_type": "limit", "stopped_limit": True},  # llama.cpp
        {"choices": [{"index": 0, "message": {"content": "13"}, "finish_reason": "length"}]},
        {"raw": {"choices": [{"finish_reason": "length"}]}},
        {"response_metadata": {"finish_reason": "length", "model": "m"}},
        {"details": {"finish_reason": "length", "generated_tokens": 20}},  # TGI
        {"incomplete_details": {"reason": "max_output_tokens"}, "status": "incomplete"},
        {"generations": [[{"generation_info": {"finish_reason": "length"}}]]},
    ],
)
def test_a_response_is_cut_in_every_spelling(line):
    seen = Endings()
    assert read_cut({"prompt": "a", "response": "13", **line}, "f line 1", 1, seen) == (True,)
    assert list(seen.notes("f")) == []


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"truncated": False, "finish_reason": "stop"},
        {"stop_reason": "end_turn"},
        {"finish_reason": "stop", "stop_reason": 128009},  # vLLM: the stop token
        {"finish_reason": "stop", "stop_reason": "User:\n"},  # vLLM: the stop sequence
        {"finish_reason": None},
        {"choices": ["length", "width"], "options": ["length"]},
        {"messages": [{"role": "assistant", "content": "x", "finish_reason": "length"}]},
        {"turns": [{"finish_reason": "length"}, {"finish_reason": "stop"}]},
    ],
)
def test_others_are_not(line):
    seen = Endings()
    assert read_cut({"prompt": "a", "response": "13", **line}, "f line 1", 1, seen) == (False,)
    assert list(seen.notes("f")) == []


def test_samples_have_one_each_or_share_one():
    seen = Endings()
    assert read_cut({"finish_reason": ["stop", "length", None]}, "f line 1", 3, seen) == (False, True, False)
    assert read_cut({"choices": [{"finish_reason": r} for r in ("length", "stop")]}, "f", 2, seen) == (True, False)
    assert read_cut({"truncated": True}, "f line 1", 2, seen) == (True, True)
    with pytest.raises(InputError, match=r"f line 1: finish_reason: expected one for each of 3 responses, got 2"):
        read_cut({"finish_reason": ["stop", "length"]}, "f line 1", 3, seen)
    with pytest.raises(InputError, match=r"f line 1: choices\[\].finish_reason: expected one for each of 1 response"):
        read_cut({"choices": [{"finish_reason": "stop"}, {"finish_reason": "stop"}]}, "f line 1", 1, seen)
    with pytest.raises(InputError, match=r"f line 1: truncated: expected true or false, got 'yes'|got yes"):
        read_cut({"truncated": "yes"}, "f line 1", 1, seen)


def test_contradictions_and_reasons_that_are_not_known_are_said():
    seen = Endings()
    assert read_cut({"truncated": False, "finish_reason": "length"}, "f", 1, seen) == (True,)
    assert read_cut({"truncated": True, "finish_reason": "stop"}, "f", 1, seen) == (True,)
    assert read_cut({"finish_reason": "bored"}, "f", 1, seen) == (False,)
    assert list(seen.notes("f")) == [
        "f: 2 responses with contradictory ends (truncated says that it ended, finish_reason that it was cut); they "
        "count as cut off",
        "f: finish_reason 'bored' of 1 response is not known; they count as ended by themselves",
    ]
