"""The page of many kinds of runs, as text: its content, its size, and that text from elsewhere is escaped."""

import json
import re
import shutil
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.measures.registry import MEASURES
from nex_merge.report import write_report
from nex_merge.report.comparison import compare_responses
from nex_merge.report.data import take_snapshot
from nex_merge.report.page import render
from nex_merge.runs import files
from tests.report.planted import FAILED, HOSTILE, as_first_version, plant

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LIMIT = 8_000_000


def page_of(run):
    """The page without plotly.js, and the notes."""
    notes = []
    page = render(take_snapshot(run), MADE, notes.append)
    head, _, rest = page.partition("<script>/**")
    assert rest, "plotly.js is in the page"
    return head, notes


def test_a_hundred_trials_make_a_page_below_eight_megabytes(tmp_path):
    run = plant(tmp_path / "hundred", 100)
    for number, row in enumerate(take_snapshot(run).rows[:20]):
        files.write_accuracy(run.path, row.trial, {"accuracy": 0.5 + number / 100, "source": "held <out>"})
    size = write_report(run, tmp_path / "page.html", MADE, lambda note: pytest.fail(note))
    whole = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert size == len(whole.encode()) < LIMIT
    page = whole.partition("<script>/**")[0]
    pick = take_snapshot(run).pick
    assert f"Recommended: trial {int(pick.trial)}, by NEX (weak): {pick.value('nex'):.4f} [" in page
    assert page.count("<tr data-state=") == 103
    for text in (
        "created <time datetime=\"2026-01-02T03:04:00+00:00\">2026-01-02 03:04 UTC</time>", "is not updated",
        "Verdict on NEX: weak", "&lt;b&gt;few&lt;/b&gt; prompts", "More prompts",
        "103 trials: 73 complete, 10 collapsed, 10 failed, 10 duplicate.", "it repeats itself",
        "the same recipe as trial 0000",
        "20 variants have accuracy (held &lt;out&gt;)", "Spearman", "Importances are not available",
        "Noise ceiling: labels on the same",
        "5 responses of the pick", "<h4>Recommended: trial", "Parent pairs", "Parent signs", "class=\"explore\"",
        f"mergekit-yaml {run.path}/trials/{pick.trial}/recipe.yaml OUT --random-seed 7",
        "mergekit version</dt><dd>0.1.5", "merge_method: ties", "calibration: self",
    ):  # fmt: skip
        assert text in page, text
    # Nothing is fetched: no address but those of namespaces and in plotly.js' own text.
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", page)


def test_text_from_models_and_libraries_is_escaped(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 9))
    assert HOSTILE not in page and "<img" not in page and "&lt;img src=x" in page
    assert len(re.findall(r"<script", page)) == 1  # the data of the figures
    data = page.partition('<script type="application/json" id="figures">')[2]
    assert data and "<" not in data.partition("</script>")[0]


def test_a_run_without_accuracy_says_so(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 4))
    assert "No variant of this run has an accuracy, so it is unknown whether the ranking agrees with it" in page
    assert 'id="plot-accuracy"' not in page and 'id="plot-measure"' in page


def test_agreement_requires_three_accuracies(tmp_path):
    run = plant(tmp_path / "run", 4)
    files.write_accuracy(run.path, "0001", {"accuracy": 0.5, "source": "a"})
    page, _ = page_of(run)
    assert "Agreement is not available: only 1 of 7 trials has accuracy" in page and 'id="plot-accuracy"' in page


def test_a_run_without_baselines(tmp_path):
    page, notes = page_of(plant(tmp_path / "run", 4, baselines=False))
    assert "the run was set up with study.baselines: false" in page and "without parents" in page and not notes


def test_a_run_of_version_0_1_0(tmp_path):
    study = {"objective": "entropy"}
    expected, _ = page_of(plant(tmp_path / "new" / "run", 10, study=study))
    page, notes = page_of(as_first_version(plant(tmp_path / "old" / "run", 10, study=study)))
    pick = take_snapshot(plant(tmp_path / "run", 10, study=study)).pick
    lead = f"Recommended: trial {int(pick.trial)}, by entropy: {pick.value('entropy'):.{MEASURES['entropy'].digits}f}"
    assert lead in page and lead in expected and not notes
    assert "5 responses of the pick" in page and page.count("<tr data-state=") == 13


@pytest.mark.parametrize("third", [{}, {"novelty": "auto"}], ids=["two", "three"])
def test_several_objectives(tmp_path, third):
    run = plant(tmp_path / "run", 12, study={"objectives": {"consensus": "auto", "mean_tokens": "minimize", **third}})
    page, notes = page_of(run)
    snapshot = take_snapshot(run)
    front = [row for row in snapshot.rows if row.kind == "merge" and row.front == 1]
    assert snapshot.pick == front[0] == max(front, key=lambda row: row.value("consensus")) and not notes
    for text in (
        "The front and how certain it is", "Recommended: one of the front by consensus and mean tokens",
        f"Trial {int(front[0].trial)} (ties): consensus {front[0].value('consensus'):.4g}, mean tokens ",
        "The front: " + ", ".join(f"trial {int(row.trial)}" for row in front),
        '<a href="#front">Objectives</a>', "Hypervolume over trials", "The reference point is the worst of all comp",
        "objectives</dt><dd>consensus (more is better), mean_tokens (less is better)", 'data-name="front"',
    ):  # fmt: skip
        assert text in page, text
    assert "First by" not in page and "no merge of this run is better" not in page
    drawn = json.loads(page.partition('id="figures">')[2].partition("</script>")[0])
    (ring,) = [trace for trace in drawn["front"]["data"] if trace["name"] == "front"]
    assert ring["mode"] == ("markers" if third else "lines+markers")
    # From the fewest tokens to the most, each step takes consensus up.
    ordered = sorted(front, key=lambda row: row.value("mean_tokens"))
    assert ring["x"] == [row.value("mean_tokens") for row in ordered] and ring["y"] == [
        row.value("consensus") for row in ordered
    ]
    assert [note["text"] for note in drawn["front"]["layout"]["annotations"]] == [
        row.trial for row in snapshot.rows if row.kind != "merge"
    ]
    volumes = drawn["volume"]["data"][1]["y"]
    assert volumes == sorted(volumes) and volumes[0] > 0


def test_with_a_single_objective_nothing_is_said_of_fronts(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 4))
    assert '<a href="#front">Length</a>' in page and "ypervolume" not in page


def test_a_single_merge(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 1))
    assert "Recommended: trial 0, by NEX (weak)" in page and "1 of 1 merge." in page
    assert "requires at least two merges" in page and 'id="plot-history"' in page


def test_only_failed_merges(tmp_path):
    failed = {**FAILED, "reason": "not finite <3>"}
    page, notes = page_of(plant(tmp_path / "run", 2, baselines=False, **{"0000": failed, "0001": failed}))
    assert (
        "Nothing is recommended: none of 2 merges is complete." in page
        and "None of the 2 finished merges is complete; for" in page
    )
    assert "for example, trial 0 failed: not finite &lt;3&gt;." in page
    assert "No merge has a score yet." in page and not notes


def test_a_run_that_has_only_begun(tmp_path):
    run = plant(tmp_path / "run", 0, baselines=False, study={"trials": 5})
    for name in ("leaderboard.csv", "leaderboard.json", files.RELIABILITY, files.SCORES):
        (run.path / name).unlink()
    page, notes = page_of(run)
    assert "No trial has finished yet." in page and "There is no verdict yet" in page and not notes
    assert "0 of 5 merges" in page


def test_missing_files_are_reported(tmp_path):
    run = plant(tmp_path / "run", 3)
    shutil.rmtree(run.folder("pairs") / files.CACHE)
    page, notes = page_of(run)
    assert "Parent pairs is without phases:" in page and "pairs/cache: no such folder" in page and not notes
    (run.folder("pairs") / files.RESPONSES).unlink()
    page, notes = page_of(run)
    assert "Responses are not shown:" in page and "pairs/responses.jsonl" in page
    assert len(notes) == 1 and "the report does not show responses" in notes[0]


def test_the_command(tmp_path):
    run = plant(tmp_path / "run", 2)
    done = CliRunner().invoke(app, ["report", str(run.path)])
    assert done.exit_code == 0 and re.fullmatch(r"\S*run/report\.html: \d\.\d MB\n", done.stdout), done.output
    assert (run.path / "report.html").stat().st_size < LIMIT
    out = tmp_path / "new" / "page.html"
    assert CliRunner().invoke(app, ["report", str(run.path), "--out", str(out)]).exit_code == 0 and out.is_file()


def test_open_hands_the_page_to_the_browser(tmp_path, monkeypatch):
    run = plant(tmp_path / "run", 0, baselines=False)
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address))
    done = CliRunner().invoke(app, ["report", str(run.path), "--open"])
    assert opened == [(run.path / "report.html").as_uri()]
    assert done.exit_code == 0 and "--open: no browser found" in done.stderr  # the stand-in returns None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: not a run folder"),
        (["RUN", "--out", "page"], "--out: expected a file name that ends in .html, got page"),
    ],
)
def test_invalid_arguments(tmp_path, args, message):
    run = plant(tmp_path / "run", 0, baselines=False)
    done = CliRunner().invoke(app, ["report", *(str(run.path) if arg == "RUN" else arg for arg in args)])
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_responses_beyond_the_budget_are_omitted(tmp_path, monkeypatch):
    snapshot = take_snapshot(plant(tmp_path / "run", 3))
    whole, note = compare_responses(snapshot)
    assert len(whole) == 5 and "omitted" not in note
    first = sum(len(fragment.encode()) for _, fragment in whole[0].columns)
    monkeypatch.setattr("nex_merge.report.comparison.BUDGET", first)
    part, note = compare_responses(snapshot)
    assert part == whole[:1] and note.startswith("1 response of") and "4 of 5 selected responses are omitted" in note
    monkeypatch.setattr("nex_merge.report.comparison.BUDGET", first - 1)
    assert compare_responses(snapshot) == (
        [],
        "The responses are too long to show here; nex-merge phases shows them one at a time.",
    )
