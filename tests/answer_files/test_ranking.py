"""Models ranked by files of their answers: what is read, matched, graded and refused."""

import json

import pytest
from typer.testing import CliRunner

from nex_merge.answer_files.ranking import rank_files
from nex_merge.cli import app
from nex_merge.errors import InputError


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
    with pytest.raises(InputError, match="--match: expected auto, number, choice, text or regex:PATTERN, got 'foo'"):
        rank_files([], "foo")
    with pytest.raises(InputError, match="at least two files"):
        rank_files(files[:1])
    for file, answer in zip(files, "12", strict=False):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        write(file, [{**lines[0], "answer": answer}, *lines[1:]])
    with pytest.raises(InputError, match="the same prompt has the answer '1' in"):
        rank_files(files)


def sums(path, answers, **more):
    return write(
        path,
        [{"prompt": f"{n} + 1?", "response": f"It is {a}.", **more} for n, a in enumerate(answers) if a is not None],
    )


def test_a_prompt_that_a_file_lacks_is_not_answered(tmp_path):
    full = [
        sums(tmp_path / f"m{k}.jsonl", [n + 1 if n < 9 or n % 4 != k else 100 * k + n for n in range(24)])
        for k in range(1, 4)
    ]
    easy = sums(tmp_path / "easy.jsonl", range(1, 10))
    prefix = write(tmp_path / "prefix.jsonl", [json.loads(line) for line in full[0].read_text().splitlines()[:20]])
    found = rank_files([easy, prefix, *full])
    assert names(found)[-1] == "easy.jsonl" and found.ranking.rows[-1].consensus == pytest.approx(9 / 24, abs=0.01)
    assert names(found).index("m1.jsonl") < names(found).index("prefix.jsonl")
    assert found.answered[str(easy)] == 9 and found.concluded[str(easy)] == 1
    assert f"{easy}: lacks 15 of 24 prompts, which count as not answered" in found.notes
    assert found.ranking.verdict == "insufficient"
    assert found.ranking.reasons[0].startswith("only 9 of 24 prompts are in all files")
    assert not any("conclude anything" in reason for reason in found.ranking.reasons)  # nothing was read from no text
    shared = rank_files([easy, prefix, *full], shared=True)
    assert (shared.ranked, shared.shared, shared.prompts) == (9, 9, 24)
    assert [row.consensus for row in shared.ranking.rows] == [pytest.approx(1, abs=0.01)] * 5
    assert "left out: 15 prompts that not all files have" in shared.notes
    # The whole file comes before its own beginning also where nothing else tells them apart.
    assert names(rank_files([prefix, full[0]]))[0] == "m1.jsonl"


def test_prompts_that_one_file_alone_has_win_nothing(files, tmp_path):
    lines = [json.loads(line) for line in files[4].read_text().splitlines()]
    write(files[4], [*lines, *({"prompt": f"mine {n}?", "response": f"{n}"} for n in range(200))])
    found = rank_files(files)
    assert names(found)[-1] == "bad.jsonl" and (found.prompts, found.ranked, found.shared) == (220, 20, 20)
    assert "left out: 200 prompts that only one file has" in found.notes and found.ranking.verdict == "sound"
    with pytest.raises(InputError, match=r"--shared: expected prompts that all 3 files have, got none"):
        rank_files(
            [sums(tmp_path / f"{k}.jsonl", [None if n % 3 == k else n + 1 for n in range(9)], x=1) for k in range(3)],
            shared=True,
        )
    alone = write(tmp_path / "alone.jsonl", [{"prompt": "else?", "response": "1"}])
    with pytest.raises(InputError, match=r"alone.jsonl: has no prompt in common with the others"):
        rank_files([*files, alone])


def test_accuracy_counts_the_known_answers_that_a_file_lacks(files):
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    write(files[0], [{**line, "answer": n + 1} for n, line in enumerate(lines)])
    write(files[1], [json.loads(line) for line in files[1].read_text().splitlines()[10:]])
    found = rank_files(files)
    assert found.accuracy[str(files[1])] == 0.5 and found.accuracy[str(files[0])] == 1


def test_messages_and_prompt_with_the_same_text_are_the_same_prompt_and_repeats_are_said(files, tmp_path):
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    as_messages = [
        {"messages": [{"role": "user", "content": f"{line['prompt']}\n"}], "response": line["response"]}
        for line in lines
    ]
    found = rank_files([*files, write(tmp_path / "chat.jsonl", [*as_messages, as_messages[0]])])
    assert found.shared == found.prompts == 20
    assert [note for note in found.notes if "chat.jsonl: 1 prompt on several lines, which count as samples" in note]


def test_cut_responses_conclude_nothing_whatever_the_key_is(files, tmp_path):
    cut = sums(tmp_path / "cut.jsonl", range(1, 21), finish_reason="length")
    found = rank_files([*files, cut])
    assert names(found)[-1] == "cut.jsonl" and found.concluded[str(cut)] == 0
    assert f"{cut}: 20 of 20 responses cut off, which conclude nothing" in found.notes


CHOICES = ["Rome", "Paris", "Bern"]


def quiz(path, right, order, answer=None, said="The answer is {}."):
    """Six questions on which a model picks the right option, the first, on so many; its choices in an order."""
    lines = []
    for n in range(6):
        options = [f"{CHOICES[i]} {n}" for i in order]
        letter = "ABC"[order.index(0 if n < right else 1 + n % 2)]
        lines.append({"prompt": f"Which, {n}?", "choices": options, "response": said.format(letter)})
        if answer:
            lines[-1]["answer"] = "ABC"[order.index(0)] if answer == "letter" else options[order.index(0)]
    return write(path, lines)


def test_letters_stand_for_the_choices_of_their_own_line(tmp_path):
    files = [
        quiz(tmp_path / "a.jsonl", 6, [0, 1, 2], "letter"),
        quiz(tmp_path / "b.jsonl", 6, [2, 1, 0], "text"),
        quiz(tmp_path / "c.jsonl", 5, [1, 2, 0]),
        quiz(tmp_path / "d.jsonl", 2, [0, 2, 1]),
    ]
    found = rank_files(files)
    assert found.match == "choice" and names(found)[-1] == "d.jsonl"  # a and b, which answer alike, are one voter
    assert [found.accuracy[str(file)] for file in files] == [1, 1, 5 / 6, 2 / 6]
    assert (
        "choices of 6 prompts come in different orders; letters stand for the choices of their own line" in found.notes
    )
    # As they would be, had they all been asked in one order.
    same = [quiz(tmp_path / f"{k}.jsonl", right, [0, 1, 2]) for k, right in enumerate((6, 6, 5, 2))]
    plain = rank_files(same)
    assert [row.consensus for row in plain.ranking.rows] == [row.consensus for row in found.ranking.rows]
    unlabelled = [quiz(tmp_path / "a.jsonl", 6, [0, 1, 2]), quiz(tmp_path / "b.jsonl", 6, [2, 1, 0])]
    texts = rank_files(unlabelled, match="regex:answer is ([A-C])")
    assert [row.consensus for row in texts.ranking.rows] == [pytest.approx(1), pytest.approx(1)]


def test_choices_that_cannot_be_mapped_are_refused(tmp_path):
    files = [quiz(tmp_path / "a.jsonl", 6, [0, 1, 2]), quiz(tmp_path / "b.jsonl", 6, [2, 1, 0])]
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    bare = write(tmp_path / "bare.jsonl", [{k: v for k, v in line.items() if k != "choices"} for line in lines])
    with pytest.raises(InputError, match=r"bare.jsonl line \d: expected choices, because .*b.jsonl line \d has those"):
        rank_files([*files, bare])
    assert rank_files([files[0], bare]).match == "choice"
    other = write(tmp_path / "other.jsonl", [{**line, "choices": ["Oslo", "Rome 0", "Bern 0"]} for line in lines])
    with pytest.raises(
        InputError, match=r"other.jsonl line 1: choices: expected those of the same prompt in .*a.jsonl"
    ):
        rank_files([files[0], other])


def test_numbers_and_letters_that_are_compared_as_texts_are_said(files, tmp_path):
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    write(files[0], [{**line, "answer": n + 1} for n, line in enumerate(lines)])
    said = "20 of 20 known answers are numbers, but responses are compared as texts; --match number reads"
    assert [note for note in rank_files(files, match="text").notes if note.startswith(said)]
    assert not [note for note in rank_files(files).notes if "known answer" in note]
    letters = [quiz(tmp_path / "a.jsonl", 6, [0, 1, 2], "letter"), quiz(tmp_path / "b.jsonl", 6, [0, 1, 2])]
    assert [note for note in rank_files(letters, "text").notes if "6 known answers are letters of choices" in note]
    with pytest.raises(InputError, match=r"line 1: answer 'A' cannot be read as number"):
        rank_files(letters, "number")
    with pytest.raises(InputError, match=r"line 1: answer '1' cannot be read as choice"):
        rank_files(files, "choice")


def test_the_command_prints_a_table_or_json(files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = CliRunner().invoke(app, ["consensus", *map(str, files), "--format", "json"])
    content = json.loads(found.stdout)
    assert [set(row) >= {"name", "consensus", "low", "high"} for row in content["rows"]] == [True] * 5
    assert content["rows"][0]["name"] == str(files[0]) and content["verdict"] == "sound"
    few = json.loads(CliRunner().invoke(app, ["consensus", *map(str, files[:3]), "--format", "json"]).stdout)
    assert few["verdict"] == "insufficient" and "only 3 models vote: two that agree outvote the rest" in few["reasons"]
    assert "answers of more models" in few["advice"]
    table = CliRunner().invoke(app, ["consensus", *map(str, files)]).stdout
    assert "5 models on 20 prompts; conclusions read as number" in table and "Verdict: sound." in table
    write(files[1], [json.loads(line) for line in files[1].read_text().splitlines()[:10]])
    table = CliRunner().invoke(app, ["consensus", *map(str, files)]).stdout
    assert "5 models on 20 prompts, 10 of them in all files" in table and "answered" in table
    shared = CliRunner().invoke(app, ["consensus", *map(str, files), "--shared"]).stdout
    assert "5 models on 10 prompts; conclusions read as number" in shared and "answered" not in shared
