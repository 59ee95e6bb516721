"""What blind comparisons say: which trial is better, in sentences, and when to compare; from judgements by hand."""

from pathlib import Path

import pytest

from nex_merge.errors import InputError
from nex_merge.records import Response
from nex_merge.runs.comparisons import Comparison, Judgement, hash_of, keep, read_comparisons
from nex_merge.runs.files import write_responses
from nex_merge.runs.preferred import better_than, card_rows, combined, compared_lines, tallies
from tests.compare.compared import is_settled

ORDER = (5, 2, 9, 0, 7, 1, 3, 8)


def response(prompt: int, text: str) -> Response:
    return Response(prompt, 0, (1,), (2,), text, False)


def compared(run: Path, *said: str, judge: str = "ann", between=("0012", "base"), skip=()) -> Path:
    """A run with judgements, in the order drawn, of two trials that differ on eight prompts."""
    answers = {}
    for trial in between:
        folder = run / "trials" / trial
        folder.mkdir(parents=True, exist_ok=True)
        write_responses(folder, [response(p, f"{trial} on {p}") for p in range(10)])
    for p in ORDER:
        answers[p] = hash_of(*(response(p, f"{trial} on {p}") for trial in between))
    plan = Comparison(between, 0, None, 10, ORDER, answers)
    places = [p for p in ORDER if p not in skip]
    new = [Judgement(p, judge, word, answers[p]) for p, word in zip(places, said, strict=False)]
    keep(run, between, lambda there: (there or plan).with_judgements(*new))
    return run


def test_while_it_is_open_nothing_says_who_leads(tmp_path):
    run = compared(tmp_path, "first", "first", "both")
    assert compared_lines(run) == [
        "Compared blind: trial 12 against base on 3 prompts so far: not settled; at most 5 more looks."
    ]
    assert not is_settled(run, "0012", "base")


def test_a_side_that_is_better_is_named_with_counts(tmp_path):
    run = compared(tmp_path, *["first"] * 6)
    assert compared_lines(run) == [
        "Compared blind: trial 12 against base on 6 of 8 prompts on which they differ: trial 12 preferred on 6, base "
        "on 0: trial 12 is better (error 5%)."
    ]
    assert is_settled(run, "base", "0012") and not is_settled(run, "0012", "math")
    assert card_rows(run, "0012") == [
        "| compared blind | trial 12 against base on 6 of 8 prompts on which they differ: trial 12 preferred on 6, "
        "base on 0: trial 12 is better (error 5%) |"
    ]
    assert card_rows(run, "0003") == [] and better_than(run, "base") == ["0012"] and better_than(run, "0012") == []
    assert compared_lines(run, "0012") == compared_lines(run)
    assert compared_lines(run, "0003")[-1] == "  None of these is of trial 3, which leads now."


def test_looks_beyond_the_one_that_settled_it_are_counted_and_change_nothing(tmp_path):
    line = compared_lines(compared(tmp_path, *["second"] * 6, "first", "neither"))[0]
    assert "trial 12 preferred on 1, base on 6, neither on 1: base is better (error 5%, settled after 6)" in line


def test_what_can_not_be_settled_any_more_is_over(tmp_path):
    some = compared(tmp_path / "some", "first", "second", "both")
    assert "not settled, and the 5 prompts left can't settle it." in compared_lines(some)[0]
    every = compared(tmp_path / "all", "first", "both", *["first"] * 4, "both", "neither")
    assert "trial 12 preferred on 5, base on 0, both good on 2, neither on 1: not settled, though all were" in str(
        compared_lines(every)
    )


def test_prompts_count_in_the_order_drawn(tmp_path):
    """Whoever leaves one out would choose the sample."""
    run = compared(tmp_path, *["first"] * 6, skip=(2,))
    assert compared_lines(run) == [
        "Compared blind: trial 12 against base on 1 prompt so far: not settled; at most 7 more looks.",
        "  5 judged prompts wait: one before, in the order drawn, has no judgement.",
    ]
    compared(run, "first", skip=set(ORDER) - {2})
    assert is_settled(run, "0012", "base")


def test_several_judges_of_a_prompt_count_once(tmp_path):
    run = compared(tmp_path, *["first"] * 3)
    compared(run, *["first"] * 3, judge="bob")
    assert not is_settled(run, "0012", "base"), "six judgements, three prompts"
    assert compared_lines(run)[1] == "  2 judges; of 3 pairs of judgements of one prompt, 3 are the same."
    compared(run, "second", judge="bob")
    assert [*tallies(run)[0].outcomes] == ["split", "first", "first"]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (["first"], "first"),
        (["first", "first", "second"], "first"),
        (["first", "second"], "split"),
        (["first", "both"], "split"),
        (["both", "both", "first"], "both"),
        (["first", "second", "both"], "split"),
    ],
)
def test_more_than_half_of_the_judges_decide(said, outcome):
    assert combined(said) == outcome


def test_the_last_word_of_a_judge_counts(tmp_path):
    run = compared(tmp_path, "first")
    compared(run, "neither")
    assert [one.better for one in read_comparisons(run)[0].judgements] == ["neither"]


def test_a_final_is_told_first(tmp_path):
    compared(tmp_path, "first")
    (tmp_path / "final").mkdir()
    compared(tmp_path / "final", "both", between=("0003", "base"))
    assert [one.comparison.between[0] for one in tallies(tmp_path)] == ["0003", "0012"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "comparisons": [{}]}', '{"schema": 1, "comparisons": [3]}']
)
def test_a_damaged_file_is_said_and_shows_a_leaderboard_all_the_same(tmp_path, text):
    (tmp_path / "compare.json").write_text(text)
    with pytest.raises(InputError, match=r"compare\.json: is damaged.*remove it: what was judged is then lost"):
        read_comparisons(tmp_path)
    assert "is damaged" in compared_lines(tmp_path)[0] and card_rows(tmp_path, "0012") == []


def test_a_newer_file_and_a_word_that_is_none(tmp_path):
    (tmp_path / "compare.json").write_text('{"schema": 2, "comparisons": []}')
    with pytest.raises(InputError, match="expected schema 1, got 2"):
        read_comparisons(tmp_path)
    run = compared(tmp_path / "run", "first")
    path = run / "compare.json"
    path.write_text(path.read_text().replace('"better": "first"', '"better": "third"'))
    with pytest.raises(InputError, match="is damaged"):
        read_comparisons(run)


def test_responses_that_are_gone_are_said(tmp_path):
    run = compared(tmp_path, "first")
    (run / "trials" / "base" / "responses.jsonl").unlink()
    assert "no such file" in compared_lines(run)[0]
