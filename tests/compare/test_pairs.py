"""Which prompts are compared, in which order, on which side; and that nothing shown says whose an answer is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nex_merge.compare.pairs import LEFT, SIDES, is_swapped, open_comparison
from nex_merge.errors import InputError
from nex_merge.runs.comparisons import read_comparisons
from nex_merge.runs.preferred import tally
from nex_merge.runs.run import RunFolder
from tests.compare.compared import PROMPTS, chat, numbers, opened, say, word
from tests.labels.answered import answer_run


def test_open_ended_answers_differ_where_their_texts_do(chats):
    found = opened(chats, "0", "base")
    assert found.comparison.match is None, "consensus is undefined"
    assert sorted(found.comparison.order) == list(range(PROMPTS - 1)) and found.comparison.prompts == PROMPTS


def test_answers_that_conclude_the_same_are_no_question(numbered):
    found = opened(numbered, "0", "base")
    assert found.comparison.match == "number"
    assert sorted(found.comparison.order) == list(range(PROMPTS - 2)), "other words for the same number are a tie"


def test_answers_without_a_conclusion_are_asked_where_conclusions_are_compared(numbered):
    answer_run(numbered, lambda v, p: f"no idea, {word(v)}" if p == 0 else numbers(v, p))
    assert 0 in opened(numbered, "0", "base").comparison.order


def test_thinking_is_neither_compared_nor_shown(chats):
    answer_run(chats, lambda v, p: f"<think>I am {word(v)}</think>{'alike' if p < 3 else chat(v, p)}")
    found = opened(chats, "0", "base")
    assert sorted(found.comparison.order) == list(range(3, PROMPTS - 1))
    assert all("I am" not in one.left + one.right for one in found.questions())


def test_the_order_is_random_and_independent_of_which_prompts_differ(chats):
    found = opened(chats, "0", "base").comparison
    assert list(found.order) != sorted(found.order)
    answer_run(chats, lambda v, p: "the same" if p in (2, 5) else chat(v, p))
    again = opened(chats, "0", "base").comparison
    assert [p for p in found.order if p not in (2, 5)] == list(again.order)
    assert again.id != found.id, "other answers are another comparison to whoever has a page of it"


def test_sides_and_order_over_many_seeds(chats):
    found = opened(chats, "0", "base").comparison
    sides = np.array([[is_swapped(replace(found, seed=seed), p) for p in range(10)] for seed in range(400)])
    assert np.all(np.abs(sides.mean(axis=0) - 0.5) < 0.1) and np.abs(np.corrcoef(sides.T)[0, 1:]).max() < 0.2


def test_a_side_is_kept_as_the_trial_whose_answer_stood_there(chats):
    found = opened(chats, "0", "base")
    texts = found.questions()
    assert found.comparison.between == ("0000", "base")
    for question in texts:
        first = found.answers[question.prompt][0].text
        better = found.judgement(question.prompt, "ann", LEFT).better
        assert (better == "first") == (question.left == first)
    assert {is_swapped(found.comparison, one.prompt) for one in texts} == {False, True}
    assert [found.judgement(0, "ann", said).better for said in SIDES[2:]] == ["both", "neither"]


def test_two_trials_have_one_comparison_whatever_the_order_they_are_named_in(chats):
    assert opened(chats, "base", "0").comparison == opened(chats, "0000", "base").comparison
    opened(chats, "a", "b")
    assert [one.between for one in read_comparisons(chats)] == [("0000", "base"), ("a", "b")]


def test_a_later_session_goes_on(chats):
    say(opened(chats, "0", "base"), "0000", 3)
    later = opened(chats, "0", "base")
    assert len(tally(chats, later.comparison).outcomes) == 3
    assert later.take_back(later.comparison.order[2], "ann").comparison.judgements == later.comparison.judgements[:2]


def test_judgements_of_answers_that_changed_do_not_count(chats):
    found = say(opened(chats, "0", "base"), "0000", 4)
    third = found.comparison.order[2]
    answer_run(chats, lambda v, p: f"anew {word(v)}" if p == third else chat(v, p))
    again = opened(chats, "0", "base")
    counted = tally(chats, again.comparison)
    assert (len(counted.outcomes), counted.waiting, counted.outdated) == (2, 1, 1)


def test_another_sample_of_a_prompt_is_not_compared(chats):
    for trial in ("base", "0000"):
        path = RunFolder(chats).folder(trial) / "responses.jsonl"
        lines = path.read_text().splitlines()
        extra = [json.dumps({**json.loads(line), "sample": 1, "text": f"second {trial}"}) for line in lines]
        path.write_text("\n".join(sorted(lines + extra, key=lambda line: json.loads(line)["prompt"])) + "\n")
    assert all("second" not in one.left + one.right for one in opened(chats, "0", "base").questions())


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (("7", "base"), "trial '7': not in this run"),
        (("0", "0000"), "expected two trials, got trial 0 twice"),
    ],
)
def test_trials_that_are_none_are_refused(chats, between, words):
    with pytest.raises(InputError, match=words):
        open_comparison(RunFolder(chats), between)


def test_two_that_hardly_differ_are_refused(chats):
    answer_run(chats, lambda v, p: "the same" if p > 3 else chat(v, p))
    few = open_comparison(RunFolder(chats), ("0", "base"))
    with pytest.raises(InputError, match="differently on 4 of 12 prompts, and of fewer than 6 looks"):
        few.check_enough()
    answer_run(chats, lambda v, p: "the same")
    with pytest.raises(InputError, match="trial 0 and base never"):
        open_comparison(RunFolder(chats), ("0", "base"))


def test_prompts_whose_file_has_changed_are_decoded(chats):
    config = chats / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("prompts_sha256: ", "prompts_sha256: other"))
    assert all("<|im_start|>" in one.text for one in opened(chats, "0", "base").questions())


def test_a_trial_without_responses_is_refused(chats):
    path = RunFolder(chats).folder("0001") / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "failed", "reason": "out of memory"}))
    with pytest.raises(InputError, match=r"trial 1 has no responses \(out of memory\)"):
        open_comparison(RunFolder(chats), ("1", "base"))
