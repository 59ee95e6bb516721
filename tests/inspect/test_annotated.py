"""Agreement of readings with labels, by hand."""

import numpy as np

from nex_merge.inspect.annotated import measure_agreement, row_labels
from nex_merge.inspect.annotations import Labels
from tests.inspect.fakes import reading


def test_a_row_has_the_label_of_most_of_its_labelled_tokens():
    shown = reading(["a"] * 9, "EXE", width=3)
    found, ties = row_labels(np.array([1, 0, 0, -1, -1, 1, 0, 1, -1], np.int8), shown)
    assert found.tolist() == [0, 1, -1] and ties == 1


def test_units_without_phase_or_label_are_left_out_and_counted():
    shown = reading(["a"] * 10, "EX.XE", width=2)
    labels = Labels(np.array([1, 1, 0, -1, 1, 1, 1, 0, -1, -1], np.int8), malformed=3)
    found = measure_agreement([(shown, labels)], tolerance=0)
    assert (found.tokens.compared, found.rows.compared) == (5, 2)
    assert (found.tokens_without_label, found.tokens_without_phase) == (3, 2)
    assert (found.rows_without_label, found.rows_without_phase, found.rows_tied) == (1, 1, 1)
    assert found.malformed_lines == 3 and found.responses == 1
    assert found.rows.kappa.value == 1 and found.tokens.agreed == 0.8
    assert found.tokens.explore_found == 0.4 and found.tokens.explore_wanted == 0.6
    assert (found.boundaries_found, found.boundaries_wanted, found.f1.value) == (1, 1, 1)
