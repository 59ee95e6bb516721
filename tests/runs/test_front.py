"""The hypervolume over a run's trials: of what, and from where."""

import pytest

from nex_merge.measures.estimates import Objective
from nex_merge.runs.front import reference_in_words, volume_over
from tests.rows import row_of

SEVERAL = Objective("nex", 1, (Objective("mean_tokens", -1),))


def row(trial, nex, tokens, kind="merge", state="complete"):
    return row_of(trial, kind, state, values={"nex": nex, "mean_tokens": tokens})


ROWS = [
    row("0003", 0.9, 40.0), row("0001", 0.6, 30.0), row("0000", 0.5, 20.0), row("0002", 0.55, 35.0),
    row("base", 0.4, 40.0, "base"), row("p", 0.5, 30.0, "parent"),
    row("0004", 1.0, 1.0, state="infeasible"), row("0005", None, 1.0),
]  # fmt: skip


def test_the_volume_is_what_the_merges_so_far_dominate():
    """The worst is base: 0.4 and 40 tokens."""
    volume = volume_over(ROWS, SEVERAL)
    assert volume.trials == ("0000", "0001", "0002", "0003")
    first = 0.1 * 20
    second = first + 0.1 * 10  # trial 2 is worse than trial 1, and trial 3 has as many tokens as the reference
    assert volume.values == pytest.approx((first, second, second, second))
    assert volume.baselines == pytest.approx(0.1 * 10)
    assert reference_in_words(volume) == "the worst of all complete variants, nex 0.4 (base), mean_tokens 40 (base)"


def test_a_merge_that_is_worse_than_base_and_parents_moves_the_reference():
    rows = [*ROWS, row("0006", 0.1, 100.0)]
    volume = volume_over(rows, SEVERAL)
    assert reference_in_words(volume).endswith(", nex 0.1 (trial 6), mean_tokens 100 (trial 6)")
    assert volume.values[0] == pytest.approx(0.4 * 80) and volume.values[-1] > volume.values[-2] * 0.999
    without = volume_over([item for item in rows if item.kind == "merge"], SEVERAL)
    assert without.baselines == 0 and without.values == volume.values


def test_without_a_merge_or_a_second_objective_there_is_none():
    assert volume_over(ROWS[4:6], SEVERAL) is None and volume_over(ROWS, Objective("nex", 1)) is None
