"""What export says beside what it writes."""

import pytest

from nex_merge.runs import export


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (["7", "a", "b"], ""),
        (["a", "7", "b"], "a ranks"),
        (["a", "b", "7", "base"], "a and b rank"),
        (["a", "b", "base", "7"], "a, b and base rank"),
    ],
)
def test_parents_that_rank_above_the_best_merge_are_named(tmp_path, monkeypatch, order, told):
    rows = [
        {"rank": place, "trial": trial, "kind": "merge" if trial == "7" else "parent"}
        for place, trial in enumerate(order, 1)
    ]
    failed = {"rank": None, "trial": "8", "kind": "merge"}
    monkeypatch.setattr(export, "read_rows", lambda run: [*rows, failed])
    assert export._above(tmp_path, "7") == told
