"""Models ranked by files of their answers: what is read, matched, graded and refused."""

import json

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.inspect.answer_files import rank_files


def write(path, lines):
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    """Five models on twenty sums, right on 20, 17, 15, 8 and 5 of them; no two make the same mistake."""
    made = []
    wrong_on = {"good": (), "fine": range(3), "fair": range(15, 20), "poor": range(12), "bad": range(5, 20)}
    for name, wrong in wrong_on.items():
        answers = [100 * len(wrong) + n if n in wrong else n + 1 for n in range(20)]
        lines = [
            {"prompt": f"{n} + 1?", "response": f"<think>hm</think> The answer is {answer}."}
            for n, answer in enumerate(answers)
        ]
        made.append(write(tmp_path / f"{name}.jsonl", lines))
    return made


def names(found):
    return [row.name.rpartition("/")[2] for row in found.ranking.rows]


def test_they_are_ranked_and_auto_reads_what_they_conclude(files):
    found = rank_files(files)
    assert (
        names(found) == ["good.jsonl", "fine.jsonl", "fair.jsonl", "poor.jsonl", "bad.jsonl"]
        and found.match == "number"
    )
    assert (found.prompts, found.shared, found.labelled) == (20, 20, 0) and found.accuracy == {}


def test_prompts_are_matched_by_text_in_any_order_and_lines_of_one_prompt_are_samples(files):
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    shuffled = write(files[0].with_name("shuffled.jsonl"), [*reversed(lines), *lines[5:]])
    found = rank_files([shuffled, *files[1:]])
    assert names(found)[0] == "shuffled.jsonl" and found.prompts == 20
    together = [{"prompt": line["prompt"], "responses": [line["response"]] * 2} for line in lines[:10]]
    found = rank_files([write(shuffled, together), *files[1:]])
    assert (found.prompts, found.shared) == (20, 10)


def test_known_answers_measure_accuracy_and_leave_the_ranking_alone(files):
    plain = rank_files(files)
    lines = [json.loads(line) for line in files[2].read_text().splitlines()]
    write(files[2], [{**line, "answer": n + 1} if n < 16 else line for n, line in enumerate(lines)])
    found = rank_files(files)
    assert [row.consensus for row in found.ranking.rows] == [row.consensus for row in plain.ranking.rows]
    assert [found.accuracy[str(file)] for file in files] == [
        1,
        13 / 16,
        15 / 16,
        4 / 16,
        5 / 16,
    ] and found.labelled == 16


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a"}, 'expected "response" with a text'),
        ({"prompt": "a", "response": "1", "responses": ["1"]}, "got both"),
        ({"prompt": "a", "responses": []}, "expected texts as responses"),
        ({"prompt": "a", "response": 5}, "expected texts as responses"),
        ({"response": "1"}, 'expected text in "prompt"'),
        ({"prompt": "0 + 1?", "response": "1", "answer": ["x"]}, 'expected "answer" with text or a number'),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(files, tmp_path, line, message):
    bad = write(tmp_path / "new.jsonl", [{"prompt": "0 + 1?", "response": "1"}, line])
    with pytest.raises(InputError, match="line 2") as error:
        rank_files([*files, bad])
    assert message in str(error.value)


def test_files_that_cannot_be_compared_are_refused(files, tmp_path):
    other = write(tmp_path / "other.jsonl", [{"prompt": "else?", "response": "1"}])
    with pytest.raises(InputError, match="no two files have a prompt in common"):
        rank_files([files[0], other])
    with pytest.raises(InputError, match=r"expected a JSONL file .*, got a \.csv file"):
        rank_files([files[0], files[1].rename(tmp_path / "answers.csv")])
    (tmp_path / "answers.csv").rename(files[1])
    with pytest.raises(InputError, match="given twice"):
        rank_files([files[0], files[1], files[0]])
    with pytest.raises(InputError, match="at least two files"):
        rank_files(files[:1])
    for file, answer in zip(files, "12", strict=False):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        write(file, [{**lines[0], "answer": answer}, *lines[1:]])
    with pytest.raises(InputError, match="the same prompt has the answer '1' in"):
        rank_files(files)


def test_the_command_prints_a_table_or_json(files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = CliRunner().invoke(app, ["consensus", *map(str, files), "--format", "json"])
    content = json.loads(found.stdout)
    assert [set(row) >= {"name", "consensus", "low", "high"} for row in content["rows"]] == [True] * 5
    assert content["rows"][0]["name"] == str(files[0]) and content["verdict"] == "sound"
    few = json.loads(CliRunner().invoke(app, ["consensus", *map(str, files[:3]), "--format", "json"]).stdout)
    assert (
        few["verdict"] == "insufficient" and "only 3 variants vote: two that agree outvote the rest" in few["reasons"]
    )
    assert "answers of more models" in few["advice"]
    table = CliRunner().invoke(app, ["consensus", *map(str, files)]).stdout
    assert "5 models on 20 prompts; conclusions read as number" in table and "Verdict: sound." in table
