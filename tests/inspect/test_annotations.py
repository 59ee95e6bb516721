"""Labels of tokens, from files of annotations and from the language of the problems."""

import json
from itertools import pairwise

import numpy as np
import pytest

from nex_merge.errors import InputError
from nex_merge.families.qwen3_tiny.problems import ITEMS, make_problems
from nex_merge.families.qwen3_tiny.tokenizer import make_tokenizer
from nex_merge.inspect.annotated import compare, row_labels
from nex_merge.inspect.annotations import label_problem, label_tokens, read_annotations
from nex_merge.inspect.reading import token_starts
from nex_merge.records import Response
from tests.inspect.fakes import reading

WORDS = ["one", " two", " three", " \n", " four", ""]


def told(tmp_path, *lines):
    path = tmp_path / "told.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def span(start, end, label="explore", **more):
    return {"response": 0, "start": start, "end": end, "label": label, **more}


def labels(tmp_path, *lines):
    path = told(tmp_path, *lines)
    found = label_tokens(read_annotations(path), reading(WORDS, "EEEEEE"), str(path)).tokens
    return "".join(".XE"[value + 1] for value in found)


def test_a_token_is_what_most_of_its_ink_is(tmp_path):
    assert labels(tmp_path, span(0, 3)) == "E....."
    assert labels(tmp_path, span(4, 7)) == ".E....", "the blank before a word is not needed"
    assert labels(tmp_path, span(0, 10)) == "EE....", "two of five letters are too few"
    assert labels(tmp_path, span(0, 11)) == "EEE..."
    assert labels(tmp_path, span(0, 20)) == "EEEEE.", "a token without characters has no label"
    assert labels(tmp_path, span(8, 10), span(10, 13)) == "..E...", "halves that say the same add up"
    assert labels(tmp_path, span(2, 4, "exploit", unit="tokens"), "", span(0, 3)) == "E.XX.."
    assert labels(tmp_path, span(5, 6, unit="tokens")) == ".....E"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (span(2, 7, "exploit"), "lines 1 and 3: they overlap in response 0, one says explore and the other exploit"),
        (span(0, 2, "exploit", unit="tokens"), "lines 1 and 3: they overlap in response 0"),
        (span(0, 99), "line 3: end: found 99; response 0 has 20 characters"),
        (span(0, 7, unit="tokens"), "line 3: end: found 7; response 0 has 6 tokens"),
    ],
)
def test_what_contradicts_or_goes_beyond_is_refused(tmp_path, second, words):
    with pytest.raises(InputError, match=words):
        labels(tmp_path, span(0, 3), "", second)
    assert labels(tmp_path, span(0, 3), span(2, 7)) == "EE....", "overlaps that say the same are none"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: found list"),
        (span(3, 3), "line 2: found start 3 and end 3"),
        (span(-1, 3), "line 2: start: found -1; a whole number from 0"),
        (span(True, 3), "line 2: start: found True"),
        (span(0, 3.5), "line 2: end: found 3.5"),
        ({"start": 0, "end": 1, "label": "explore"}, "line 2: response: found None"),
        (span(0, 3, "think"), "line 2: label: found 'think'; explore or exploit would do"),
        (span(0, 3, unit="words"), "line 2: unit: found 'words'; characters or tokens would do"),
        (span(0, 3, trial=[1]), r"line 2: trial: found \[1\]"),
        (span(0, 3, lable="explore"), "line 2: lable: unknown key. Did you mean 'label'"),
    ],
)
def test_lines_at_fault_are_named(tmp_path, line, words):
    with pytest.raises(InputError, match=words):
        read_annotations(told(tmp_path, span(0, 1), line))


def test_files_at_fault_are_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_annotations(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="holds no annotations"):
        read_annotations(told(tmp_path, "", " "))
    (tmp_path / "told.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_annotations(tmp_path / "told.jsonl")


def problem_reading(text, kinds=tuple(ITEMS)):
    """A response of this text as the family's tokenizer splits it, with the words of each token."""
    tokenizer = make_tokenizer(kinds)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    response = Response(0, 0, (1,), ids, str(tokenizer.decode(list(ids), skip_special_tokens=True)), False)
    starts = token_starts(response, tokenizer)
    words = [response.text[a:b] for a, b in pairwise(starts)]
    return reading(words, "E" * len(words)), words


def lines_labelled(text):
    """(line, its label) for every line of a response's text; '?' where its words don't agree."""
    shown, words = problem_reading(text)
    found, line, own = [], [], set()
    for word, value in zip(words, label_problem(shown).tokens.tolist(), strict=True):
        own.add(".XE"[value + 1])
        line.append(word.strip(" \n"))
        if "\n" in word:
            found.append((" ".join(filter(None, line)), own.pop() if len(own) == 1 else "?"))
            line, own = [], set()
    return [*found, (" ".join(line), own.pop() if len(own) == 1 else "?")], label_problem(shown).malformed


@pytest.mark.parametrize("kind", list(ITEMS))
def test_every_line_of_a_perfect_response_is_known(kind):
    for problem in make_problems(kind, 5, 7):
        found, malformed = lines_labelled(problem.response(rechecks=1))
        assert malformed == 0
        for line, label in found:
            if line.endswith(" no"):
                assert label == "E", line
            elif line.endswith(" yes") or "=" in line.split()[0] if line else False:
                assert label == "X", line
            else:
                assert label == "." and (line in ("<think>", "</think>", "") or line.endswith(":")), line
        answers = len(problem.parts)
        assert sum(line.startswith("wait") for line, _ in found) == answers
        assert sum("= " in line and line[1] == "=" for line, _ in found) == 2 * answers


def test_malformed_lines_have_no_label_and_are_counted():
    text = "\n".join(
        [
            "<think>",
            "a:",
            "a1 12 + a2 5 = 99 a? 21 no",  # a wrong sum: a candidate all the same
            "a1 12 + b2 5 = 17 a? 21 no",  # two letters
            "wait a1 12 + a2 5 = 17 a? 21 no",  # a recheck of what did not fit
            "a1 12 + a2 5 = 17 a? 21",  # no verdict
            "a= a1",  # half an answer
            "a= - +",
            "</think>",
            "",
            "a1 12 + a2 9 = 21 a? 21 yes",  # no answer
            "a= a1 a3",
            "a= a1 a3 a4 a5",
            "a= a1",
        ]
    )
    found, malformed = lines_labelled(text)
    assert "".join(label for _, label in found) == "..E....X...X.."
    assert malformed == 7
    assert label_problem(problem_reading("yes no yes\nno")[0]).malformed == 2


def test_rows_are_what_most_of_their_labelled_tokens_are():
    shown = reading(["a"] * 9, "EXE", width=3)
    found, ties = row_labels(np.array([1, 0, 0, -1, -1, 1, 0, 1, -1], np.int8), shown)
    assert found.tolist() == [0, 1, -1] and ties == 1


def test_what_one_side_does_not_know_is_left_out_and_counted():
    from nex_merge.inspect.annotations import Labels

    shown = reading(["a"] * 10, "EX.XE", width=2)
    told = Labels(np.array([1, 1, 0, -1, 1, 1, 1, 0, -1, -1], np.int8), malformed=3)
    found = compare([(shown, told)], tolerance=0)
    assert (found.tokens.compared, found.rows.compared) == (5, 2)
    assert (found.tokens_without_label, found.tokens_without_phase) == (3, 2)
    assert (found.rows_without_label, found.rows_without_phase, found.rows_tied) == (1, 1, 1)
    assert found.malformed_lines == 3 and found.responses == 1
    assert found.rows.kappa.value == 1 and found.tokens.agreed == 0.8
    assert found.tokens.explore_found == 0.4 and found.tokens.explore_wanted == 0.6
    assert (found.boundaries_found, found.boundaries_wanted, found.f1.value) == (1, 1, 1)
