"""What the run folder keeps comes back as it was."""

import pytest

from nex_merge.errors import InputError
from nex_merge.records import Response
from nex_merge.runs import files


def test_responses_survive_any_character(tmp_path):
    odd = [Response(i, 0, (1,), (2, 3), f"a{c}b", False) for i, c in enumerate("\u2028\u2029\x85\r\n\x00\ud7ff")]
    files.write_responses(tmp_path, odd)
    assert files.read_responses(tmp_path) == odd


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt_ids": [1]}', '{"prompt_ids": [1], "token_ids": [2], "odd": 1}'])
def test_a_response_that_is_none_is_named(tmp_path, line):
    files.write_responses(tmp_path, [Response(0, 0, (1,), (2,), "a", False)])
    with open(tmp_path / files.RESPONSES, "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"responses\.jsonl line 2: invalid response"):
        files.read_responses(tmp_path)
