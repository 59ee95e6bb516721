"""One trial with an engine of ten lines: what is on disk when, what its result says, and what it is compared with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nex_merge.errors import TrialError
from nex_merge.measures.registry import MEASURES
from nex_merge.records import MergeRecipe
from nex_merge.runs import custody
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.proposal import passthrough
from tests.engines.fakes import FakeEngine
from tests.searches import RunnerHere, terms_of

EQUAL = {"weight.a": 0.5, "weight.b": 0.5}
KEY = "study.constraints"
MERGE = MergeRecipe("merge", "ties", {"merge_method": "ties", "models": []}, 7, EQUAL)


def noted(text):
    assert "the study has no hashes" in text, text  # there is none yet


@pytest.fixture
def start(toy_config):
    """Makes a runner in a new run folder; keyword arguments change the configuration."""

    def begun(engine=None, notify=lambda stage, amount: None, **changes):
        resolved = resolve_config(str(toy_config), changes)
        asked = FakeEngine().encode(resolved.prompts, resolved.config.prompts, 0)
        with custody.hold(resolved, False, noted) as run:
            terms = terms_of(resolved.config, ["base", "a", "b"], asked, reference=EQUAL)
            return RunnerHere(engine or FakeEngine(), terms, run, notify), run

    return begun


def member(name, toy):
    return passthrough("base" if name == "base" else "parent", name, toy[name], "bfloat16")


def test_everything_is_on_disk_before_the_result(start):
    runner, run = start()
    answered = runner.answer("0000", "ties", MERGE)
    names = {path.name for path in run.folder("0000").iterdir()}
    assert names == {"recipe.yaml", "responses.jsonl", "cache", "credit", "answered.json"}
    assert run.result("0000") is None and run.begun() == ["0000"]
    result = runner.finish(answered, None)
    assert {path.name for path in run.folder("0000").iterdir()} == names - {"answered.json"} | {"result.json"}
    assert run.result("0000") == result and run.begun() == []


def test_the_recipe_is_on_disk_before_anything_can_go_wrong_with_it(start):
    class Refuses(FakeEngine):
        def load(self, recipe):
            raise TrialError("not finite")

    runner, run = start(Refuses())
    with pytest.raises(TrialError, match="not finite"):
        runner.answer("0000", "ties", MERGE)
    assert [path.name for path in run.folder("0000").iterdir()] == ["recipe.yaml"]
    assert "--random-seed 7" in (run.folder("0000") / "recipe.yaml").read_text()


def test_what_a_result_says(start):
    engine, stages = FakeEngine(), []
    runner, run = start(engine, lambda stage, amount: stages.append(stage))
    result = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert list(dict.fromkeys(stages)) == ["merge", "generate", "capture", "score"]
    assert set(result.seconds) == {"merge", "generate", "capture", "score"}
    assert (result.trial, result.kind, result.name, result.method, result.seed) == ("0000", "merge", "ties", "ties", 7)
    assert result.weights_sha256 == engine.load(MERGE) and result.parameters == EQUAL
    assert result.score.responses == result.score.scored == 4
    assert set(result.estimates) == set(MEASURES)
    # The fake: 6 tokens a response, an entropy of 0.5 nats, 6 of 64 neurons.
    values = {name: result.value(name) for name in ("mean_tokens", "entropy", "utilization", "consensus")}
    assert values == {"mean_tokens": 6, "entropy": 0.5, "utilization": 6 / 64, "consensus": None}
    assert result.value("nex") == result.score.nex
    figures = json.loads((run.folder("0000") / "result.json").read_text())["figures"]
    assert len(figures["stats"]) == len(figures["phases"]["cycles"]) == len(figures["text"]["empty"]) == 4


def test_what_needs_a_pool_is_measured_among_the_earlier_ones(start, toy):
    runner, _ = start()
    runner.finish(runner.answer("base", "base", member("base", toy)), None)
    result = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert result.value("consensus") is not None


def test_only_the_merge_with_equal_weights_is_the_reference(start, toy):
    runner, _ = start()
    other = MergeRecipe("merge", "ties", {**MERGE.config, "x": 1}, 8, {**EQUAL, "weight.b": 0.6})
    found = [
        runner.finish(runner.answer(trial, recipe.method, recipe), None).is_reference
        for trial, recipe in (("a", replace(member("a", toy), parameters=EQUAL)), ("0000", MERGE), ("0001", other))
    ]
    assert found == [False, True, False]


@pytest.mark.parametrize(
    ("constraints", "state", "violations", "reason"),
    [
        ({}, "complete", {}, None),
        ({"mean_tokens": "<=12"}, "complete", {"mean_tokens": -0.5}, None),
        ({"mean_tokens": ">= 12"}, "infeasible", {"mean_tokens": 0.5}, f"{KEY}.mean_tokens: expected >= 12, got 6"),
        # Of 0 there is no share. The fake repeats nothing.
        ({"repeated": "<= 0", "entropy": "<= 0"}, "infeasible", {"repeated": 0.0, "entropy": 0.5},
         f"{KEY}.entropy: expected <= 0, got 0.5"),
        # Nobody else has answered yet.
        ({"consensus": ">= 0.1", "mean_tokens": "<= 4"}, "infeasible", {"consensus": 1.0, "mean_tokens": 0.5},
         f"{KEY}.consensus: expected >= 0.1, got no value; {KEY}.mean_tokens: expected <= 4, got 6"),
    ],
)  # fmt: skip
def test_how_far_a_merge_is_beyond_what_is_allowed(start, constraints, state, violations, reason):
    runner, run = start(study={"constraints": constraints})
    result = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert (result.state, result.violations, result.reason) == (state, {"collapse": -1.0, **violations}, reason)
    assert result.violation == max(result.violations.values()) and run.result("0000") == result
    assert result.value("nex") is not None, "an infeasible merge has its values all the same"


def test_constraints_are_for_merges(start, toy):
    runner, _ = start(study={"constraints": {"mean_tokens": "<= 4"}})
    parent = runner.finish(runner.answer("a", "a", member("a", toy)), None)
    assert (parent.state, parent.violation, parent.violations) == ("complete", None, {})


def test_a_constraint_on_a_pooled_measure_is_judged_among_those_before(start, toy):
    """Later merges change consensus, and the state of no trial."""
    runner, _ = start(study={"constraints": {"consensus": ">= 1"}})
    runner.finish(runner.answer("base", "base", member("base", toy)), None)
    result = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert result.violations["consensus"] == pytest.approx(1 - result.value("consensus"))


def test_a_merge_that_loops_has_collapsed_and_a_parent_that_does_has_not(start, toy):
    class Loops(FakeEngine):
        """Loops from the second recipe on."""

        def answer(self, *args, **kwargs):
            answered = super().answer(*args, **kwargs)
            return [replace(r, token_ids=(7,) * 6) for r in answered] if len(self.loaded) > 1 else answered

    runner, run = start(Loops())
    for name in ("a", "b"):
        parent = runner.finish(runner.answer(name, name, member(name, toy)), None)
        assert (parent.state, parent.violation, parent.reason) == ("complete", None, None)
    merge = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert (merge.state, merge.violation) == ("complete", -1), "one of the fine-tunes loops as well"
    run.discard("b")
    merge = runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert merge.state == "collapsed" and merge.violation == pytest.approx(1 / 0.25 - 1)
    assert merge.reason == "finishes 0 % of its responses, the worst fine-tune 100 %; 100 % loop"


def test_without_activation_mass_there_is_no_score(start):
    class Silent(FakeEngine):
        def capture(self, *args, **kwargs):
            captured = super().capture(*args, **kwargs)
            captured.rows.base.masses[:] = 0
            return captured

    runner, run = start(Silent())
    with pytest.raises(TrialError, match="no response has any activation mass"):
        runner.finish(runner.answer("0000", "ties", MERGE), None)
    assert run.result("0000") is None


def test_drafts_are_the_answers_of_the_members_before(start, toy):
    engine = FakeEngine()
    runner, _ = start(engine)
    for name in ("base", "a", "b"):
        runner.answer(name, name, member(name, toy))
    runner.answer("0000", "ties", MERGE)
    runner.answer("a", "a", member("a", toy))  # again, now that b has answered
    assert engine.drafts == [0, 4, 8, 12, 4]


def test_the_same_prompts_for_every_trial(start):
    runner, _ = start(prompts={"limit": 3})
    assert len(runner.terms.prompt_ids) == 3 and np.ptp([len(ids) for ids in runner.terms.prompt_ids]) == 0
