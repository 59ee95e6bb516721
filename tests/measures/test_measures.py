"""Every measure on a pool made by hand, in closed form; what shows measures is a view of one table."""

from dataclasses import replace
from math import exp, log10

import numpy as np
import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.measures.estimates import Objective, estimate_new, objective_of, score_pool
from nex_merge.measures.measure import Pool, Rules
from nex_merge.measures.registry import MEASURES, OBJECTIVES
from nex_merge.measures.responses import PerResponse
from nex_merge.records import (
    Credits,
    Evidence,
    NexScore,
    Observation,
    PhaseCounts,
    Response,
    SparseGroups,
    TextFigures,
    TokenStats,
    TrialResult,
    Variant,
)
from nex_merge.runs import leaderboard, rows
from nex_merge.setup.config import NexConfig
from nex_merge.setup.study_config import StudyConfig

pytestmark = pytest.mark.quick

# Three responses: two samples of prompt 0, the second of which is cut off, and one of prompt 1.
PROMPTS = (0, 0, 1)
LENGTHS = (4, 8, 6)


def floats(*values):
    return np.array(values, np.float64)


def evidence():
    """Neuron 1 has only effective credit: w = 1. Neuron 2: w = tanh(log(1 / 3)) = -0.8. Neuron 3 has none."""
    credits = Credits(
        np.array([0, 2, 2, 3]), np.array([1, 2, 2], np.uint32),
        np.array([1, 1, 0], np.float32), np.array([0, 1, 2], np.float32),
    )  # fmt: skip
    masses = np.array([3, 1, 1, 1, 1], np.float16)
    base = SparseGroups(np.array([0, 2, 4, 5]), np.array([1, 2, 1, 3, 2], np.uint32), masses)
    return Evidence(np.array(PROMPTS), base, credits)


def observation():
    responses = [
        Response(prompt, sample, (1,), tuple(range(length)), "so it is 12", cut)
        for prompt, sample, length, cut in zip(PROMPTS, (0, 1, 0), LENGTHS, (False, True, False), strict=True)
    ]
    stats = [TokenStats(0.5, 0.1, 2.0, -0.4), TokenStats(0.7, 0.3, 4.0, -1.0), TokenStats(1.5, 0.2, 3.0, -0.1)]
    phases = PhaseCounts(
        cycles=np.array([2, 0, 3]), credited=np.array([True, False, True]), explore=np.array([3, 1, 2]),
        phased=np.array([4, 2, 6]), novelty=floats(1.5, np.nan, 2.5),
    )  # fmt: skip
    text = TextFigures(
        truncated=floats(0, 1, 0), distinct_ratio=floats(1, 0.25, 0.5), repeated=floats(0, 0.75, 0),
        empty=floats(0, 0, 1), non_text=floats(0.1, 0, 0.2),
    )  # fmt: skip
    return Observation(responses, stats, evidence(), phases, text, neurons=10)


def variant(trial="0000", kind="merge", **changes):
    score = NexScore(None, None, "self", (), 3, 0, 5, 2, 6 / 12, {})
    return Variant(trial, kind, True, replace(observation(), **changes), score=score)


def pool(*variants, nex=None):
    return Pool(variants or (variant("a", "parent"), variant()), Rules(nex or NexConfig()))


# Good-Mass Fractions of the three responses: 3 (w = 1) and 1 (w = -0.8); 1 (w = 1); 1 (w = -0.8).
NEX = (3 / 3.8 + 1 + 0) / 3
CLOSED = {
    "nex": NEX,
    "consensus": (0.5 * 1 + 1) / 2,  # all conclude the same; what was cut off concludes nothing
    "agreement": (0.5 * 0.5 + 1) / 2,  # one of two samples, with one of two of the other's
    "self_consistency": None,  # fewer than four samples
    "finished": 2 / 3,  # all but what was cut off
    "log_gap": -log10(1 - NEX),
    "mean_tokens": 18 / 3,
    "truncated": 1 / 3,
    "looping": 1 / 3,
    "distinct_ratio": 1.75 / 3,
    "entropy": 2.7 / 3,
    "explore_share": 6 / 12,
    "cycles_per_response": 5 / 3,
    "entropy_spread": 0.6 / 3,
    "self_certainty": 9 / 3,
    "perplexity": exp(1.5 / 3),
    "utilization": (2 + 2 + 1) / 3 / 10,
    "novelty": 4 / 2,  # of the responses that have one
    "repeated": 0.75 / 3,
    "empty": 1 / 3,
    "non_text": 0.3 / 3,
    "weighted_mass": 6 / 7,  # all but one of neuron 3
    "saturation": 4 / 6,  # the mass of neuron 1
}
# On prompt 0 alone, of the measures that have figures by prompt.
FIRST_PROMPT = {
    "mean_tokens": 12 / 2,
    "truncated": 1 / 2,
    "looping": 1 / 2,
    "explore_share": 4 / 6,
    "cycles_per_response": 2 / 2,
    "perplexity": exp(1.4 / 2),
    "utilization": 4 / 2 / 10,
    "novelty": 1.5,
    "consensus": 0.5,
    "finished": 1 / 2,
    # Under weights from prompt 0: neuron 2 has as much credit as it has redundancy, so w = 0.
    "nex": (1 + 1) / 2,
}


def test_every_measure_is_here():
    assert set(CLOSED) == set(MEASURES)


@pytest.mark.parametrize("name", MEASURES)
def test_the_value_in_closed_form(name):
    for item in MEASURES[name].values(pool()):
        assert item.value == (None if CLOSED[name] is None else pytest.approx(CLOSED[name], rel=1e-6))


@pytest.mark.parametrize("name", MEASURES)
def test_the_value_is_what_becomes_of_its_parts(name):
    measure = MEASURES[name]
    item = measure.values(pool())[1]
    if name in ("log_gap", "weighted_mass", "saturation"):
        assert item.parts is None and item.weights is None
        return
    assert item.parts.shape == item.weights.shape == (2,)
    if item.value is None:
        assert not item.weights.any()
        return
    assert measure.finish(item.parts.sum() / item.weights.sum()) == pytest.approx(item.value, rel=1e-6)


@pytest.mark.parametrize("calibration", ["self", "crossfit", "parents", "pool"])
@pytest.mark.parametrize("name", MEASURES)
def test_all_prompts_once_is_the_value_itself(name, calibration):
    measure, everyone = MEASURES[name], pool(nex=NexConfig(calibration=calibration))
    values = measure.values(everyone)
    drawn = measure.resample(everyone, values, np.array([[1, 1], [2, 2]]))
    if values[1].parts is None or values[1].value is None:
        assert np.isnan(drawn).all(), "there are no figures by prompt to resample"
    else:
        assert drawn[1].tolist() == pytest.approx([values[1].value] * 2, rel=1e-6)


@pytest.mark.parametrize("name", [name for name, value in FIRST_PROMPT.items() if value is not None])
def test_one_prompt_of_two_drawn(name):
    measure = MEASURES[name]
    drawn = measure.resample(pool(), measure.values(pool()), np.array([[2, 0]]))
    assert drawn[:, 0].tolist() == pytest.approx([FIRST_PROMPT[name]] * 2, rel=1e-6)


def without_second_prompt(item):
    """The variant with its responses to prompt 0 alone."""
    seen, known = item.observation, item.observation.evidence
    credits = Credits(
        known.credits.ptr[:3], *(getattr(known.credits, k)[:2] for k in ("keys", "effective", "redundant"))
    )
    base = SparseGroups(known.base.ptr[:3], known.base.keys[:4], known.base.masses[:4])
    cut = {name: type(part)(**{key: values[:2] for key, values in vars(part).items()})
           for name, part in (("phases", seen.phases), ("text", seen.text))}  # fmt: skip
    observation = replace(seen, responses=seen.responses[:2], stats=seen.stats[:2],
                          evidence=Evidence(known.prompts[:2], base, credits), **cut)  # fmt: skip
    return replace(item, observation=observation, score=replace(item.score, responses=2, cycles=2, explore_share=4 / 6))


def test_one_prompt_has_values_and_no_intervals():
    parent, merge = (without_second_prompt(item) for item in pool().variants)
    found = estimate_new(Pool([parent, merge], Rules()), None)
    assert set(found) == set(MEASURES)
    for name, item in found.items():
        assert (item.value is None) == (name == "self_consistency") and (item.low, item.high) == (
            None,
            None,
        ), name
    for name, value in FIRST_PROMPT.items():
        assert found[name].value == (None if value is None else pytest.approx(value, rel=1e-6)), name
    scoring = score_pool(pool(parent, merge), Objective("nex", 1))
    assert all(item.beats_parent is None for item in scoring.estimates["0000"].values())


def test_intervals_cover_the_value_where_there_are_two_prompts():
    found = estimate_new(Pool([variant("a", "parent"), variant()], Rules()), None)
    for name, item in found.items():
        if name in ("log_gap", "weighted_mass", "saturation") or CLOSED[name] is None:
            assert item.low is None and item.high is None
        else:
            assert item.low <= item.value <= item.high, name
    assert (found["mean_tokens"].low, found["mean_tokens"].high) == (6, 6), "both prompts have 6 on average"
    assert found["cycles_per_response"].low == 1 and found["cycles_per_response"].high == 3


@pytest.mark.parametrize("name", MEASURES)
def test_what_was_not_captured_is_undefined_and_never_zero(name):
    bare = replace(variant(), observation=Observation(observation().responses), score=None)
    value = MEASURES[name].values(pool(bare, variant("0001")))[0].value
    # Length and the look of the text are known from the responses alone, and so is what they conclude.
    of_text = {"agreement", "consensus", "finished", "mean_tokens", "truncated", "distinct_ratio", "repeated", "empty",
               "non_text", "looping"}  # fmt: skip
    assert (value is not None) == (name in of_text)


def test_what_an_old_run_recorded_stands_in_for_figures_it_did_not_keep():
    old = replace(variant(), observation=replace(observation(), stats=None), recorded={"entropy": 0.25})
    (found,) = MEASURES["entropy"].values(pool(old))
    assert found.value == 0.25 and found.parts is None


def test_a_huge_perplexity_does_not_overflow():
    stats = [TokenStats(0.5, 0.1, 2.0, -1e6)] * 3
    (found,) = MEASURES["perplexity"].values(pool(variant(stats=stats)))
    assert found.value == exp(700)


def test_a_model_without_mass_or_credit():
    known = evidence()
    silent = Evidence(
        known.prompts, SparseGroups(known.base.ptr, known.base.keys, np.zeros(5, np.float16)), known.credits
    )
    (found,) = MEASURES["nex"].values(pool(variant(evidence=silent)))
    assert found.value is None
    none = Credits(np.zeros(4, np.int64), np.zeros(0, np.uint32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    uncredited = pool(variant(evidence=replace(known, credits=none)))
    assert MEASURES["nex"].values(uncredited)[0].value == 0
    assert MEASURES["saturation"].values(uncredited)[0].value is None


# What shows measures


def test_objectives_and_columns_are_views_of_the_table():
    assert list(OBJECTIVES) == [name for name, measure in MEASURES.items() if measure.is_objective]
    assert {"log_gap", "weighted_mass"}.isdisjoint(OBJECTIVES)
    measured = [name for name in rows.COLUMNS if name in MEASURES]
    assert measured == list(MEASURES)
    bounds = {f"{name}_{end}" for name, measure in MEASURES.items() if measure.with_interval for end in ("low", "high")}
    assert bounds and {name for name in rows.COLUMNS if name.endswith(("_low", "_high"))} == bounds | {
        "accuracy_low", "accuracy_high",
    }  # fmt: skip
    for name, measure in OBJECTIVES.items():
        assert objective_of(StudyConfig(objective=name)).sign == measure.direction


def test_a_new_entry_is_estimated_shown_and_ranked(monkeypatch):
    planted = PerResponse(
        "planted", -1, "characters", 1, "what a test added", with_interval=True,
        figures=lambda seen: floats(*(len(response.text) for response in seen.responses)),
    )  # fmt: skip
    monkeypatch.setitem(MEASURES, "planted", planted)
    everyone = pool()
    found = estimate_new(Pool(everyone.variants[:2], Rules()), None)["planted"]
    assert (found.value, found.low, found.high) == (11, 11, 11)
    scoring = score_pool(everyone, Objective("planted", -1))
    assert {trial: measured["planted"].value for trial, measured in scoring.estimates.items()} == {"a": 11, "0000": 11}
    assert "planted" in scoring.reliability.split_halves
    listing = CliRunner().invoke(app, ["measures"]).output
    assert "planted: what a test added\n    less is better, characters, objective\n" in listing
    assert rows._measure_columns()[-3:] == ["planted", "planted_low", "planted_high"]
    result = TrialResult("0000", "merge", "ties", "ties", 0, "complete", estimates=scoring.estimates["0000"])
    (row,) = leaderboard.rank([result], Objective("planted", -1))
    assert (row.column("planted"), row.column("planted_low")) == (11, 11) and not leaderboard.sorts_descending(
        "planted"
    )
