"""The page of runs of every kind, as text: what is in it, how large it is, and that nothing in it is taken for HTML."""

import re
import shutil
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.report import render, write_report
from nex_merge.report.comparison import compare
from nex_merge.report.data import take_snapshot
from nex_merge.runs import files
from tests.report.planted import HOSTILE, plant

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
LIMIT = 8_000_000


def page_of(run):
    """The page without plotly.js, and what was noted."""
    notes = []
    page = render(take_snapshot(run), MADE, notes.append)
    head, _, rest = page.partition("<script>/**")
    assert rest, "plotly.js is in the page"
    return head, notes


def test_a_hundred_trials_make_a_page_below_eight_megabytes(tmp_path):
    run = plant(tmp_path / "hundred", 100)
    for number, row in enumerate(take_snapshot(run).rows[:20]):
        files.write_accuracy(run, row["trial"], {"accuracy": 0.5 + number / 100, "source": "held <out>"})
    size = write_report(run, tmp_path / "page.html", MADE, lambda note: pytest.fail(note))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert size == len(text.encode()) < LIMIT
    page = text.partition("<script>/**")[0]
    pick = take_snapshot(run).pick
    assert f"Trial {int(pick['trial'])} (ties): nex {pick['nex']:.4g}" in page
    assert page.count("<tr data-state=") == 103
    for said in (
        "made <time datetime=\"2026-01-02T03:04:00+00:00\">2026-01-02 03:04 UTC</time>", "as it was then",
        "Verdict on NEX: weak", "&lt;b&gt;few&lt;/b&gt; prompts", "more prompts",
        "103 trials: 73 complete, 10 collapsed, 10 failed, 10 duplicate.", "it repeats itself",
        "the same recipe as trial 0000",
        "20 variants have accuracy (held &lt;out&gt;)", "Spearman", "No importance is given",
        "5 responses of the pick", "The pick, trial", "Parent pairs", "Parent signs", "class=\"explore\"",
        f"mergekit-yaml {run}/trials/{pick['trial']}/recipe.yaml OUT --random-seed 7",
        "version of mergekit</dt><dd>0.1.5", "merge_method: ties", "calibration: self",
    ):  # fmt: skip
        assert said in page, said
    # Nothing is fetched: no address but those of namespaces and in plotly.js' own text.
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", page)


def test_what_models_and_libraries_said_stays_text(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 9))
    assert HOSTILE not in page and "<img" not in page and "&lt;img src=x" in page
    assert len(re.findall(r"<script", page)) == 1  # the figures' data
    data = page.partition('<script type="application/json" id="figures">')[2]
    assert data and "<" not in data.partition("</script>")[0]


def test_a_run_without_accuracy_says_so(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 4))
    assert "No variant of this run has an accuracy, so whether the ranking agrees with it is not known" in page
    assert 'id="plot-accuracy"' not in page and 'id="plot-rivals"' in page


def test_too_few_accuracies_are_no_agreement(tmp_path):
    run = plant(tmp_path / "run", 4)
    files.write_accuracy(run, "0001", {"accuracy": 0.5, "source": "a"})
    page, _ = page_of(run)
    assert "No agreement is given: only 1 of 7 trials have accuracy" in page and 'id="plot-accuracy"' in page


def test_a_run_without_baselines(tmp_path):
    page, notes = page_of(plant(tmp_path / "run", 4, baselines=False))
    assert "set up without base and parents" in page and "alone, as no parent is scored" in page and not notes


def test_a_single_merge(tmp_path):
    page, _ = page_of(plant(tmp_path / "run", 1))
    assert "Trial 0 (ties)" in page and "1 merge of 1 planned" in page
    assert "fewer than two scored merges" in page and 'id="plot-history"' in page


def test_only_failed_merges(tmp_path):
    failed = {"state": "failed", "reason": "not finite <3>", "score": None, "rivals": None, "text": None}
    page, notes = page_of(plant(tmp_path / "run", 2, baselines=False, **{"0000": failed, "0001": failed}))
    assert "There is no pick." in page and "None of the 2 finished merges is sound" in page
    assert (
        "trial 0, for one, is failed (not finite &lt;3&gt;)." in page
        and "No merge has a score yet." in page
        and not notes
    )


def test_a_run_that_has_only_begun(tmp_path):
    run = plant(tmp_path / "run", 0, baselines=False, study={"trials": 5})
    for name in ("leaderboard.csv", "leaderboard.json", files.RELIABILITY):
        (run / name).unlink()
    page, notes = page_of(run)
    assert "No trial has finished yet." in page and "There is no verdict yet" in page and not notes
    assert "0 of 5 planned merges" in page


def test_what_is_gone_is_said_not_hidden(tmp_path):
    run = plant(tmp_path / "run", 3)
    shutil.rmtree(files.trial_folder(run, "pairs") / files.CACHE)
    page, notes = page_of(run)
    assert "No phases are shown:" in page and "pairs/cache: no such folder" in page
    assert len(notes) == 1 and "the report shows no phases" in notes[0]


def test_the_command(tmp_path):
    run = plant(tmp_path / "run", 2)
    done = CliRunner().invoke(app, ["report", str(run)])
    assert done.exit_code == 0 and re.fullmatch(r"\S*run/report\.html: \d\.\d MB\n", done.stdout), done.output
    assert (run / "report.html").stat().st_size < LIMIT
    out = tmp_path / "new" / "page.html"
    assert CliRunner().invoke(app, ["report", str(run), "--out", str(out)]).exit_code == 0 and out.is_file()


def test_open_hands_the_page_to_the_browser(tmp_path, monkeypatch):
    run = plant(tmp_path / "run", 0, baselines=False)
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address))
    done = CliRunner().invoke(app, ["report", str(run), "--open"])
    assert opened == [(run / "report.html").as_uri()]
    assert done.exit_code == 0 and "--open: found no browser" in done.stderr  # as what is opened here returns nothing


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no run folder"),
        (["RUN", "--out", "page"], "--out: found page; the name of a file that ends in .html would do"),
    ],
)
def test_input_at_fault(tmp_path, args, message):
    run = plant(tmp_path / "run", 0, baselines=False)
    done = CliRunner().invoke(app, ["report", *(str(run) if arg == "RUN" else arg for arg in args)])
    assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_responses_that_would_make_the_page_too_large_are_left_out(tmp_path, monkeypatch):
    snapshot = take_snapshot(plant(tmp_path / "run", 3))
    whole, note = compare(snapshot)
    assert len(whole) == 5 and "left out" not in note
    first = sum(len(fragment.encode()) for _, fragment in whole[0].columns)
    monkeypatch.setattr("nex_merge.report.comparison.BUDGET", first)
    part, note = compare(snapshot)
    assert part == whole[:1] and note.startswith("1 response of") and "Of 5 chosen ones, 4 are left out" in note
    monkeypatch.setattr("nex_merge.report.comparison.BUDGET", first - 1)
    assert compare(snapshot) == (
        [],
        "The responses are too long to be shown here; nex-merge phases shows one at a time.",
    )
