"""Where a comparison is kept and shown: beside a search, in a final, in a run of an earlier version, in a card."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nex_merge.compare.pairs import open_comparison
from nex_merge.errors import InputError
from nex_merge.records import Estimate
from nex_merge.runs.advice import next_steps
from nex_merge.runs.comparisons import read_comparisons
from nex_merge.runs.custody import locked
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import best_merge, read_rows
from nex_merge.runs.preferred import compared_lines
from nex_merge.runs.recommend import recommend
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from tests.compare.compared import chat, is_settled, opened, say
from tests.labels.answered import answer_run
from tests.runs.test_versions import first  # noqa: F401


def test_a_run_that_is_searched_can_be_compared(chats):
    with locked(chats):
        say(opened(chats, "0", "base"), "base", 6)
    assert is_settled(chats, "0000", "base")


def test_both_have_to_have_answered_a_prompt(chats):
    """As where a race has ended a merge early."""
    path = RunFolder(chats).folder("0000") / "responses.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:8]))
    found = opened(chats, "0", "base").comparison
    assert found.prompts == 8 and sorted(found.order) == list(range(8))


def test_the_answers_of_a_final_are_compared_where_both_took_part(chats, tmp_path):
    shutil.copytree(chats, tmp_path / "final")
    final = Path(shutil.move(tmp_path / "final", chats / "final"))
    answer_run(final, lambda v, p: f"{chat(v, p)} in the end")
    shutil.rmtree(final / "trials" / "0001")
    found = say(opened(chats, "0", "base"), "base", 6)
    assert all("in the end" in one.left for one in found.questions())
    assert read_comparisons(chats) == [] and len(read_comparisons(final)) == 1
    assert is_settled(chats, "0000", "base") and "base is better" in compared_lines(chats)[0]
    assert all("in the end" not in one.left for one in opened(chats, "1", "base").questions()), "it was not in it"


def test_a_run_of_version_0_1_0(first):  # noqa: F811
    with pytest.raises(InputError, match="trial 0 and base never answer differently on the 4 prompts"):
        open_comparison(RunFolder(first), ("0", "base"))
    answer_run(first, chat)
    found = opened(first, "0", "base")
    assert found.about == "Trial 0 and base answer differently on 4 of 4 prompts"
    assert all(one.text and one.left != one.right for one in found.questions())


def test_what_a_comparison_found_worse_is_not_offered_for_export(searched, tmp_path):
    run = RunFolder(Path(shutil.copytree(searched, tmp_path / "run")))
    name = run.objective.name
    # Untrained merges count as collapsed, and their responses are too short to be scored.
    rows = [
        replace(
            row, state="complete", estimates={**row.estimates, "empty": Estimate(0.0), name: Estimate(0.5)},
        )
        for row in read_rows(run)
    ]  # fmt: skip
    reliability = read_reliability(run.path)
    assert reliability is not None
    weak = {name: replace(verdict, level="weak") for name, verdict in reliability.verdicts.items()}
    reliability = replace(reliability, verdict="weak", verdicts=weak)
    pick = recommend(rows, run.objective, reliability).row
    assert pick is not None
    offers = next_steps(rows, run.objective, reliability, run.path)
    say(opened(run.path, pick.trial, "base"), "base", 8)
    steps = next_steps(rows, run.objective, reliability, run.path)
    assert offers[0].startswith("Export the pick")
    assert steps[0] == f"No export is offered, as a blind comparison found base better than trial {int(pick.trial)}."
    assert not any("nex-merge export" in step for step in steps)


def test_a_card_says_it(searched, tmp_path):
    run = Path(shutil.copytree(searched, tmp_path / "run"))
    say(opened(run, "0", "base"), "base", 8)
    best = best_merge(RunFolder(run)).trial
    say(opened(run, best, "base"), "base", 8)
    lines = list(export_trial(RunFolder(run), None, tmp_path / "best"))
    assert f"note: compared blind, base is better than trial {int(best)}" in lines
    for _ in export_trial(RunFolder(run), "0", tmp_path / "out"):
        pass
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| compared blind | trial 0 against base on" in card and "base is better (error 5%" in card
    assert "a against base" not in card, "of others"
