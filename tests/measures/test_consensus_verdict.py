"""The verdict on consensus, in worlds whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from nex_merge import InputError, consensus
from nex_merge.measures.advice import HIGHER, LOOK, SHOW_OPTIONS, UNRACED
from nex_merge.measures.consensus_verdict import CLEAR, TORN, assess_consensus, audit_of
from nex_merge.measures.dissent import dissent_figures
from nex_merge.measures.finishing import Ending
from nex_merge.measures.readings import readings
from nex_merge.measures.votes import Votes

PROMPTS = 64


def world(seed, low, high, share, variants=30, prompts=PROMPTS):
    """Conclusions of variants that are right ("0") as often as drawn; `share` of the wrong ones are the same."""
    rng = np.random.default_rng(seed)
    right = rng.random((variants, prompts)) < rng.uniform(low, high, variants)[:, None]
    popular = rng.random((variants, prompts)) < share
    keys = np.where(right, 0, np.where(popular, 1, 2 + rng.integers(20, size=(variants, prompts))))
    return [{p: [str(key)] for p, key in enumerate(row)} for row in keys]


def levels(*arguments, **options):
    return [assess_consensus(world(seed, *arguments), PROMPTS, split_half=0.9, **options).level for seed in range(10)]


def test_scattered_mistakes_are_sound_and_shared_ones_are_not():
    assert levels(0.3, 0.9, 0).count("sound") >= 9
    assert levels(0.3, 0.9, 0.3).count("sound") >= 8
    assert "sound" not in levels(0.05, 0.3, 0.9)
    assert "sound" not in levels(0.1, 0.6, 0.9)


@pytest.mark.parametrize("count", [12, 36])
def test_near_copies_of_one_wrong_model_outvote_nobody(count):
    """Twelve independent variants, and copies of one that is right on a fifth, but for 7 % of its answers."""
    ranked, found = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        others = world(seed, 0.4, 0.8, 0, variants=12)
        copied = [str(2 + rng.integers(20)) if rng.random() < 0.8 else "0" for _ in range(PROMPTS)]
        copies = [
            {p: [key if rng.random() > 0.07 else str(2 + rng.integers(20))] for p, key in enumerate(copied)}
            for _ in range(count)
        ]
        votes = Votes([*others, *copies], PROMPTS)
        values = readings(votes).fit.by_prompt.mean(axis=1)
        ranked.append(values[:12].min() > values[12:].max())
        found.append(assess_consensus([*others, *copies], PROMPTS, split_half=0.9))
    assert np.mean(ranked) >= 0.8
    assert all(right for verdict, right in zip(found, ranked, strict=True) if verdict.level == "sound")
    assert all(verdict.figures["voters"] < 20 for verdict in found), "of 24 and of 48"


def test_prompts_that_all_answer_alike_tell_nothing():
    alike = [{p: ["1"] for p in range(20)} for _ in range(6)]
    verdict = assess_consensus(alike, 20, split_half=None)
    assert verdict.level == "insufficient" and "only 0 prompts tell the variants apart" in verdict.reasons[0]


def test_ten_equal_models_are_one_voter():
    model = world(1, 0.5, 0.5, 0, variants=1)[0]
    other = world(2, 0.5, 0.5, 0, variants=3)
    votes = Votes([model] * 10 + other, PROMPTS)
    few = dissent_figures(votes, readings(votes).fit, ())["voters"]
    many = world(3, 0.5, 0.5, 0, variants=13)
    independent = Votes(many, PROMPTS)
    assert few < 0.75 * dissent_figures(independent, readings(independent).fit, ())["voters"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_copies_make_no_verdict_better(count):
    """Of too few variants, which a copy would make enough of."""
    models = world(0, 0.5, 0.9, 0, variants=count)
    plain = assess_consensus(models, PROMPTS)
    copied = assess_consensus([*models, *models[:1] * 4], PROMPTS, split_half=0.9)
    assert plain.level == copied.level != "sound"
    assert any(reason.count("as 4 conclude the same as another throughout") for reason in copied.reasons)


def test_base_and_parents_that_agree_with_one_another_contradict_the_pool():
    pool = [{p: ["merged"] if i % 7 else [f"{i} {p}"] for p in range(PROMPTS)} for i in range(1, 10)]
    anchors = [{p: ["theirs"] for p in range(PROMPTS)}] * 2
    verdict = assess_consensus([*anchors, *pool], PROMPTS, split_half=0.9, anchors=[0, 1])
    assert verdict.figures["anchors_contradict"] == 1
    assert any("base and parents agree" in reason for reason in verdict.reasons)


def test_an_audit_turns_the_verdict_where_the_pool_is_wrong():
    inverted = world(0, 0.05, 0.3, 0.9)
    verdict = assess_consensus(inverted, PROMPTS, split_half=0.9, truths=dict.fromkeys(range(12), "0"))
    assert verdict.level == "insufficient" and "an audit contradicts it" in verdict.reasons[0]
    plain = world(0, 0.3, 0.9, 0)
    verdict = assess_consensus(plain, PROMPTS, split_half=0.9, truths=dict.fromkeys(range(12), "0"))
    assert verdict.level == "sound" and verdict.figures["audit_right"] == 12
    assert audit_of(readings(Votes(plain, PROMPTS)).fit, {}) is None


def test_what_was_cut_off_and_prose_are_named():
    cut = [{p: [str(p)] if p < 10 else [None] for p in range(30)} for _ in range(6)]
    reasons = assess_consensus(cut, 30, split_half=0.9).reasons
    assert any("only 33% of the responses conclude anything" in reason for reason in reasons)
    prose = [{p: [" ".join(["word"] * 40) + str(p)] for p in range(30)} for _ in range(6)]
    reasons = assess_consensus(prose, 30, split_half=0.9, match="text").reasons
    assert any("whole texts of 30 words" in reason for reason in reasons)


def test_cut_and_empty_answers_are_not_open_ended():
    each = [{p: [None] if p else [f"{v}"] for p in range(10)} for v in range(5)]
    assert "open-ended" in assess_consensus(each, 10).reasons[0]
    cut = assess_consensus(each, 10, endings={Ending.CUT: 0.9, Ending.INCONCLUSIVE: 0.1})
    assert cut.reasons[0].endswith("on any prompt: of all responses, 90% are cut at max_new_tokens")
    assert cut.advice == (HIGHER,)
    loops = assess_consensus(each, 10, endings={Ending.LOOPS: 0.6, Ending.CUT: 0.1, Ending.EMPTY: 0.3})
    assert loops.reasons[0].endswith("10% are cut at max_new_tokens, 60% loop, 30% are empty")
    assert loops.advice == (LOOK,)


def test_one_is_not_many():
    voters = [{p: ["a" if p or v else "b"] for p in range(6)} for v in range(3)]
    reasons = assess_consensus(voters, 6).reasons
    assert any(reason.startswith("only 1 prompt tells the variants apart") for reason in reasons), reasons
    assert any(reason.startswith("only 2 variants vote, as 1 concludes the same as another") for reason in reasons)


# The pure function


def test_models_by_name_or_in_order_are_ranked_best_first():
    answers = world(4, 0.3, 0.9, 0)
    by_name = {f"m{i}": {p: keys[0] for p, keys in item.items()} for i, item in enumerate(answers)}
    found = consensus(by_name)
    assert [row.consensus for row in found.rows] == sorted((row.consensus for row in found.rows), reverse=True)
    assert all(row.low <= row.consensus <= row.high for row in found.rows)
    in_order = consensus([[keys[0] for keys in item.values()] for item in answers])
    assert [f"m{row.name}" for row in in_order.rows] == [row.name for row in found.rows]
    assert found.verdict == "sound" and found.reasons == ()
    assert set(found.pooled.values()) == {"0"} and min(found.claimed.values()) > 0.9


def test_samples_missing_prompts_and_truths():
    found = consensus({"a": {"p": ["1", "1"], "q": "2"}, "b": {"p": "1"}, "c": {"p": None, "q": "3"}},
                      truths={"q": "3"})  # fmt: skip
    values = {row.name: row.consensus for row in found.rows}
    assert values["b"] == pytest.approx(1) and values["a"] == pytest.approx(0.5) and values["c"] == pytest.approx(0.5)
    with pytest.raises(InputError, match="at least two models"):
        consensus({"a": ["1"]})


def test_open_ended_answers_have_no_ranking():
    found = consensus([[f"{v} {p}" for p in range(10)] for v in range(5)])
    assert [row.consensus for row in found.rows] == [None] * 5 and found.verdict == "insufficient"


def test_votes_that_a_race_left_out_make_a_verdict_weak():
    voters = [{p: ["a" if p % 8 >= v else f"{v}"] for p in range(PROMPTS)} for v in range(6)]
    levels = [assess_consensus(voters, PROMPTS, split_half=0.9, unheard=share).level for share in (0.0, 0.05, 0.1, 0.4)]
    assert levels == ["sound", "sound", "weak", "weak"]
    assert assess_consensus(voters, PROMPTS, split_half=0.9, unheard=0.4).advice[0] == UNRACED


def test_a_few_who_are_taken_for_reliable_outvoting_a_larger_number_is_a_sign_against():
    """On 20 of 64 prompts the pool concludes what two of ten variants say, where the others agree."""
    rng = np.random.default_rng(0)
    pool = [{p: ["a" if rng.random() < 0.7 else f"{v} {p}"] for p in range(PROMPTS)} for v in range(8)]
    pool += [{p: ["b" if p < 20 + v else "a"] for p in range(PROMPTS)} for v in range(2)]
    found = readings(Votes(pool, PROMPTS))
    assert assess_consensus(pool, PROMPTS, split_half=0.9, found=found).figures["overruled"] == 0
    fit = replace(found.fit, pooled={p: "b" if p < 20 else "a" for p in range(PROMPTS)})
    found = replace(found, independent=replace(found.independent, fit=fit))
    verdict = assess_consensus(pool, PROMPTS, split_half=0.9, found=found)
    assert verdict.figures["overruled"] == 20 / PROMPTS and verdict.level == "insufficient"
    assert any("outvote a larger number" in reason for reason in verdict.reasons)


def test_a_ranking_that_hangs_on_who_is_a_copy_is_weak():
    """Four variants are right on 0.6, eight loose copies of a model on a fifth: nobody else can tell them apart."""
    undecided = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        source, *fresh = world(seed, 0.2, 0.2, 0, variants=9)
        copies = [{p: source[p] if rng.random() < 0.8 else item[p] for p in range(PROMPTS)} for item in fresh]
        pool = [*world(seed, 0.6, 0.6, 0, variants=4), *copies]
        verdict = assess_consensus(pool, PROMPTS, split_half=0.9)
        figures = verdict.figures
        told = [reason for reason in verdict.reasons if "copies of one another" in reason]
        assert bool(told) == (figures["torn"] >= TORN and figures["torn_lead"] < CLEAR)
        undecided += bool(told)
        assert not told or verdict.level != "sound"
        if told:  # twenty labels that agree with the pool settle it, for the pool
            pooled = readings(Votes(pool, PROMPTS)).fit.pooled
            audited = assess_consensus(pool, PROMPTS, truths={p: pooled[p] for p in range(20)}, split_half=0.9)
            assert not any("copies of one another" in reason for reason in audited.reasons)
    assert undecided > 0


def test_nothing_to_agree_on_is_not_open_ended_where_prompts_have_options():
    silent = [{p: [None] for p in range(20)} for _ in range(5)]
    verdict = assess_consensus(silent, 20, options=dict.fromkeys(range(20), 4))
    assert "the prompts have options" in verdict.reasons[0] and verdict.advice == (SHOW_OPTIONS,)
    assert "open-ended" not in verdict.reasons[0] and "open-ended" in assess_consensus(silent, 20).reasons[0]
