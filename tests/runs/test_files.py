"""What the run folder keeps comes back as it was."""

import pytest

from nex_merge.runs import files
from nex_merge.errors import InputError
from nex_merge.records import NexScore, Response, Rivals, TextMeasures, TrialResult


def test_responses_survive_any_character(tmp_path):
    odd = [Response(i, 0, (1,), (2, 3), f"a{c}b", False) for i, c in enumerate("\u2028\u2029\x85\r\n\x00\ud7ff")]
    files.write_responses(tmp_path, odd)
    assert files.read_responses(tmp_path) == odd


def test_results_survive(tmp_path):
    score = NexScore(0.5, 0.3, 0.4, 0.6, "self", (0.5, None), 2, 1, 3, 1, 0.5, {"zero_spread": 1}, 0.4, 0.1, 0.9)
    text = TextMeasures(0.1, 0.9, 0.0, 0.0, 0.0)
    rivals = Rivals(10.0, 0.1, 0.1, 1.0, 1.1, 0.2, None)
    result = TrialResult("0003", "merge", "ties", "ties", 7, "complete", None, {"w": 1.0}, score, text, rivals, -0.5)
    files.write_result(tmp_path, result)
    assert files.read_result(tmp_path, "0003") == result


def test_a_result_that_is_none(tmp_path):
    path = files.trial_folder(tmp_path, "0001") / files.RESULT
    files.write_atomically(path, '{"trial": "0001"}')
    with pytest.raises(InputError, match="is no result that this version wrote"):
        files.read_result(tmp_path, "0001")


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt_ids": [1]}', '{"prompt_ids": [1], "token_ids": [2], "odd": 1}'])
def test_a_response_that_is_none_is_named(tmp_path, line):
    files.write_responses(tmp_path, [Response(0, 0, (1,), (2,), "a", False)])
    with open(tmp_path / files.RESPONSES, "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"responses\.jsonl line 2: is no response that this version wrote"):
        files.read_responses(tmp_path)
