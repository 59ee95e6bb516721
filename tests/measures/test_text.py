"""Text statistics in closed form."""

import pytest

from nex_merge.measures.text import distinct_ratio, non_text_share, repeated_share, text_figures
from nex_merge.records import Response


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


def test_figures_of_every_response():
    def response(tokens, text, truncated):
        return Response(0, 0, (1,), tuple(tokens), text, truncated)

    found = text_figures([response([1, 2, 3, 4], "fine", False), response([5] * 8, "  ", True)])
    assert {name: values.tolist() for name, values in vars(found).items()} == {
        "truncated": [0, 1], "distinct_ratio": [1, 0.2], "repeated": [0, 1], "empty": [0, 1], "non_text": [0, 0],
    }  # fmt: skip
