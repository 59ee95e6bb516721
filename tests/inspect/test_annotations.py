"""Labels of tokens, from annotation files and from the grammar of the problems."""

import json
from itertools import pairwise

import pytest

from nex_merge.errors import InputError
from nex_merge.families.qwen3_tiny.grammar import line_labels
from nex_merge.families.qwen3_tiny.problems import ITEMS, make_problems
from nex_merge.inspect.annotations import label_lines, label_tokens, read_annotations
from nex_merge.inspect.reading import token_starts
from nex_merge.records import Response
from tests.inspect.fakes import reading
from toy.tokenizer import make_tokenizer

WORDS = ["one", " two", " three", " \n", " four", ""]


def write(tmp_path, *lines):
    path = tmp_path / "annotations.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def span(start, end, label="explore", **more):
    return {"response": 0, "start": start, "end": end, "label": label, **more}


def labels(tmp_path, *lines):
    path = write(tmp_path, *lines)
    found = label_tokens(read_annotations(path), reading(WORDS, "EEEEEE"), str(path)).tokens
    return "".join(".XE"[value + 1] for value in found)


def test_a_token_has_the_label_of_most_of_its_characters(tmp_path):
    assert labels(tmp_path, span(0, 3)) == "E....."
    assert labels(tmp_path, span(4, 7)) == ".E....", "spaces do not count"
    assert labels(tmp_path, span(0, 10)) == "EE....", "two of five letters are no majority"
    assert labels(tmp_path, span(0, 11)) == "EEE..."
    assert labels(tmp_path, span(0, 20)) == "EEEEE.", "a token without characters has no label"
    assert labels(tmp_path, span(8, 10), span(10, 13)) == "..E...", "adjacent spans with equal labels add up"
    assert labels(tmp_path, span(2, 4, "exploit", unit="tokens"), "", span(0, 3)) == "E.XX.."
    assert labels(tmp_path, span(5, 6, unit="tokens")) == ".....E"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (
            span(2, 7, "exploit"),
            "lines 1 and 3: expected equal labels where annotations overlap, got explore and exploit in response 0",
        ),
        (span(0, 2, "exploit", unit="tokens"), "lines 1 and 3: expected equal labels"),
        (span(0, 99), "line 3: end: expected at most 20, got 99, because response 0 has 20 characters"),
        (span(0, 7, unit="tokens"), "line 3: end: expected at most 6, got 7, because response 0 has 6 tokens"),
    ],
)
def test_contradictions_and_spans_beyond_the_response_are_rejected(tmp_path, second, words):
    with pytest.raises(InputError, match=words):
        labels(tmp_path, span(0, 3), "", second)
    assert labels(tmp_path, span(0, 3), span(2, 7)) == "EE....", "overlaps with equal labels are allowed"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: expected a JSON object, got"),
        (span(3, 3), r"line 2: end: expected an integer > start \(3\), got 3"),
        (span(-1, 3), "line 2: start: expected a non-negative integer, got -1"),
        (span(True, 3), "line 2: start: expected a non-negative integer, got True"),
        (span(0, 3.5), "line 2: end: expected a non-negative integer, got 3.5"),
        ({"start": 0, "end": 1, "label": "explore"}, "line 2: response: expected a non-negative integer, got None"),
        (span(0, 3, "think"), "line 2: label: expected 'explore' or 'exploit', got 'think'"),
        (span(0, 3, unit="words"), "line 2: unit: expected 'characters' or 'tokens', got 'words'"),
        (span(0, 3, trial=[1]), r"line 2: trial: expected a trial id, got \[1\]"),
        (span(0, 3, lable="explore"), "line 2: unknown key 'lable'. Did you mean 'label'"),
    ],
)
def test_malformed_lines_are_rejected(tmp_path, line, words):
    with pytest.raises(InputError, match=words):
        read_annotations(write(tmp_path, span(0, 1), line))


def test_unusable_files_are_rejected(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_annotations(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="expected at least one annotation, got none"):
        read_annotations(write(tmp_path, "", " "))
    (tmp_path / "annotations.jsonl").write_bytes(b"\xff")
    with pytest.raises(InputError, match="UTF-8"):
        read_annotations(tmp_path / "annotations.jsonl")


def problem_reading(text, kinds=tuple(ITEMS)):
    """A response as the family's tokenizer splits it, with the text of each token."""
    tokenizer = make_tokenizer(kinds)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    response = Response(0, 0, (1,), ids, str(tokenizer.decode(list(ids), skip_special_tokens=True)), False)
    starts = token_starts(response, tokenizer)
    words = [response.text[a:b] for a, b in pairwise(starts)]
    return reading(words, "E" * len(words)), words


def lines_labelled(text):
    """((line, label) of every line, number of malformed lines); '?' if the tokens of a line differ."""
    shown, words = problem_reading(text)
    found, line, own = [], [], set()
    for word, value in zip(words, label_lines(shown, line_labels).tokens.tolist(), strict=True):
        own.add(".XE"[value + 1])
        line.append(word.strip(" \n"))
        if "\n" in word:
            found.append((" ".join(filter(None, line)), own.pop() if len(own) == 1 else "?"))
            line, own = [], set()
    return [*found, (" ".join(line), own.pop() if len(own) == 1 else "?")], label_lines(shown, line_labels).malformed


@pytest.mark.parametrize("kind", list(ITEMS))
def test_every_line_of_a_perfect_response_is_in_the_grammar(kind):
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


def test_lines_outside_the_grammar_have_no_label_and_are_counted():
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
    assert label_lines(problem_reading("yes no yes\nno")[0], line_labels).malformed == 2
