"""What a run recommends, and that everything which names a merge names that one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.measures.estimates import Objective
from nex_merge.records import Estimate, Verdict
from nex_merge.report.data import take_snapshot
from nex_merge.runs import advice, results
from nex_merge.runs.advice import lead, next_steps
from nex_merge.runs.card import verdict_line
from nex_merge.runs.cuts import cut_lines
from nex_merge.runs.leaderboard import best_merge, rank, read_rows, recommendation
from nex_merge.runs.recommend import NO_VERDICT, recommend, standing
from nex_merge.runs.results import read_reliability
from nex_merge.runs.watch import look
from tests.report.planted import plant
from tests.report.test_page import page_of
from tests.runs.test_leaderboard import FOUR, NEX, measured, reliability, result

CONSENSUS = Objective("consensus", 1)
WIDE = {"COLUMNS": "300"}  # the first line, which names the folder, stays one


def judged(run, **levels):
    """The planted run with these verdicts."""
    found = read_reliability(run.path)
    verdicts = {name: Verdict(level, (f"{name} says so",)) for name, level in levels.items()}
    fields = {**vars(found), "verdicts": verdicts}
    scores = results.read_scores(run.path)
    results.write_scores(run.path, scores, type(found)(**fields))
    return run


def test_one_merge_is_recommended_by_everything(tmp_path):
    run = judged(plant(tmp_path / "run", 60), nex="insufficient", consensus="sound")
    rows = read_rows(run)
    merges = [row for row in rows if row.kind == "merge" and row.state == "complete"]
    members = [row for row in rows if row.kind != "merge"]
    best = max(merges, key=lambda row: row.value("consensus"))
    assert best.trial != merges[0].trial and best.value("consensus") > max(row.value("consensus") for row in members)
    label = f"trial {int(best.trial)}"
    first = f"Recommended: {label}, by consensus (sound): {best.value('consensus'):.3f}"
    assert {row.trial: row.recommended for row in rows if row.recommended} == {best.trial: "consensus"}
    assert best_merge(run).trial == take_snapshot(run).pick.trial == best.trial
    assert best_merge(run, "nex").trial == merges[0].trial
    assert look(run).told.startswith(first)
    invoke = CliRunner(env=WIDE).invoke
    text = invoke(app, ["leaderboard", str(run.path)]).stdout.splitlines()
    assert text[1].startswith(first)
    assert next(line for line in text if line.startswith("First by NEX (insufficient): trial "))
    assert invoke(app, ["leaderboard", str(run.path), "--format", "md"]).stdout.startswith(f"Recommended: {label}, by")
    listed = json.loads(invoke(app, ["leaderboard", str(run.path), "--format", "json"]).stdout)
    assert [row["trial"] for row in listed if row["recommended"]] == [best.trial]
    page, notes = page_of(run)
    assert f'<p class="big">{first}' in page and f"<h4>Recommended: {label}</h4>" in page and not notes
    assert f"--trial {int(best.trial)} --out OUT" in page
    told = standing(recommendation(run), best.trial)
    assert verdict_line("consensus", Verdict("sound"), told).endswith(
        "sound; it is recommended, by consensus (sound) |"
    )
    assert standing(recommendation(run), "0099") == f"recommended is {label}, by consensus (sound)"


def test_that_nothing_is_recommended_is_said_first(tmp_path):
    run = judged(plant(tmp_path / "run", 6), nex="insufficient", consensus="insufficient")
    text = CliRunner(env=WIDE).invoke(app, ["leaderboard", str(run.path)]).stdout.splitlines()
    assert text[1] == "Nothing is recommended: the verdicts on NEX and consensus are insufficient."
    assert text[2].startswith("First by NEX (insufficient): trial ")
    page, _ = page_of(run)
    assert '<p class="big">Nothing is recommended: the verdicts on NEX and consensus are insufficient.' in page
    assert "<h4>First by NEX: trial " in page and "Recommended" not in page
    assert not any(row.recommended for row in read_rows(run))
    weak = reliability(nex="insufficient", of_consensus="weak")
    found = recommend(rank([*FOUR, measured("q", 0.1, 0.95, "parent")], NEX), NEX, weak)
    assert found.why == ("the verdict on NEX is insufficient; by consensus (weak), q is better than every merge")
    assert recommend(rank(FOUR, NEX), NEX, None).why == NO_VERDICT
    assert next(lead(rank(FOUR, NEX), NEX, None)) == "Nothing is recommended yet: there is no verdict yet."
    assert next_steps(rank(FOUR, NEX), NEX, None, Path("x")) == [
        "For a verdict on what is done so far: nex-merge rescore x"
    ]
    missing = [result("0000", 0.5), result("0001", 0.6)]
    found = recommend(rank(missing, CONSENSUS), CONSENSUS, reliability(nex="insufficient"))
    assert found.why == "the verdict on NEX is insufficient; no merge has a value of consensus"


def test_a_merge_that_answers_nothing_is_no_candidate():
    """Versions before the guard looked for silence called such merges complete."""
    short = Objective("mean_tokens", -1)
    silent, talking = (
        result(trial, 0.5, estimates={"mean_tokens": Estimate(tokens), "empty": Estimate(empty)})
        for trial, tokens, empty in (("0000", 1.0, 1.0), ("0001", 90.0, 0.1))
    )
    assert recommend(rank([silent, talking], short), short, reliability()).row.trial == "0001"
    assert recommend(rank([silent], short), short, reliability()).why == "the only merge gives empty answers"
    two = recommend(rank([silent, result("0002", 0.1, state="collapsed")], short), short, reliability())
    assert two.why == "none of 2 merges is complete, and 1 gives empty answers"


def cut(trial, share, looping, kind="merge"):
    estimates = {"truncated": Estimate(share), "looping": Estimate(looping)}
    return result(trial, 0.5, kind, estimates=estimates)


def test_cut_responses_are_said_with_what_helps(tmp_path):
    (tmp_path / "config.yaml").write_text("generation: {max_new_tokens: 400}")
    few = [cut("base", 0.1, 0.0, "base"), cut("0000", 0.05, 0.0)]
    assert cut_lines(rank(few, NEX), tmp_path) == []
    rows = rank([cut("base", 0.9, 0.1, "base"), cut("p", 0.0, 0.0, "parent"), cut("0000", 0.5, 0.1)], NEX)
    (line,) = cut_lines(rows, tmp_path)
    assert line == (
        "Cut at generation.max_new_tokens (400) in more than a tenth of their responses: base (90%) and 1 of 1 merge. "
        "Most don't loop: raise the limit. --fresh sets this run aside; --out DIR instead leaves it as it is: "
        f"nex-merge search {tmp_path}/config.yaml --set generation.max_new_tokens=800 --fresh"
    )
    (line,) = cut_lines(rank([cut("p", 1.0, 0.8, "parent"), cut("0000", 0.5, 0.5)], NEX), tmp_path)
    assert "p (100%) and 1 of 1 merge. They loop, which a higher limit won't end" in line and "nex-merge" not in line
    (line,) = cut_lines(rank([cut("p", 1.0, 0.8, "parent"), cut("0000", 0.5, 0.1)], NEX), tmp_path)
    assert "Most don't loop: raise the limit; p (100%) mostly loop, which it won't end" in line


@pytest.mark.parametrize("objective", ["mean_tokens", "entropy"])
def test_an_interval_stands_for_whatever_objective(tmp_path, objective):
    run = plant(tmp_path / "run", 3, study={"objective": objective})
    found = CliRunner().invoke(app, ["leaderboard", str(run.path), "--format", "md"]).stdout.splitlines()
    head, row = found[2].split("|"), found[4].split("|")
    low = min(read_rows(run), key=lambda row: row.rank).interval(objective)[0]
    shown = dict(zip((cell.strip() for cell in head), (cell.strip() for cell in row), strict=True))
    assert shown["95 %"].startswith(f"{low:.{0 if objective == 'mean_tokens' else 3}f}-")


def test_a_run_without_activations(toy_config, tmp_path):
    """Its verdict is up to date, NEX has no column, and the page shows its responses and conclusions."""
    from tests.searches import search

    _, recorder = search(toy_config, study={"objective": "consensus", "trials": 3}, activations={"capture": "none"})
    run = tmp_path / "run"
    assert sum("Cut at generation.max_new_tokens (24)" in note for note in recorder.notes) == 1
    at = next(i for i, note in enumerate(recorder.notes) if note.startswith("Cut at"))
    assert recorder.ended[:3] == ["base", "a", "b"] and at >= 0
    from nex_merge.runs.run import RunFolder

    page, notes = page_of(RunFolder(run))
    assert not notes and "It dates from" not in page and "were not captured" in page
    response = RunFolder(run).responses("a")[0].text.split()[0]
    assert '<section class="reading"><p class="quiet">24 tokens, cut at generation.max_new_tokens</p>' in page
    assert response in page and "Cut at generation.max_new_tokens (24)" in page
    for form in ("table", "md"):
        text = CliRunner(env=WIDE).invoke(app, ["leaderboard", str(run), "--format", form]).stdout
        assert " nex " not in next(line for line in text.splitlines() if " trial " in line and "method" in line)
        assert "open-ended" not in text


def test_what_each_concludes_where_they_differ(tmp_path):
    """The pool concludes 2 on prompt 1, where the pick says so and a parent doesn't."""
    from nex_merge.records import Response
    from nex_merge.report.conclusions import differences
    from nex_merge.runs import files

    run = plant(tmp_path / "run", 3)
    pick = take_snapshot(run).pick.trial
    for found in run.results():
        said = {"pairs": "It is 3.", "base": "<b>It</b> is 2."}.get(found.trial, "It is 2.")
        texts = ["It is 1.", said, *["It is 4."] * 4]
        files.write_responses(run.folder(found.trial), [
            Response(i, 0, (20, 21), (30, 31), text, False) for i, text in enumerate(texts)
        ])  # fmt: skip
    found = differences(take_snapshot(run))
    assert found.about.startswith("The pick and base or a parent conclude differently on 1 of 6 prompts.")
    assert "the pick 1, " in found.about and "parent pairs 0, parent signs 1, base 1." in found.about
    (line,) = found.lines
    shown = dict(zip(found.columns, line.cells, strict=True))
    assert line.prompt.startswith("1") and shown["The pool"] == ("2", True)
    assert shown["Parent pairs"] == ("3", False) and shown[f"Recommended: trial {int(pick)}"] == ("2", True)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"voters_if_copies": 3.4}, "13 independent ones, or like 3 if those that are alike are copies"),
        ({"voters_if_copies": 12.7}, "13 independent ones"),
        ({}, "13 independent ones"),
        ({"copies": 1.0}, "13 independent ones: those that are alike are taken for copies"),
    ],
)
def test_how_many_voters_there_are_is_said_once(figures, said):
    assert advice._voters(13.2, figures) == said
