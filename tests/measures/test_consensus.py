"""Consensus against a slow transcription of its definition, and where it is undefined."""

import math
import time

import numpy as np
import pandas
import pytest

from nex_merge import consensus
from nex_merge.measures.concluding import choose_match
from nex_merge.measures.consensus import AGREEMENT, CONSENSUS, SELF_CONSISTENCY
from nex_merge.measures.estimates import Objective, score_pool
from nex_merge.measures.measure import Pool, Rules
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes
from nex_merge.records import Observation, Response, Variant
from nex_merge.setup.config import ConsensusConfig


def slowly(conclusions, prompts):
    """The definition, word by word, for one sample a prompt."""
    v, c = range(len(conclusions)), [[item[p][0] for p in range(prompts)] for item in conclusions]
    kinds = [list(dict.fromkeys(c[i][p] for i in v if c[i][p] is not None)) for p in range(prompts)]

    def cosines(weight, prior):
        """From `weight[p][t]`, what agreeing on t shows."""
        norm = [sum(weight[p][c[i][p]] for p in range(prompts) if c[i][p] is not None) for i in v]
        s = [[sum(weight[p][c[i][p]] for p in range(prompts) if c[i][p] is not None and c[i][p] == c[j][p])
              / max(math.sqrt(norm[i] * norm[j]) + prior, 1e-12) for j in v] for i in v]  # fmt: skip
        return [[1.0 if i == j and not prior else x for j, x in enumerate(row)] for i, row in enumerate(s)]

    def kin(s, screened, power):
        """How much u is v again."""
        usual = []
        for i in v:
            others = sorted((s[i][j], j) for j in v if j != i)
            half, seen = sum(screened[j] for _, j in others) / 2, 0.0
            for x, j in others:
                seen += screened[j]
                if seen >= half:
                    usual.append(x)
                    break
        b = [[math.sqrt(usual[i] * usual[j]) for j in v] for i in v]
        beyond = [[max((s[i][j] - b[i][j]) / (1 - b[i][j]), 0) ** power for j in v] for i in v]
        return [[1.0 if i == j else beyond[i][j] for j in v] for i in v]

    def weighed(k):
        """What each vote counts."""
        return [[0.0 if c[i][p] is None else 1 / sum(k[i][j] for j in v if c[j][p] == c[i][p]) for p in range(prompts)]
                for i in v]  # fmt: skip

    def fitted(k):
        """EM under this kinship: a[v], and q[p][t]."""
        w = weighed(k)

        def others(i, p):
            """Share of what the others' votes count that is for the same."""
            total = sum(w[j][p] for j in v if j != i)
            return sum(w[j][p] for j in v if j != i and c[j][p] == c[i][p]) / total if total and w[i][p] else 0.0

        def posterior(a):
            q = []
            for p in range(prompts):
                m = max(len(kinds[p]) - 1, 9)
                logs = [sum(w[i][p] * math.log(a[i] if c[i][p] == t else (1 - a[i]) / m) for i in v) for t in kinds[p]]
                total = sum(math.exp(x - max(logs)) for x in logs)
                q.append({t: math.exp(x - max(logs)) / total for t, x in zip(kinds[p], logs, strict=True)})
            return q

        a = [min(max(sum(others(i, p) for p in range(prompts)) / prompts, 0.05), 0.95) for i in v]
        for _ in range(100):
            q = posterior(a)
            new = [min(max(sum(q[p].get(c[i][p], 0) for p in range(prompts)) / prompts, 0.01), 0.99) for i in v]
            moved, a = max(abs(x - y) for x, y in zip(a, new, strict=True)), new
            if moved <= 1e-6:
                break
        return a, posterior(a)

    plain = cosines([dict.fromkeys(k, 1.0) for k in kinds], 0.0)
    screened = [1 / sum(x**4 for x in row) for row in plain]
    same = [[float(c[i] == c[j]) for j in v] for i in v]

    def more(one, other):
        return [[max(one[i][j], other[i][j]) for j in v] for i in v]

    def doubted(k):
        alike = cosines([{t: 1 - x for t, x in item.items()} for item in fitted(k)[1]], 5.0)
        return more(kin(alike, screened, 1.5), same)

    independent = (doubted(same), *fitted(same))
    copied = doubted(doubted(more(kin(plain, screened, 1.0), same)))
    copies = (copied, *fitted(copied))
    both = more(copies[0], independent[0])
    w = weighed(both)

    def predicted(i, p, a):
        """Probability of what i concludes, given the votes of its non-kin."""
        if c[i][p] is None:
            return 0.0
        m = max(len(kinds[p]) - 1, 9)
        logs = {t: sum((1 - both[i][j]) * w[j][p] * math.log(a[j] / ((1 - a[j]) / m)) for j in v if c[j][p] == t)
                for t in kinds[p]}  # fmt: skip
        return math.exp(logs[c[i][p]]) / (sum(map(math.exp, logs.values())) + m + 1 - len(kinds[p]))

    gains = [sum(predicted(i, p, copies[1]) - predicted(i, p, independent[1]) for p in range(prompts)) / prompts
             for i in v]  # fmt: skip
    weights = [1 / sum(row) for row in both]
    gained = sum(x * y for x, y in zip(gains, weights, strict=True)) / sum(weights)
    q = (copies if gained > 0.03 else independent)[2]
    return gained, [[q[p].get(c[i][p], 0.0) for p in range(prompts)] for i in v]


def world(rng, accuracies, prompts):
    """Conclusions of variants that are right as often as told; wrong ones scatter over ten; some conclude nothing."""
    return [
        {p: ["right" if rng.random() < a else None if rng.random() < 0.1 else f"wrong {rng.integers(10)}"]
         for p in range(prompts)}
        for a in accuracies
    ]  # fmt: skip


def agreement_with_pool(conclusions, prompts, options=None, truths=None):
    return readings(Votes(conclusions, prompts, options, truths)).fit.by_prompt


def test_it_is_the_definition():
    told = []
    for seed in range(3):
        for copies in (0, 4):
            conclusions = world(np.random.default_rng(seed), [0.2, 0.5, 0.6, 0.8, 0.9], 20)
            rng, wrong = np.random.default_rng([seed, 1]), world(np.random.default_rng([seed, 2]), [0.3], 20)[0]
            conclusions += [{p: ["x"] if rng.random() < 0.1 else wrong[p] for p in range(20)} for _ in range(copies)]
            gained, expected = slowly(conclusions, 20)
            found = readings(Votes(conclusions, 20))
            np.testing.assert_allclose(found.fit.by_prompt, expected, atol=1e-9)
            assert found.gained == pytest.approx(gained, abs=1e-9)
            told.append(found.are_copies)
    assert True in told and False in told, "both readings are taken"


def test_copies_count_once():
    """A dozen copies of a model that is right on 0.45, but for 7 % of its answers, among twelve independent ones."""
    rng = np.random.default_rng(3)
    independent = world(rng, np.linspace(0.4, 0.8, 12), 64)
    copied, *fresh = world(rng, [0.45] * 13, 64)
    copies = [{p: keys[p] if rng.random() < 0.07 else copied[p] for p in range(64)} for keys in fresh]
    found = readings(Votes([*independent, *copies], 64))
    fit = found.fit
    assert np.mean([fit.pooled[p] == "right" for p in range(64)]) > 0.95
    assert fit.by_prompt[12:].mean() < 0.6, "the copies"
    assert 11 < fit.voters < 17
    alone = found.votes.fit(np.ones(len(found.votes.cell)))  # as many as they are: they outvote the others
    assert alone.by_prompt[12:].mean() > 0.8 and np.mean([alone.pooled[p] == "right" for p in range(64)]) < 0.7


def test_the_order_of_variants_and_a_copy_change_little():
    conclusions = world(np.random.default_rng(4), np.linspace(0.3, 0.8, 14), 64)
    found = agreement_with_pool(conclusions, 64).mean(axis=1)
    order = np.random.default_rng(5).permutation(14)
    np.testing.assert_allclose(agreement_with_pool([conclusions[i] for i in order], 64).mean(axis=1), found[order])
    for again in (0, 7, 13):
        more = agreement_with_pool([*conclusions, conclusions[again]], 64).mean(axis=1)
        assert np.abs(more[:14] - found).max() < 0.01 and more[14] == more[again]


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


def test_known_truths_are_what_a_variant_is_measured_by():
    conclusions = [{0: ["a"], 1: ["x"]}, {0: ["a"], 1: ["x"]}, {0: ["b"], 1: ["x"]}]
    found = agreement_with_pool(conclusions, 2, truths={0: "b", 1: None})
    np.testing.assert_array_equal(found, [[0, 0], [0, 0], [1, 0]])


def test_fewer_options_make_agreement_more_likely_by_chance():
    conclusions = [{0: ["A"], 1: ["x"]}, {0: ["A"], 1: ["y"]}, {0: ["B"], 1: ["z"]}]
    many, two = agreement_with_pool(conclusions, 2), agreement_with_pool(conclusions, 2, options={0: 2})
    assert two[2, 0] > many[2, 0]


# crowd-kit uses keywords that pandas has deprecated.
@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
def test_as_crowd_kit_has_it_under_equal_priors_and_penalties():
    """Complete answers, four options each: wrong answers scatter over three, as crowd-kit's over the other classes."""
    from crowdkit.aggregation import OneCoinDawidSkene

    rng = np.random.default_rng(1)
    right = rng.integers(4, size=200)
    is_right = rng.random((9, 200)) < np.linspace(0.3, 0.8, 9)[:, None]
    answers = np.where(is_right, right, (right + rng.integers(1, 4, (9, 200))) % 4)
    # crowd-kit takes options that nobody chose for possible truths, too.
    answers = answers[:, [len(set(column)) == 4 for column in answers.T]][:, :40]
    assert answers.shape == (9, 40)
    conclusions = [{p: [int(key)] for p, key in enumerate(row)} for row in answers]

    class EqualPriors(OneCoinDawidSkene):
        """crowd-kit estimates how frequent each class is; here, every class is as likely. All rounds are run."""

        def _e_step(self, data, priors, *rest):
            return super()._e_step(data, priors * 0 + 0.25, *rest)

    frame = pandas.DataFrame(
        [(p, v, int(key)) for v, row in enumerate(answers) for p, key in enumerate(row)],
        columns=["task", "worker", "label"],
    )
    model = EqualPriors(n_iter=100, tol=-np.inf).fit(frame)
    votes = Votes(conclusions, 40, options=dict.fromkeys(range(40), 4))
    fit = votes.fit(np.ones(len(votes.cell)))  # nobody is kin
    np.testing.assert_allclose(model.skills_.sort_index().to_numpy(), fit.reliability, atol=1e-4)
    probabilities = model.probas_.sort_index()
    ours = [[probabilities.loc[p, key] for p, key in enumerate(row)] for row in answers]
    np.testing.assert_allclose(ours, fit.by_prompt, atol=1e-4)


def response(prompt, text, truncated=False, sample=0):
    return Response(prompt, sample, (1,), (2, 3), text, truncated)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        (["<think>1</think>\nSo it is 12.", "= 3", "nothing"], "number"),
        (["The answer is B.", "(C)", "no"], "choice"),
        (["a= a1 a2\nb= + -", "a= a1 a3", "a= b2"], "text"),
        (["d= d1 d2\ne= e1 e4", "c= c1 c3\nd= d4 d5", "g= + -\nh= - -"], "text"),
        (["There are 3 reasons.\n\nSo it depends."] * 3, "text"),
    ],
)
def test_how_most_responses_conclude(texts, match):
    cut = [response(9, "B", truncated=True)] * 3
    assert choose_match([Observation([*(response(i, text) for i, text in enumerate(texts)), *cut])]) == match


def pool(*answers):
    variants = [
        Variant(f"{i:04d}", "merge", True, Observation([response(p, *text) for p, text in enumerate(texts)]))
        for i, texts in enumerate(answers)
    ]
    return Pool(variants, Rules())


def test_as_a_measure_with_parts_by_prompt():
    found = CONSENSUS.values(pool([("1",), ("2",)], [("1",), ("2",)], [("1",), ("5",)], [("1",), ("2", True)]))
    values = [item.value for item in found]
    assert values[0] == values[1] > values[2] > 0.4
    assert found[3].parts.tolist() == pytest.approx([1, 0], abs=1e-3), "what was cut off concludes nothing"
    assert found[0].weights.tolist() == [1, 1]
    drawn = CONSENSUS.resample(pool(), found, np.array([[2, 0], [1, 1]]))
    assert drawn[2].tolist() == pytest.approx([found[2].parts[0], values[2]])


def test_open_ended_answers_have_no_consensus():
    open_ended = pool(*([("ab"[i % 2] * 3 + "cd"[i // 2] * (p + 1),) for p in range(10)] for i in range(4)))
    assert not CONSENSUS.is_defined(open_ended)
    assert CONSENSUS.is_defined(pool([("1",), ("2",)], [("1",), ("2",)]))
    scoring = score_pool(open_ended, Objective("consensus", 1))
    assert all(item["consensus"].value is None for item in scoring.estimates.values())
    verdict = scoring.reliability.of("consensus")
    assert (
        verdict.level == "insufficient"
        and "open-ended" in verdict.reasons[0]
        and "equal weights" in verdict.advice[0].text
    )


def test_agreement_is_the_mean_share_of_the_others():
    found = AGREEMENT.values(pool([("1",), ("2",)], [("1",), ("3",)], [("1",), ("2",)]))
    assert [item.value for item in found] == [0.75, 0.5, 0.75]
    assert AGREEMENT.values(pool([("1",)]))[0].value is None


def test_self_consistency_needs_four_samples():
    texts = ["1", "1", "2", "1"]
    four = [response(0, text, sample=i) for i, text in enumerate(texts)] + [
        response(1, "7", sample=i) for i in range(4)
    ]
    variants = [Variant("a", "merge", True, Observation(four)), Variant("b", "merge", True, Observation(four[:3]))]
    found = SELF_CONSISTENCY.values(Pool(variants, Rules(consensus=ConsensusConfig(match="number"))))
    assert found[0].value == pytest.approx((3 / 6 + 1) / 2) and found[1].value is None


def test_two_hundred_variants_on_256_prompts_take_less_than_two_seconds():
    conclusions = world(np.random.default_rng(0), np.linspace(0.2, 0.9, 200), 256)
    began = time.process_time()
    assert consensus(conclusions).rows[0].consensus > 0.8
    assert time.process_time() - began < 2, "with intervals, split halves and the verdict"


def test_votes_on_a_part_of_the_prompts_are_those_of_a_pool_that_was_asked_only_these():
    conclusions = world(np.random.default_rng(2), [0.3, 0.5, 0.7, 0.9, 0.6], 12)
    some = [{i: keys[p] for i, p in enumerate((1, 4, 5, 9))} for keys in conclusions]
    part = readings(Votes(conclusions, 12, {4: 3}, {5: "right"}).on(np.array([1, 4, 5, 9]))).fit.by_prompt
    np.testing.assert_allclose(part[:, [1, 4, 5, 9]], agreement_with_pool(some, 4, {1: 3}, {2: "right"}), atol=1e-12)
    assert np.isnan(np.delete(part, [1, 4, 5, 9], axis=1)).all()
