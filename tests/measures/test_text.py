"""Text measures in closed form, and what counts as collapsed."""

from dataclasses import replace

import pytest

from nex_merge.measures.text import collapse, distinct_ratio, measure_text, non_text_share, repeated_share
from nex_merge.records import Response, TextMeasures

SOUND = TextMeasures(truncated=0.1, distinct_ratio=0.8, repeated=0.05, empty=0.0, non_text=0.0)


def test_distinct_ratio():
    assert distinct_ratio([1, 2, 3, 4, 5]) == 1
    assert distinct_ratio([7] * 13) == 0.1
    assert distinct_ratio([1, 2]) == 1


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([1, 2, 3, 4, 5, 6], 0.0),
        ([5] * 10, 1.0),
        ([9, 8, *[1, 2] * 4], 0.8),
        ([9, 8, *[1, 2] * 3], 0.0),  # three copies are no loop
        ([*range(10), *list(range(100, 110)) * 4, *range(20, 30)], 40 / 60),
        ([], 0.0),
        ([1], 0.0),
    ],
)
def test_repeated_share(tokens, share):
    assert repeated_share(tokens) == pytest.approx(share)


def test_non_text_share():
    assert non_text_share("a = b\n\tç 数 🙂") == 0
    assert non_text_share("ab\x00�") == 0.5
    assert non_text_share("") == 0


def test_measures_are_means():
    def response(tokens, text, truncated):
        return Response(0, 0, (1,), tuple(tokens), text, truncated)

    found = measure_text([response([1, 2, 3, 4], "fine", False), response([5] * 8, "  ", True)])
    assert found == TextMeasures(truncated=0.5, distinct_ratio=0.6, repeated=0.5, empty=0.5, non_text=0.0)


def test_a_parent_is_never_collapsed_against_itself():
    violation, reason = collapse(SOUND, [SOUND])
    assert violation == -1 and reason is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"truncated": 0.9}, "responses cut at max_new_tokens 0.90, worst baseline 0.10"),
        ({"distinct_ratio": 0.2}, "distinct 4-grams 0.20, worst baseline 0.80"),
        ({"repeated": 0.6}, "tokens in a repeated run 0.60, worst baseline 0.05"),
        ({"empty": 0.5}, "empty responses 0.50, worst baseline 0.00"),
        ({"non_text": 0.3}, "non-text characters 0.30, worst baseline 0.00"),
    ],
)
def test_collapse_against_the_worst_of_the_parents(change, reason):
    better = replace(SOUND, truncated=0.0, distinct_ratio=0.95, repeated=0.0)
    violation, found = collapse(replace(SOUND, **change), [SOUND, better])
    assert violation > 0 and found == reason
    assert collapse(SOUND, [better, SOUND])[1] is None


def test_without_baselines_faultless_text_stands_in():
    assert collapse(replace(SOUND, truncated=0.2, distinct_ratio=0.9), [])[1] is None
    reason = collapse(replace(SOUND, truncated=0.9, distinct_ratio=1.0), [])[1]
    assert reason == "responses cut at max_new_tokens 0.90, faultless text 0.00", "nothing that was not scored"
