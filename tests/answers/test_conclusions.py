"""What responses conclude, under every way to read an answer."""

import pytest

from nex_merge.answers.conclusions import check_match, conclude, is_unfinished, read_gold
from nex_merge.errors import InputError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("match", "text", "key"),
    [
        ("text", "<think>no</think>\n\na= b1   b2\n", "a= b1 b2"),
        ("text", "  ", None),
        ("number", "<think>3</think> 5 and then 1,200.0", 1200.0),
        ("number", "x = -2.5", -2.5),
        ("number", "no idea", None),
        ("choice", "A or B? The answer is B.", "B"),
        ("choice", "nothing here", None),
        ("regex:x = ([0-9]+)", "x = 3, no, x = 4", "4"),
        ("regex:[0-9]+", "1 2 3", "3"),
        ("regex:x = ([0-9]+)", "y = 3", None),
        ("regex:(a*)", "bbb", None),
    ],
)
def test_conclusions(match, text, key):
    assert conclude(text, match) == key


@pytest.mark.parametrize("match", ["exact", "fuzzy", "regex", ""])
def test_what_is_no_way_to_read_an_answer(match):
    for use in (check_match, lambda m: conclude("x", m)):
        with pytest.raises(InputError, match="expected number, choice, text or regex:PATTERN, got"):
            use(match)


def test_a_pattern_that_is_none():
    with pytest.raises(InputError, match=r"--match: 'regex:\(' is not a valid regular expression"):
        check_match("regex:(")


@pytest.mark.parametrize(("answer", "match"), [("four", "number"), ("b", "choice"), ("B C", "choice"), (" ", "text")])
def test_a_gold_answer_that_can_never_match(answer, match):
    with pytest.raises(ValueError):
        read_gold(answer, match)


def test_unfinished_responses():
    assert is_unfinished("<think> 3", False, False) and is_unfinished("3", True, True)
    assert not is_unfinished("3", True, False) and not is_unfinished("<think> 3 </think> 4", True, True)
