"""Several workers as observers see them: what each is at, what waits for its turn, who was lost, what is kept of it."""

import io
import json

import pytest
from rich.console import Console

from nex_merge.runs import files
from nex_merge.runs.work import read_stints
from nex_merge.study import followed, progress, work_log
from nex_merge.study.crew import Crew, Known, Task
from nex_merge.study.observers import Observer, Observers
from nex_merge.workers.executors import Done, Gone
from tests.searches import search
from tests.study.test_progress import NEX, begins, ended

pytestmark = pytest.mark.quick


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    for module in (progress, followed, work_log):
        monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


class Scripted:
    """Two workers, of which another takes the place of one that is lost; events come as the script says."""

    def __init__(self, script, clock):
        self.workers, self.script, self.clock = ["w1", "w2"], list(script), clock

    def ready(self):
        return list(self.workers)

    def place(self, worker):
        return "cpu"

    def places(self):
        return ["cpu", "cpu"]

    def send(self, worker, job):
        pass

    def wait(self, progress):
        self.clock[0] += 1
        event = self.script.pop(0)
        if isinstance(event, tuple):
            return progress(*event)
        if isinstance(event, Gone):
            self.workers.remove(event.worker)
            self.workers.append(f"w{3 + sum('w' in name for name in self.workers) - 1}")
        return event

    def close(self):
        pass


def a_task(number, known=()):
    def work():
        yield "job"
        return f"gave {number}"

    return Known("known") if number in known else Task(f"{number:04d}", "ties", work)


class Told(Observer):
    """Keeps what it is told of workers."""

    def __init__(self):
        self.told = []

    def on_worker(self, worker, trial, tries):
        self.told.append((worker, trial, tries))

    def on_lost(self, worker, why):
        self.told.append((worker, why))


def crewed(script, clock, observers, tasks=2, parallel=3):
    """What `keep` got when a crew did trials 0, 1, … as the script says."""
    kept = []
    crew = Crew(Scripted(script, clock), Observers(observers))
    crew.in_order(parallel, lambda i: a_task(i) if i < tasks else None, lambda i, given: kept.append(given))
    return kept


LOST = [("w1", "generate", 7), Gone("w2", "cpu", "died"), Done("w1", None), Done("w3", None)]


def test_observers_are_told_of_workers_that_come_begin_end_and_are_lost(clock):
    told = Told()
    assert crewed(LOST, clock, [told]) == ["gave 0", "gave 1"]
    assert told.told == [
        *[("w1", None, 0), ("w1", "0000", 1), ("w2", None, 0), ("w2", "0001", 1)],
        *[("w2", "died"), ("w2", None, 1), ("w3", None, 0), ("w3", "0001", 2)],
        *[("w1", None, 1), ("w3", None, 2)],
    ]


def test_who_did_what_when_is_kept(clock, tmp_path):
    log = work_log.WorkLog(tmp_path)
    crewed(LOST, clock, [log])
    found = [(s.worker, s.trial, s.tries, s.began - 1000, s.ended - 1000, s.how) for s in read_stints(tmp_path)]
    assert found == [
        *[("w1", "", 0, 0, 0, "ready"), ("w2", "", 0, 0, 0, "ready"), ("w2", "0001", 1, 0, 2, "lost")],
        *[("w3", "", 0, 2, 2, "ready"), ("w1", "0000", 1, 0, 3, "done"), ("w3", "0001", 2, 2, 4, "done")],
    ]
    assert [stint.stages for stint in read_stints(tmp_path) if stint.trial == "0000"] == [{"merge": 1, "generate": 2}]
    assert {(stint.session, stint.method) for stint in read_stints(tmp_path) if stint.trial} == {(1000.0, "ties")}


def test_a_search_that_is_stopped_keeps_what_it_was_at(clock, tmp_path):
    log = work_log.WorkLog(tmp_path)
    begins(log, "0004", "ties")
    clock[0] += 3
    log.on_end([])
    log.on_end([])
    (found,) = read_stints(tmp_path)
    assert (found.trial, found.how, found.ended - found.began) == ("0004", "stopped", 3.0)


def test_a_worker_that_is_lost_without_a_trial_is_kept_as_lost(clock, tmp_path):
    log = work_log.WorkLog(tmp_path)
    log.on_worker("w1", None, 0)
    log.on_lost("w1", "died")
    assert [(stint.worker, stint.trial, stint.how) for stint in read_stints(tmp_path)] == [
        ("w1", "", "ready"), ("w1", "", "lost")
    ]  # fmt: skip


def test_trials_that_are_done_out_of_turn_wait(clock):
    """Trial 1 is done before trial 0, and counts as done once it is kept."""
    state = followed.Followed()
    state.on_start("run", 5, [])
    begins(state, "0000", "ties", "w1")
    begins(state, "0001", "ties", "w2")
    state.on_worker("w2", None, 1)
    assert (state.live().done, state.live().waiting) == (0, 1)
    assert [worker.state for worker in state.live().workers] == ["busy", "idle"]
    state.on_trial_start("0002", "ties")  # a duplicate, which no worker has to do
    assert state.live().waiting == 2
    for trial in ("0000", "0001", "0002"):
        state.on_trial_end(ended(trial, 0.5))
    assert (state.live().done, state.live().waiting) == (3, 0)


def test_a_lost_trial_does_not_wait_to_be_kept_before_its_last_try(clock):
    state = followed.Followed()
    for tries in (1, 2, 3):
        begins(state, "0000", "ties", f"w{tries}", tries)
        state.on_lost(f"w{tries}", "died")
        state.on_worker(f"w{tries}", None, tries)
        assert state.live().waiting == (tries == 3)


def test_trials_of_a_final_wait_for_nothing(clock):
    """They have no ends: what waits would only grow."""
    state = followed.Followed()
    begins(state, "0000", "final")
    state.on_worker("here", None, 1)
    assert state.live().waiting == 0


def test_another_worker_takes_the_place_of_a_lost_one(clock):
    state = followed.Followed()
    for name in ("w2", "w10", "w1"):
        state.on_worker(name, None, 0)
    state.on_lost("w2", "died")
    state.on_lost("never ready", "died")
    assert [(one.worker, one.state) for one in state.live().workers] == [
        ("w1", "idle"), ("w2", "lost"), ("w10", "idle")
    ]  # fmt: skip
    state.on_worker("w11", None, 0)
    assert [one.worker for one in state.live().workers] == ["w1", "w10", "w11"]


def test_a_terminal_shows_every_worker_and_its_time_left_counts_them(clock):
    shown = progress.Progress(NEX)
    out = io.StringIO()
    shown._console = Console(file=out, force_terminal=True, highlight=False, width=100, height=40)
    shown.on_start("run", 7, [])
    try:
        for worker in ("w1", "w2", "w3"):
            shown.on_worker(worker, None, 0)
        begins(shown, "0000", "ties", "w1", 2)
        begins(shown, "0001", "dare_ties", "w2")
        clock[0] += 2
        shown.on_stage("0001", "generate", 0)
        clock[0] += 2
        shown.on_stage("0001", "generate", 500)
        assert str(shown._status.status).splitlines() == [
            "[0/7] 3 workers: 250 tokens/s",
            "  w1  trial 0 (ties)       merge  try 2",
            "  w2  trial 1 (dare_ties)  generate  500 tokens, 250 tokens/s",
            "  w3  idle",
        ]
        shown.on_worker("w2", None, 1)
        assert str(shown._status.status).splitlines()[0] == "[0/7] 3 workers  1 done, waiting"
        begins(shown, "0002", "ties", "w2")
        shown.on_worker("w1", None, 2)
        clock[0] += 10
        # 3.5 s of a worker a trial: trial 1 waits, that of w2 is late, and four on three workers take two turns.
        shown.on_trial_end(ended("0000", 0.5))
        assert "[1/7] trial 0 (ties): nex 0.5000, 3.5 s, 0:07 left" in out.getvalue()
    finally:
        shown.on_end([])


def test_live_json_names_every_worker(clock, tmp_path):
    beacon = progress.Beacon(tmp_path)
    beacon.on_start("run", 5, [])
    beacon.on_worker("w1", None, 0)
    beacon.on_worker("w2", None, 0)
    assert not (tmp_path / files.LIVE).exists()
    begins(beacon, "0000", "ties", "w1", 2)
    beacon.on_lost("w2", "died")
    assert files.read_live(tmp_path) == beacon.live()
    assert [(one.worker, one.state, one.trial, one.tries) for one in files.read_live(tmp_path).workers] == [
        ("w1", "busy", "0000", 2), ("w2", "lost", "", 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{}", '{"workers": 1}', '{"workers": [1]}',
        # As version 0.1.0 wrote it.
        '{"done": 1, "total": 3, "trial": "a", "method": "parent", "stage": "merge", "amount": 0, "stage_began": 1.0, '
        '"trial_began": 1.0, "told": 1.0, "host": "h", "process": 1}',
    ],
)  # fmt: skip
def test_live_json_of_another_version_says_that_nothing_runs(tmp_path, content):
    (tmp_path / files.LIVE).write_text(content)
    assert files.read_live(tmp_path) is None


def test_a_search_keeps_what_its_worker_did_over_all_sessions(toy_config, tmp_path):
    run = tmp_path / "run"
    search(toy_config, study={"trials": 1})
    search(toy_config, study={"trials": 3})
    found = read_stints(run)
    assert [stint.trial for stint in found if stint.how == "done"] == ["base", "a", "b", "0000", "0001", "0002"]
    assert len({stint.session for stint in found}) == 2 and {stint.worker for stint in found} == {"here"}
    assert all({"merge", "generate", "capture", "score"} == {*stint.stages} for stint in found if stint.trial)
    before = (run / files.WORK).read_bytes()
    search(toy_config, study={"trials": 3})
    assert (run / files.WORK).read_bytes() == before, "what is complete is not touched"
    (run / files.WORK).unlink()
    rows, recorder = search(toy_config, study={"trials": 4})
    assert recorder.ended == ["0003"] and len(rows) == 7
    assert [json.loads(line)["trial"] for line in (run / files.WORK).read_text().splitlines()] == ["", "0003"]
    search(toy_config, fresh=True, study={"trials": 1})
    assert len(read_stints(run)) == 5 and len(read_stints(tmp_path / "run.1")) == 2
