"""Selection rules against brute force."""

import ast
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from nex_merge.inspect.select import rules
from tests.inspect.select.fakes import random_scores, random_sets


def test_rules_import_only_numpy():
    tree = ast.parse(Path(rules.__file__).read_text())
    known = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert known == {"numpy", "math"}


def test_ranking_leaders_and_expected_right():
    rng = np.random.default_rng(0)
    scores, right = random_scores(rng, 200, 5), rng.random((200, 5)) < 0.5
    conclusions = rng.integers(-1, 2, (200, 5))
    order, leading = rules.ranking(scores), rules.leaders(scores)
    expected, open_ = rules.expected_right(scores, right), rules.undecided(scores, conclusions)
    for i, own in enumerate(scores):
        value = [-np.inf if np.isnan(s) else s for s in own]
        assert order[i].tolist() == sorted(range(5), key=lambda j: (-value[j], j))
        top = [j for j in range(5) if value[j] == max(value)]
        assert np.flatnonzero(leading[i]).tolist() == top
        assert expected[i] == pytest.approx(np.mean([right[i, j] for j in top]))
        assert open_[i] == (len({int(conclusions[i, j]) for j in top}) > 1)


def test_sums_in_another_order_are_ties():
    assert rules.leaders(np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1])).all()


def test_votes():
    rng = np.random.default_rng(1)
    conclusions = rng.integers(-1, 3, (50, 6))
    for own, found in zip(conclusions, rules.votes(conclusions), strict=True):
        counts = Counter(own.tolist())
        assert [None if np.isnan(v) else v for v in found] == [None if c < 0 else counts[c] for c in own.tolist()]


def test_similarities_medoid_and_neighbours():
    rng = np.random.default_rng(2)
    for _ in range(30):
        sets = random_sets(rng, 6)
        plain = [set(own.tolist()) for own in sets]
        found = rules.similarities(sets)
        for i, j in np.ndindex(6, 6):
            if plain[i] and plain[j]:
                assert found[i, j] == pytest.approx(len(plain[i] & plain[j]) / len(plain[i] | plain[j]))
            else:
                assert np.isnan(found[i, j])
        present = [i for i in range(6) if plain[i]]
        for k, scores in ((5, rules.medoid(found)), (2, rules.neighbours(found, 2)), (5, rules.neighbours(found, 9))):
            for i in range(6):
                others = sorted((found[i, j] for j in present if j != i and i in present), reverse=True)
                assert scores[i] == pytest.approx(np.mean(others[:k])) if others else np.isnan(scores[i])
        # The medoid as it is usually defined: the smallest mean distance, to all including itself.
        if len(present) == 6:
            assert rules.ranking(rules.medoid(found))[0] == np.argmin((1 - found).mean(1).round(12))
        stacked = np.stack([found, found[::-1, ::-1]])
        np.testing.assert_array_equal(rules.neighbours(stacked)[0], rules.neighbours(found))


def test_two_candidates_are_each_others_medoid_and_one_has_none():
    two = rules.similarities([np.array([1, 2, 3]), np.array([3, 4])])
    assert rules.leaders(rules.medoid(two)).all() and rules.leaders(rules.neighbours(two)).all()
    assert np.isnan(rules.medoid(two[:1, :1])).all() and rules.ranking(rules.medoid(two[:1, :1])).tolist() == [0]


def test_any_right_counts_the_sets():
    for right in range(7):
        for chosen in range(1, 7):
            sets = list(combinations([True] * right + [False] * (6 - right), chosen))
            assert rules.any_right(6, right, chosen) == pytest.approx(np.mean([any(own) for own in sets]))
