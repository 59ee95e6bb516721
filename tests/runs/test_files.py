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


def test_a_file_appears_whole_where_folders_can_not_be_opened(tmp_path, monkeypatch):
    """As on Windows, where a folder can't be opened to make a rename in it last."""
    tried = []

    def refuses(path, *args):
        tried.append(path)
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files.os, "open", refuses)
    files.write_atomically(tmp_path / "new" / "a.json", "[1]")
    files.write_atomically(tmp_path / "new" / "a.json", "[2]")
    monkeypatch.undo()
    assert tried == [tmp_path / "new"] * 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_text() == "[2]"


def test_what_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "a.json", "[1]")
    monkeypatch.setattr(files.os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.write_atomically(tmp_path / "a.json", "[2]")
    assert (tmp_path / "a.json").read_text() == "[1]"
