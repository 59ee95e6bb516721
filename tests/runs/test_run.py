"""A run folder as an object: what is read and when, in which order, and that what was observed comes back."""

import numpy as np
import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.records import Estimate, MergeRecipe, NexScore, TrialResult
from nex_merge.runs import custody, results
from nex_merge.runs.results import write_result
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from tests.conftest import without_hashes
from tests.engines.fakes import FakeEngine
from tests.searches import RunnerHere, terms_of


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run that holds nothing but its configuration."""
    (tmp_path / "config.yaml").write_text("family: qwen3-tiny\nsearch_space: ties\nprompts: {file: x}\noutput: run\n")
    return RunFolder(tmp_path)


def ended(trial, kind="merge", state="complete", **changes):
    return TrialResult(trial, kind, "x", "ties", 0, state, estimates={"nex": Estimate(0.5)}, **changes)


def names(found):
    return [result.trial for result in found]


@pytest.fixture
def reads(monkeypatch):
    """The trials whose result.json was read, in order."""
    found, read = [], results.read_result

    def counted(path, trial):
        item = read(path, trial)
        if item is not None:
            found.append(trial)
        return item

    monkeypatch.setattr(results, "read_result", counted)
    return found


def test_each_result_is_read_once(run, reads):
    for trial in ("0000", "0001", "0002"):
        write_result(run.path, ended(trial))
    for _ in range(3):
        assert names(run.results()) == ["0000", "0001", "0002"]
        assert run.result("0001").trial == run.find("1").trial == "0001"
    assert sorted(reads) == ["0000", "0001", "0002"]
    # What appears later, by this process or another, is found and read once as well.
    write_result(run.path, ended("0003"))
    assert names(run.results()) == names(run.results()) == ["0000", "0001", "0002", "0003"]
    assert sorted(reads) == ["0000", "0001", "0002", "0003"]


def test_what_is_written_again_is_read_again(run, reads):
    run.write(ended("0000"))
    assert run.result("0000").state == "complete"
    run.write(ended("0000", state="failed", reason="planted"))
    assert run.result("0000").reason == "planted" and reads == ["0000", "0000"]


def test_base_then_parents_by_name_then_merges_by_number(run):
    for trial in ("10000", "9999", "0002", "10001"):
        write_result(run.path, ended(trial))
    for trial, kind in (("zeta", "parent"), ("base", "base"), ("alpha", "parent")):
        write_result(run.path, ended(trial, kind))
    assert names(run.results()) == ["base", "alpha", "zeta", "0002", "9999", "10000", "10001"]


def test_finding_a_trial(run):
    with pytest.raises(InputError, match=r"trial '7': not in this run\. Trials: none yet"):
        run.find("7")
    for trial, kind in (("base", "base"), ("0007", "merge"), ("10000", "merge")):
        write_result(run.path, ended(trial, kind))
    assert [run.find(name).trial for name in ("base", "7", "0007", "007", "10000")] == [
        "base", "0007", "0007", "0007", "10000",
    ]  # fmt: skip
    assert run.find("7").trial == "0007"
    with pytest.raises(InputError, match=r"trial 'b': not in this run\. Trials: base, 7, 10000"):
        run.find("b")


def test_only_what_answered_has_responses_to_look_at(run):
    score = NexScore(0.5, 0.3, "self", (0.5,), 1, 1, 0, 0, 0.5, {})
    for item in (
        ended("0000", score=score),
        ended("0001", state="collapsed", score=score),
        ended("0002", state="failed", reason="not finite"),
        ended("0003", state="duplicate", score=score, same_as="0000"),
    ):
        write_result(run.path, item)
    assert run.find_scored("0").trial == "0000" and run.find_scored("1").trial == "0001"
    with pytest.raises(InputError, match=r"trial 2 has no responses \(not finite\)"):
        run.find_scored("2")
    with pytest.raises(InputError, match=r"trial 3 has no responses \(it has the same recipe as trial 0\)"):
        run.find_scored("3")


def test_begun_is_what_has_a_folder_and_no_result(run):
    assert run.begun() == [] and run.results() == []
    write_result(run.path, ended("0000"))
    for trial in ("0001", "b"):
        run.folder(trial).mkdir()
    (run.path / "trials" / "notes.txt").write_text("a user's own")
    assert run.begun() == ["0001", "b"]
    write_result(run.path, ended("0001"))
    assert run.begun() == ["b"] and names(run.results()) == ["0000", "0001"]


def same(found, expected):
    """Whether two records hold the same arrays, NaN being equal to NaN."""
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


@pytest.mark.parametrize("slice_tokens", [2, 6], ids=["phases", "too short for phases"])
def test_what_was_observed_comes_back(toy_config, slice_tokens):
    resolved = resolve_config(str(toy_config), {"activations": {"slice_tokens": slice_tokens}})
    with custody.hold(resolved, False, pytest.fail) as run:
        runner = RunnerHere(FakeEngine(), terms_of(resolved.config, ["base"], [[10]] * 4), run)
        recipe = MergeRecipe("merge", "ties", {"merge_method": "ties"}, 7, {"x": 1})
        answered = runner.answer("0000", "ties", recipe)
        result = runner.finish(answered, None)
    seen = answered.answered.observation
    assert np.isnan(seen.phases.novelty).all() == (slice_tokens == 6), "NaN has to survive, too"
    again = RunFolder(run.path)
    (variant,) = again.variants()
    found = variant.observation
    assert again.find("0").score == result.score == variant.score
    assert again.recipe(again.find("0")) == recipe
    assert (variant.trial, variant.kind, variant.complete, variant.number) == ("0000", "merge", True, 0)
    assert found.responses == seen.responses and list(found.stats) == list(seen.stats) and found.neurons == seen.neurons
    same(found.phases, seen.phases)
    same(found.evidence.base, seen.evidence.base)
    same(found.evidence.credits, seen.evidence.credits)
    assert found.evidence.prompts.tolist() == seen.evidence.prompts.tolist() == [0, 1, 2, 3]
    assert found.text.truncated.tolist() == [0] * 4 and found.text.distinct_ratio.tolist() == [1] * 4
    assert variant.recorded == {name: item.value for name, item in result.estimates.items()}


def test_phases_found_anew_from_the_kept_rows_are_those_that_were_kept(toy_run, toy_run_copy):
    """A run whose own settings are others looks at the rows again."""
    kept, own = RunFolder(toy_run), RunFolder(toy_run).config.nex
    path = without_hashes(toy_run_copy) / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "nex": {"rho": 0.5, "min_run": 3}}))
    for one, other in zip(kept.variants(own), RunFolder(toy_run_copy).variants(own), strict=True):
        same(other.observation.phases, one.observation.phases)
        same(other.observation.evidence.credits, one.observation.evidence.credits)
        assert other.score == one.score


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"not a run folder: there is no such folder"):
        RunFolder(tmp_path / "nowhere")


def test_responses_of_a_trial_that_is_not_there(toy_run):
    run = RunFolder(toy_run)
    assert run.responses("0") == run.responses("0000")
    with pytest.raises(InputError, match=r"^trial '99': not in this run\. Trials: base, "):
        run.responses("99")
