"""The final: other prompts than the search has, who takes part, what leads afterwards, interruptions."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from nex_merge.cli.app import app
from nex_merge.errors import InputError
from nex_merge.inspect.views import view_response
from nex_merge.measures.estimates import Objective
from nex_merge.report.data import take_snapshot
from nex_merge.report.page import render
from nex_merge.runs.export import export_trial
from nex_merge.runs.files import trial_label
from nex_merge.runs.leaderboard import best_merge, read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.final import _finalists
from nex_merge.study.terms import split_prompts
from tests.rows import by_column, row_of
from tests.searches import search
from tests.study.test_race import PROMPTS, Skilled

FINAL = {"trials": 8, "objective": "consensus", "final": {"top": 2, "share": 0.25}}
SETTINGS = {"prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": PROMPTS}, "study": FINAL}


@pytest.fixture
def played(toy_config, tmp_path):
    """(rows, engine, run) of a search with a final."""
    engine = Skilled()
    rows, _ = search(toy_config, engine=engine, **SETTINGS)
    return rows, engine, RunFolder(tmp_path / "run")


def test_the_prompts_are_split_by_the_seed():
    study = StudyConfig.model_validate({"final": {"share": 0.25}, "seed": 3})
    searched, final = split_prompts(study, PROMPTS)
    assert len(final) == 6 and sorted(searched + final) == list(range(PROMPTS))
    assert split_prompts(study, PROMPTS) == (searched, final)
    assert split_prompts(study.model_copy(update={"seed": 4}), PROMPTS)[1] != final
    assert split_prompts(StudyConfig(), PROMPTS) == (list(range(PROMPTS)), [])


def test_the_search_does_not_see_the_prompts_of_the_final(played):
    rows, engine, run = played
    searched, final = split_prompts(run.config.study, PROMPTS)
    merges = sum(row["kind"] == "merge" for row in rows)
    assert engine.asked == [searched] * (3 + merges) + [final] * (3 + merges), "all complete merges vote"
    for result in run.results():
        assert {r.prompt for r in run.responses(result.trial)} == set(searched) and result.answered == 1
        assert {r.prompt for r in run.final.responses(result.trial)} == set(final)


def test_the_final_leads_and_says_so(played):
    rows, _, run = played
    own = [row["trial"] for row in search_ranking(run) if row["kind"] == "merge"]
    equal = next(row["trial"] for row in rows if row["reference"])
    leading = [row for row in rows if row["stage"] == "final"]
    assert {row["trial"] for row in leading} == {"base", "a", "b", equal, *own[:2]}
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1)) and rows[: len(leading)] == leading
    values = {row["trial"]: row["consensus"] for row in leading}
    for trial, value in values.items():
        assert run.final.result(trial) is not None and value == run.final.scores().estimates[trial]["consensus"].value
    pick = best_merge(run)
    assert pick.trial in (*own[:2], equal) and pick.trial == next(r["trial"] for r in leading if r["kind"] == "merge")
    assert read_reliability(run.path) == read_reliability(run.final.path)
    voters = [v for v in run.final.variants() if v.kind == "merge" and not v.complete]
    assert len(voters) == 8 - len({*own[:2], equal}), "the others vote, and can't be picked"


def test_only_who_reaches_the_final_is_captured_if_so_asked(toy_config, tmp_path):
    settings = {**SETTINGS, "activations": {"capture": "final"}}
    rows, _ = search(toy_config, engine=Skilled(), **settings)
    run = RunFolder(tmp_path / "run")
    assert all("capture" not in result.seconds for result in run.results())
    leading = {row["trial"] for row in rows if row["stage"] == "final"}
    captured = {result.trial for result in run.final.results() if "capture" in result.seconds}
    assert captured == leading and len(run.final.results()) > len(leading), "those that only vote are not captured"
    assert all((row["nex"] is not None) == (row["trial"] in leading) for row in rows)


def test_capture_in_a_final_needs_a_final(toy_config):
    settings = {"study": {"objective": "consensus"}, "activations": {"capture": "final"}}
    with pytest.raises(
        InputError, match=r"activations\.capture: final needs study\.final; set that, or use all or none"
    ):
        search(toy_config, **settings)


def test_each_figure_of_the_report_shows_one_stage(played):
    _, _, run = played
    page = render(take_snapshot(run), datetime.now(UTC), lambda note: None)
    figures = json.loads(page.partition('id="figures">')[2].partition("</script>")[0])
    rows = {"search": search_ranking(run), "final": [r for r in by_column(read_rows(run)) if r["stage"] == "final"]}
    values = {stage: {r["trial"]: r["consensus"] for r in of if r["rank"]} for stage, of in rows.items()}
    assert values["final"].items() - values["search"].items(), "the stages differ"
    for name, stage in (("history", "search"), ("measure-nex", "search"), ("front", "final")):
        points = [
            (text.removeprefix("trial ").partition(",")[0], y)
            for trace in figures[name]["data"]
            for text, y in zip(trace.get("text", ()), trace["y"], strict=False)
        ]
        expected = {trial_label(trial): value for trial, value in values[stage].items()}
        assert points and all(expected[trial] == y for trial, y in points), name
        assert len(points) == sum(name != "history" or trial.isdigit() for trial in expected)
    for stage, captions in (("search", 3), ("final", 1)):
        assert page.count(f"Values of the {stage}, on its prompts.") >= captions
    lead = page.partition("How reliable")[0]
    pick = next(row for row in rows["final"] if row["kind"] == "merge")
    assert f"{pick['consensus']:.3f} [{pick['consensus_low']:.3f}, {pick['consensus_high']:.3f}]" in lead
    assert f"In the final, {len(rows['final'])} variants answered" in lead


def search_ranking(run):
    return by_column(read_rows(run, final=False))


def test_a_final_that_was_interrupted_goes_on(toy_config, tmp_path, played):
    rows, engine, _ = played
    searched = 3 + 8

    class Dies(Skilled):
        def answer(self, *args, **kwargs):
            if len(self.asked) == searched + 4:
                raise KeyboardInterrupt
            return super().answer(*args, **kwargs)

    output = str(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        search(toy_config, engine=Dies(), output=output, **SETTINGS)
    assert RunFolder(tmp_path / "killed").final is None, "a final that is not over does not lead"
    rest = Skilled()
    again, resumed = search(toy_config, engine=rest, output=output, **SETTINGS)
    assert again == rows and len(rest.asked) == len(engine.asked) - searched - 4
    told = [note for note in resumed.notes if "trials are finished" in note]
    assert told == [f"{output}: its 11 trials are finished; the final is not"]


def test_a_longer_search_plays_its_final_anew(toy_config, tmp_path, played):
    rows, _ = search(toy_config, engine=Skilled(), **{**SETTINGS, "study": {**FINAL, "trials": 12}})
    fresh, _ = search(
        toy_config, engine=Skilled(), output=str(tmp_path / "fresh"), **{**SETTINGS, "study": {**FINAL, "trials": 12}}
    )
    assert rows == fresh


@pytest.mark.parametrize(
    "changes",
    [{"activations": {"capture": "final"}}, {"study": {"constraints": {"consensus": ">= 0.8"}}}],
    ids=["captured", "bound"],
)
def test_what_an_earlier_final_left_changes_nothing(toy_config, tmp_path, changes):
    def go(trials, **more):
        study = {**FINAL, "trials": trials, **changes.get("study", {})}
        return search(toy_config, engine=Skilled(), **{**SETTINGS, **changes, "study": study, **more})[0]

    for trials in (4, 6, 9):
        go(trials)
    assert go(14) == go(14, output=str(tmp_path / "fresh"))

    def found(folder):
        results = RunFolder(tmp_path / folder).final.results()
        return {r.trial: (r.state, r.score is None, r.violations) for r in results}

    assert found("run") == found("fresh")


@pytest.mark.parametrize("calibration", ["parents", "pool"])
def test_a_final_with_shared_weights(toy_config, calibration):
    rows, _ = search(toy_config, engine=Skilled(), nex={"calibration": calibration}, **SETTINGS)
    leading = [row for row in rows if row["stage"] == "final"]
    assert len(leading) >= 5 and all(row["nex"] is not None for row in leading)


def test_with_several_objectives_both_ends_of_the_front_reach_the_final():
    def row(trial, consensus, tokens, front):
        return row_of(trial, front=front, values={"consensus": consensus, "mean_tokens": tokens})

    rows = [row("0000", 0.9, 50, 1), row("0001", 0.8, 40, 1), row("0002", 0.7, 30, 1), row("0003", 0.6, 20, 1)]
    rows += [row("0004", 0.85, 60, 2)]
    both = Objective("consensus", 1, (Objective("mean_tokens", -1),))
    assert [_finalists(rows, both, top) for top in (1, 2, 3)] == [["0000"], ["0000", "0003"], ["0000", "0003", "0001"]]
    assert _finalists(rows, both, 9) == ["0000", "0003", "0001", "0002", "0004"]
    assert _finalists(rows, Objective("consensus", 1), 2) == ["0000", "0001"]


def test_without_a_complete_merge_in_the_final_none_is_picked(played):
    _, _, run = played
    for result in run.final.results():
        if result.kind == "merge":
            run.final.write(replace(result, state="infeasible", reason="planted"))
    with pytest.raises(InputError, match="expected a complete merge, got none"):
        best_merge(RunFolder(run.path))


def test_what_the_leaderboard_shows_is_what_is_captured_looked_at_and_exported(toy_config, tmp_path):
    settings = {"prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": 8}, "activations": {"capture": "none"}}
    study = {"trials": 4, "objective": "mean_tokens", "final": {"top": 2, "share": 0.5}}
    search(toy_config, study=study, **settings)
    folder = tmp_path / "run"
    assert CliRunner().invoke(app, ["rescore", str(folder), "--capture", "all"]).exit_code == 0
    run = RunFolder(folder)
    leading = [row for row in by_column(read_rows(run)) if row["stage"] == "final"]
    assert leading and all(row["nex"] is not None for row in leading)
    _, final = split_prompts(run.config.study, 8)
    first = leading[0]["trial"]
    assert view_response(run, first, 0).reading.response.prompt == final[0]
    trial = best_merge(run).trial
    row = next(row for row in leading if row["trial"] == trial)
    *_, done = export_trial(run, None, tmp_path / "best")
    assert f"(mean_tokens {row['mean_tokens']:.4f} in the final)" in done
    card = (tmp_path / "best" / "README.md").read_text()
    assert "| prompts | those of the final, which the search had not seen |" in card
    assert f"calibration self | {row['nex']:.6f} (" in card
    search_value = next(r for r in by_column(read_rows(run, final=False)) if r["trial"] == trial)["nex"]
    assert search_value != row["nex"], "or the test shows nothing"


@pytest.mark.parametrize(("answered", "merges"), [(1, 9), (4, 12)], ids=["among its merges", "in its final"])
def test_the_final_of_a_shorter_search_does_not_lead_a_longer_one_that_is_not_over(
    toy_config, played, answered, merges
):
    _, _, run = played

    class Dies(Skilled):
        """Killed after so many of the four merges that the longer search has more."""

        def answer(self, *args, **kwargs):
            if len(self.asked) == answered:
                raise KeyboardInterrupt
            return super().answer(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        search(toy_config, engine=Dies(), **{**SETTINGS, "study": {**FINAL, "trials": 12}})
    again = RunFolder(run.path)
    assert len([result for result in again.results() if result.kind == "merge"]) == merges
    assert again.final is None and {row["stage"] for row in by_column(read_rows(again))} == {"search"}


def test_a_race_with_a_final(toy_config, tmp_path):
    study = {**FINAL, "pruner": "wilcoxon", "block": 4, "trials": 16}
    rows, _ = search(toy_config, engine=Skilled(), **{**SETTINGS, "study": study})
    run = RunFolder(tmp_path / "run")
    pruned = {row["trial"] for row in rows if row["state"] == "pruned"}
    assert pruned and not pruned & {result.trial for result in run.final.results()}, "pruned merges take no part"
    assert all(result.answered == 1 for result in run.final.results()), "and nobody races in it"


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_too_few_prompts_for_a_final_are_refused(toy_config, share):
    study = {**FINAL, "final": {"share": share}}
    with pytest.raises(InputError, match=r"study\.final: expected at least 4 prompts each"):
        search(toy_config, engine=Skilled(), **{**SETTINGS, "study": study})


def test_a_spent_budget_ends_the_votes_and_not_the_final(toy_config, tmp_path):
    # Six tokens a response: base, parents and eight merges on 18 prompts, then base, parents and four merges on 6.
    study = {**FINAL, "max_tokens": 6 * (11 * 18 + 6 * 6)}
    rows, recorder = search(toy_config, engine=Skilled(), **{**SETTINGS, "study": study})
    final = RunFolder(tmp_path / "run").final
    leading = {row["trial"] for row in rows if row["stage"] == "final"}
    assert {"base", "a", "b"} < leading and leading <= {result.trial for result in final.results()}
    assert len(final.results()) == max(len(leading), 6), "as many vote as the budget has room for"
    assert any("no more merges vote" in note for note in recorder.notes)


def test_an_audit_of_a_run_with_a_final_checks_the_final(played, tmp_path):
    _, _, run = played
    _, final = split_prompts(run.config.study, PROMPTS)
    labels = tmp_path / "labels.csv"
    labels.write_text("index,answer\n" + "".join(f"{p},none\n" for p in final))
    result = CliRunner().invoke(app, ["audit", str(run.path), "--labels", str(labels)])
    assert result.exit_code == 0, result.output
    verdict = read_reliability(run.path).of("consensus")
    assert verdict.level == "insufficient" and verdict.figures["audit_n"] == len(final)
    assert "an audit contradicts it" in verdict.reasons[0]
