"""Looking on while a search runs: what is shown, and that nothing is written."""

import io
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from nex_merge.cli import app
from nex_merge.measures.estimates import Objective
from nex_merge.records import Live
from nex_merge.runs.run import RunFolder
from nex_merge.runs.watch import View, at_work, best_so_far, look, screen, seconds_left, status
from tests.rows import row_of


def live(**changes) -> Live:
    now = time.time()
    told = Live(3, 15, "0001", "ties", "generate", 500, now - 2, now - 5, now, platform.node(), os.getpid())
    return replace(told, **changes)


def row(trial: str, nex: float | None, **changes):
    state = "complete" if nex is not None else "failed"
    return row_of(trial, state=state, values={"nex": nex}, **{"seconds": 10.0, **changes})


def test_a_killed_search_is_not_at_work():
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    assert at_work(live())
    assert not at_work(live(process=done.pid))
    # The number has been given to a process that began later than the trial.
    assert not at_work(live(trial_began=0.0))
    # Of another host only how long it has been silent is known.
    assert at_work(live(host="elsewhere"))
    assert not at_work(live(host="elsewhere", told=time.time() - 120))


def test_time_left_is_that_of_the_trials_that_are_left():
    objective = Objective("nex", 1)
    assert seconds_left(View((), (), 15, objective, live())) is None
    # Base and parents stand in before the first merge: what is left of one of 6 s, and eleven more.
    assert seconds_left(
        View((row("base", 0.5, seconds=6.0, kind="base"),), (), 15, objective, live())
    ) == pytest.approx(1 + 66, abs=0.5)
    rows = (row("0000", 0.5, seconds=8.0), row("0001", 0.4, seconds=12.0), row("0002", None, seconds=0.1))
    # Ten a trial: five of this one, and eleven more.
    assert seconds_left(View(rows, rows, 15, objective, live())) == pytest.approx(5 + 110, abs=0.5)
    assert seconds_left(View(rows, rows, 15, objective, None)) is None


def test_the_best_so_far_skips_what_has_no_score():
    assert best_so_far([None, 2.0, None, 1.0, 3.0], 1) == [None, 2.0, 2.0, 2.0, 3.0]
    assert best_so_far([2.0, 1.0, 3.0], -1) == [2.0, 1.0, 1.0]


def test_the_status_says_stage_speed_and_time():
    view = View((row("0000", 0.5),), (), 15, Objective("nex", 1), live())
    assert "[3/15] trial 1 (ties): generate  500 tokens, 250 tokens/s  about 1:55 left" in status(view)
    assert "no search is running" in status(View((), (), 15, Objective("nex", 1), None))


def test_a_finished_run_is_shown_once_and_left_as_it_is(toy_run):
    before = {path: path.stat().st_mtime_ns for path in toy_run.rglob("*") if path.is_file()}
    view = look(RunFolder(toy_run))
    assert view.live is None and view.total == len(view.rows) == 7
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(screen(RunFolder(toy_run), view, 80, 2))
    text = console.export_text()
    assert "7 of 7 trials done; no search is running" in text and "... 5 more" in text
    assert "nex over merges (o), best so far (-); best parent 1.0000" in text and max(map(len, text.splitlines())) <= 80
    assert {path: path.stat().st_mtime_ns for path in toy_run.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert "not a run folder" in str(result.exception)


def test_merges_are_in_the_order_of_their_numbers():
    rows = (row("10000", 0.5), row("9999", 0.4), row("base", 0.3, kind="base"))
    assert [item.trial for item in View(rows, rows, 15, Objective("nex", 1), None).by_time] == ["9999", "10000"]
