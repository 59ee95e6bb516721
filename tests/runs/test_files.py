"""What the run folder keeps comes back as it was."""

import re

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


@pytest.mark.parametrize(
    ("name", "endings", "refused"),
    [
        ("report.html", (".html",), None),
        ("P.HTM", (".html", ".htm"), None),
        ("plots/nex.png", (), None),
        ("precious.jsonl", (".html", ".htm"), "expected a file name that ends in .html, got "),
        ("study.db", (), "study.db belongs to the run in "),
        ("leaderboard.csv", (".csv",), "leaderboard.csv belongs to the run in "),
        ("tracking.mlflow.json", (".json",), "tracking.mlflow.json belongs to the run in "),
        ("trials/0/page.html", (".html",), "trials belongs to the run in "),
        ("link.html", (".html",), "trials belongs to the run in "),
    ],
)
def test_what_a_command_writes_is_no_file_of_a_run(tmp_path, name, endings, refused):
    (tmp_path / "trials").mkdir()
    (tmp_path / "config.yaml").touch()
    (tmp_path / "link.html").symlink_to(tmp_path / "trials" / "page.html")
    if refused is None:
        files.check_output_file(tmp_path / name, "--out", *endings)
        return
    with pytest.raises(InputError, match="^--out: .*" + re.escape(refused)):
        files.check_output_file(tmp_path / name, "--out", *endings)


def test_a_folder_in_which_trials_is_a_file_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "trials").write_text("1 2 3\n")
    files.check_output_file(tmp_path / "leaderboard.csv", "--out", ".csv")
    (tmp_path / "trials").unlink()
    (tmp_path / "trials").mkdir()
    with pytest.raises(InputError, match=r"leaderboard\.csv belongs to the run in "):
        files.check_output_file(tmp_path / "leaderboard.csv", "--out", ".csv")
