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
from nex_merge.records import Live, LiveWorker
from nex_merge.runs.run import RunFolder
from nex_merge.runs.watch import View, at_work, best_so_far, look, screen, seconds_left, status
from nex_merge.runs.working import head, worker_lines
from tests.rows import row_of


def live(*more: LiveWorker, waiting=0, **changes) -> Live:
    """One worker that generates, and others."""
    now = time.time()
    worker = LiveWorker("here", "busy", "0001", "ties", 1, "generate", 500, now - 2, now - 5, now)
    told = Live(3, 15, waiting, [worker, *more], now, platform.node(), os.getpid())
    return replace(told, **changes)


def at(worker: str, state="busy", since=5.0, **changes) -> LiveWorker:
    """A worker that began with its trial so many seconds ago, and its stage a second later."""
    now = time.time()
    told = LiveWorker(worker, state, "0002", "ties", 1, "generate", 600, now - since + 1, now - since, now)
    return replace(told, **changes)


def row(trial: str, nex: float | None, **changes):
    state = "complete" if nex is not None else "failed"
    return row_of(trial, state=state, values={"nex": nex}, **{"seconds": 10.0, **changes})


def test_a_killed_search_is_not_at_work():
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    assert at_work(live())
    assert not at_work(live(process=done.pid))
    # The number has been given to a process that began later than what was told.
    assert not at_work(live(told=0.0))
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


def test_time_left_is_shared_by_the_workers_and_those_that_wait_need_none():
    rows = (row("0000", 0.5, seconds=8.0), row("0001", 0.4, seconds=12.0))

    def left(found):
        return seconds_left(View(rows, rows, 15, Objective("nex", 1), found))

    # Ten a trial, and ten of them not begun: those at work are free after 5 and 2, and begin five each.
    assert left(live(at("w2", since=8.0))) == pytest.approx(5 + 50, abs=0.5)
    assert left(live(at("w2", since=8.0), waiting=9)) == pytest.approx(2 + 10, abs=0.5)
    assert left(live(at("w2", "idle"))) == pytest.approx(60, abs=0.5)  # it begins six of eleven
    # Who is lost begins nothing.
    assert left(live(at("w2", "lost"))) == pytest.approx(5 + 110, abs=0.5)
    assert left(live(workers=[])) == pytest.approx(120, abs=0.5)


def test_several_workers_have_a_line_each():
    view = live(at("w2", tries=2), at("w3", "idle"), at("w4", "lost"), at("w5", stage="capture", amount=3), waiting=2)
    assert head(view) == ["[3/15] 5 workers: 400 tokens/s", "2 done, waiting"]
    assert worker_lines(view.workers, 80) == [
        "  here  trial 1 (ties)  generate  500 tokens, 250 tokens/s",
        "  w2    trial 2 (ties)  generate  600 tokens, 150 tokens/s, try 2",
        "  w3    idle",
        "  w4    lost",
        "  w5    trial 2 (ties)  capture  3 responses",
    ]
    objective = Objective("nex", 1)
    assert status(View((), (), 15, objective, view)).endswith("waiting  time left: available after the first trial")


def test_the_first_tokens_of_a_stage_are_no_speed():
    """Drafts are checked all at once, so that they would be hundreds of thousands a second."""
    now = time.time()
    view = live(workers=[at("w1", stage_began=now - 0.02, told=now), at("w2", stage_began=now - 1, told=now)])
    assert head(view) == ["[3/15] 2 workers: 600 tokens/s"]
    assert worker_lines(view.workers, 80)[0].endswith("generate  600 tokens")


def test_many_workers_fit_into_few_lines():
    """Those that are lost or try again are among those that are shown; the last line counts the others."""
    many = [at(f"w{i}", "idle" if i % 4 == 0 else "busy", stage="merge") for i in range(1, 15)]
    workers = [*many, at("w15", tries=3), at("w16", "lost")]
    lines = worker_lines(workers, 60, 6)
    assert [line.split()[0] for line in lines] == ["w1", "w2", "w3", "w15", "w16", "..."]
    assert lines[-1] == "  ... 11 more: 3 idle, 8 merge"
    assert worker_lines(workers, 60, 16)[-1] == "  w16  lost"
    assert [len(worker_lines(workers, 60, room)) for room in (1, 4, 15, 16, None)] == [1, 4, 15, 16, 16]
    assert max(map(len, worker_lines(workers, 30, 6))) == 30


def test_names_of_workers_and_methods_are_inert():
    odd = at("a\n\x1b[31mb", method="\x1b]0;x\nties")
    lines = worker_lines([at("w1"), odd], 200)
    assert len(lines) == 2 and all(line.isprintable() for line in lines)


def test_a_screen_shows_the_workers_of_a_search(toy_run):
    view = replace(look(RunFolder(toy_run)), live=live(at("w2"), at("w3")), told="")
    console = Console(width=80, height=60, record=True, file=io.StringIO())
    console.print(screen(RunFolder(toy_run), view, 80, 2, 2))
    lines = console.export_text().splitlines()
    assert lines[1].startswith("[3/15] 3 workers: 550 tokens/s  about ")
    assert lines[2].split()[:3] == ["here", "trial", "1"] and lines[3] == "  ... 2 more: 2 generate" and not lines[4]
    console.print(screen(RunFolder(toy_run), replace(view, live=live()), 80, 2))
    lines = console.export_text().splitlines()
    assert "trial 1 (ties): generate  500 tokens, 250 tokens/s" in lines[1] and not lines[2]


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
