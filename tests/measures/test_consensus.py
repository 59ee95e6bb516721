"""Consensus against a slow transcription of its definition, and where it is undefined."""

import math

import numpy as np
import pytest

from nex_merge.measures.consensus import CONSENSUS, agreement_with_pool, choose_match
from nex_merge.measures.measure import Pool
from nex_merge.records import Observation, Response, Variant
from nex_merge.setup.config import ConsensusConfig, NexConfig


def slowly(conclusions, prompts):
    """The definition, word by word, for one sample a prompt."""
    v = range(len(conclusions))
    c = [[conclusions[i][p][0] for p in range(prompts)] for i in v]
    share = [[sum(c[j][p] == c[i][p] for j in v if j != i) / (len(c) - 1) if c[i][p] is not None else 0
              for p in range(prompts)] for i in v]  # fmt: skip
    a = [min(max(sum(row) / prompts, 0.05), 0.95) for row in share]
    for _ in range(100):
        q = []
        for p in range(prompts):
            kinds = list(dict.fromkeys(c[i][p] for i in v if c[i][p] is not None))
            m = max(len(kinds) - 1, 9)
            logs = [sum(math.log(a[i] if c[i][p] == t else (1 - a[i]) / m) for i in v if c[i][p] is not None)
                    for t in kinds]  # fmt: skip
            total = sum(math.exp(x - max(logs)) for x in logs)
            q.append({t: math.exp(x - max(logs)) / total for t, x in zip(kinds, logs, strict=True)})
        new = [min(max(sum(q[p].get(c[i][p], 0) for p in range(prompts)) / prompts, 0.01), 0.99) for i in v]
        moved = max(abs(x - y) for x, y in zip(a, new, strict=True))
        a = new
        if moved <= 1e-6:
            break
    for p in range(prompts):
        kinds = list(q[p])
        m = max(len(kinds) - 1, 9)
        logs = [sum(math.log(a[i] if c[i][p] == t else (1 - a[i]) / m) for i in v if c[i][p] is not None)
                for t in kinds]  # fmt: skip
        total = sum(math.exp(x - max(logs)) for x in logs)
        q[p] = {t: math.exp(x - max(logs)) / total for t, x in zip(kinds, logs, strict=True)}
    return [[q[p].get(c[i][p], 0.0) for p in range(prompts)] for i in v]


def world(rng, accuracies, prompts):
    """Conclusions of variants that are right as often as told; wrong ones scatter over ten; some conclude nothing."""
    return [
        {p: ["right" if rng.random() < a else None if rng.random() < 0.1 else f"wrong {rng.integers(10)}"]
         for p in range(prompts)}
        for a in accuracies
    ]  # fmt: skip


def test_it_is_the_definition():
    for seed in range(3):
        conclusions = world(np.random.default_rng(seed), [0.2, 0.5, 0.6, 0.8, 0.9], 20)
        np.testing.assert_allclose(agreement_with_pool(conclusions, 20), slowly(conclusions, 20), atol=1e-9)


def test_it_estimates_accuracy_where_wrong_answers_scatter():
    accuracies = np.linspace(0.1, 0.9, 12)
    found = agreement_with_pool(world(np.random.default_rng(0), accuracies, 256), 256).mean(axis=1)
    assert np.abs(found - accuracies).max() < 0.1
    assert (np.argsort(found) == np.argsort(accuracies)).mean() > 0.8


def test_samples_weigh_one_vote_together():
    once = [{0: ["a"], 1: ["b"]}, {0: ["a"], 1: ["c"]}, {0: ["a"], 1: ["b"]}]
    twice = [{p: keys * 2 for p, keys in item.items()} for item in once]
    np.testing.assert_allclose(agreement_with_pool(twice, 2), agreement_with_pool(once, 2), atol=1e-12)


def test_a_prompt_that_was_not_asked_is_missing_and_one_without_conclusion_is_not():
    found = agreement_with_pool([{0: ["a"], 1: [None]}, {0: ["a"]}, {0: ["a"], 1: ["b"]}], 2)
    assert np.isnan(found[1, 1]) and found[0, 1] == 0 and found[2, 1] == 1


def test_one_variant_agrees_with_nobody():
    assert np.isnan(agreement_with_pool([{0: ["a"]}], 1)).all()
    # Nobody concludes anything: nobody agrees.
    assert (agreement_with_pool([{0: [None]}, {0: [None]}], 1) == 0).all()


def response(prompt, text, truncated=False):
    return Response(prompt, 0, (1,), (2, 3), text, truncated)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["<think>1</think>\nSo it is 12.", "= 3", "nothing"], "number"),
        (["The answer is B.", "(C)", "no"], "choice"),
        (["a= a1 a2\nb= + -", "a= a1 a3", "a= b2"], "text"),
    ],
)
def test_how_most_responses_conclude(texts, match):
    assert choose_match([[response(i, text) for i, text in enumerate(texts)]]) == match


def pool(*answers):
    variants = [
        Variant(f"{i:04d}", "merge", True, Observation([response(p, *text) for p, text in enumerate(texts)]))
        for i, texts in enumerate(answers)
    ]
    return Pool(variants, NexConfig(), ConsensusConfig())


def test_as_a_measure_with_parts_by_prompt():
    found = CONSENSUS.values(pool([("1",), ("2",)], [("1",), ("2",)], [("1",), ("5",)], [("1",), ("2", True)]))
    values = [item.value for item in found]
    assert values[0] == values[1] > values[2] > 0.4
    assert found[3].parts.tolist() == pytest.approx([1, 0], abs=1e-3), "what was cut off concludes nothing"
    assert found[0].weights.tolist() == [1, 1]
    drawn = CONSENSUS.resample(pool(), found, np.array([[2, 0], [1, 1]]))
    assert drawn[2].tolist() == pytest.approx([found[2].parts[0], values[2]])
