"""Who did what when: lanes, idle time and the share of time that workers were busy; and where the page shows it."""

import json
import re
from datetime import UTC, datetime

import pytest

from nex_merge.records import Stint
from nex_merge.report import write_report
from nex_merge.report.work import in_words, work_of
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.runs.work import read_stints
from tests.engines.fakes import FakeEngine
from tests.report.planted import HOSTILE, plant, plant_work
from tests.searches import search


def stint(worker, trial, began, ended, how="done", session=0.0, tries=1, stages=None):
    return Stint(session, worker, trial, "ties", tries, began, ended, how, stages or {"merge": ended - began})


def ready(worker, at, session=0.0):
    return Stint(session, worker, "", "", 0, at, at, "ready")


def lanes(work):
    return [(lane.name, [(since, s.trial) for since, s in lane.stints], lane.there) for lane in work.lanes]


def bars(work, doing):
    return [(bar.lane, bar.since, bar.seconds, bar.label) for bar in work.bars(doing)]


TWO = [
    ready("worker 10", 100), ready("worker 2", 102),
    stint("worker 10", "0000", 100, 104, stages={"merge": 1.0, "generate": 3.0}),
    stint("worker 2", "0001", 104, 110),
]  # fmt: skip


def test_each_worker_has_a_lane_on_which_its_idle_time_shows():
    work = work_of(TWO)
    # The first worker was there for 10 seconds and the second for 8; they had a trial for 4 and 6.
    assert lanes(work) == [("worker 2", [(4, "0001")], [(2, 10)]), ("worker 10", [(0, "0000")], [(0, 10)])]
    assert work.busy == pytest.approx(10 / 18)
    assert bars(work, "idle") == [(0, 2, 8, ""), (1, 0, 10, "")]
    assert bars(work, "merge") == [(0, 4, 6, "1"), (1, 0, 1, "")] and bars(work, "generate") == [(1, 1, 3, "0")]
    assert in_words(work) == "2 workers had a trial for 56 % of the time that they were there, 2 trials in all."


def test_who_replaces_a_lost_worker_goes_on_in_its_lane():
    lost = stint("worker 2", "0002", 110, 115, "lost", stages={"merge": 1.0, "generate": 4.0})
    work = work_of([*TWO, lost, ready("worker 11", 118), stint("worker 11", "0002", 118, 120, tries=2)])
    assert [(lane.name, lane.there) for lane in work.lanes] == [
        ("worker 2 +1", [(2, 15), (18, 20)]), ("worker 10", [(0, 20)])
    ]  # fmt: skip
    assert bars(work, "lost") == [(0, 10, 5, "2")]
    assert work.bars("lost")[0].said == "worker 2: trial 2 (ties): lost 5.0 s"
    assert work.bars("merge")[1].said == "worker 11: trial 2 (ties), try 2: merge 2.0 s"
    assert in_words(work).endswith("3 trials in all. Tries lost with a worker: 1.")


def test_sessions_follow_one_another_without_the_time_between():
    later = [
        ready("worker 1", 9000, 8000), ready("worker 2", 9000, 8000),
        stint("worker 1", "0002", 9000, 9003, session=8000), stint("worker 2", "0003", 9001, 9005, "stopped", 8000),
    ]  # fmt: skip
    work = work_of([*later, *TWO])
    assert work.ends == [10, 15]
    assert bars(work, "merge")[-1] == (1, 10, 3, "2") and bars(work, "stopped") == [(0, 11, 4, "3")]
    assert in_words(work).endswith("Tries stopped with the search: 1. The search was resumed once; the time between is "
                                   "left out.")  # fmt: skip


@pytest.mark.parametrize(
    "stints",
    [
        [],
        [ready("here", 0), stint("here", "0000", 0, 5), stint("here", "0001", 5, 9)],
        # One after the other, not several.
        [ready("worker 1", 0), stint("worker 1", "0000", 0, 5, "lost"), ready("worker 2", 6),
         stint("worker 2", "0000", 6, 9, tries=2)],
        [ready("worker 1", 0), Stint(0.0, "worker 2", "", "", 0, 3, 3, "lost"), stint("worker 1", "0000", 0, 5)],
        [stint("here", "0000", 0, 5), stint("worker 1", "0001", 9, 12, session=9)],
    ],
)  # fmt: skip
def test_one_worker_makes_no_picture(stints):
    assert work_of(stints) is None


def test_a_worker_that_never_had_a_trial_counts():
    work = work_of([ready("worker 1", 0), ready("worker 2", 0), stint("worker 1", "0000", 0, 4)])
    assert work.busy == 0.5 and len(work.lanes) == 2


def test_what_clocks_make_impossible_is_left_out():
    work = work_of([*TWO, stint("worker 2", "0009", 110, 90), stint("worker 2", "0008", -5, 3)])
    assert lanes(work) == lanes(work_of(TWO)) and work.busy == work_of(TWO).busy


def page_of(run):
    write_report(run, run.path / "report.html", datetime(2026, 1, 2, tzinfo=UTC), lambda note: None)
    return (run.path / "report.html").read_text(encoding="utf-8")


def figures_of(page):
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_shows_it_and_names_are_inert(tmp_path):
    run = plant(tmp_path / "run", 3)
    plant_work(run, 3)
    page = page_of(run)
    assert "<h3>Workers</h3>" in page and HOSTILE not in page.partition("<script>/**")[0]
    assert "3 workers had a trial for" in page and "Tries lost with a worker: 1, stopped with the search: 1." in page
    assert "A hatched bar" in page and "+1 beside a name" in page and "A dashed line" in page
    figure = figures_of(page)["work"]
    assert [trace["name"] for trace in figure["data"]] == [
        "idle", "merge", "generate", "capture", "score", "lost", "stopped"
    ]  # fmt: skip
    assert figure["layout"]["xaxis"]["title"]["text"] == "time (min)"
    said = [text for trace in figure["data"] for text in trace["hovertext"]]
    assert any("&lt;script&gt;" in text for text in said) and not any("<script" in text for text in said)


def test_the_page_of_one_worker_or_of_an_older_run_has_none(tmp_path):
    run = plant(tmp_path / "run", 2)
    assert not read_stints(run.path) and "<h3>Workers</h3>" not in page_of(run)
    plant_work(run, 1)
    assert read_stints(run.path) and "<h3>Workers</h3>" not in page_of(run)


def test_a_search_on_two_workers_is_shown_with_both(toy_config, tmp_path):
    search(toy_config, engine=FakeEngine, study={"trials": 3, "parallel": 2}, runtime={"workers": 2})
    run = RunFolder(tmp_path / "run")
    assert {s.worker for s in read_stints(run.path)} == {"worker 1", "worker 2"}
    page = page_of(run)
    assert "2 workers had a trial for" in page and "6 trials in all." in page
    (run.path / files.WORK).unlink()
    assert "<h3>Workers</h3>" not in page_of(run)
