"""A search that stands by: it waits for the one at work on the run, and goes on where that ended."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.errors import InputError, InUse
from nex_merge.runs import claims, custody
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.search import run_search
from tests.searches import Recorder, Steady, go, without_times


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(custody, "STANDBY", 0.05)


class Waiting(Recorder):
    """Does something once the search says that it stands by."""

    def __init__(self, deed=lambda: None):
        super().__init__()
        self.deed = deed

    def on_note(self, text):
        super().on_note(text)
        if "Standing by" in text:
            self.deed()


def stand_by(config, recorder, **study):
    """The leaderboard's rows of a search of six merges, or as `study` says, that stands by."""
    resolved = resolve_config(str(config), {"study": {"trials": 6, **study}})
    return without_times(run_search(resolved, observers=[recorder], engine=Steady(), standby=True))


@pytest.fixture
def held(run):
    """A run of four merges, whose folder another search holds until it is released."""
    lock = FileLock(run / "lock")
    with lock:
        yield lock


def test_a_standby_takes_over_from_a_driver_that_is_killed(toy_config, whole, tmp_path, storage, monkeypatch):
    """The driver is on another host, so that neither its lock nor its end is seen here, only its heartbeat."""
    monkeypatch.setattr(claims, "EXPIRY", 2.0)
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from nex_merge.runs import claims\n"
        "from tests.searches import Meddler, go\n"
        "claims.platform.node, claims.HEARTBEAT = lambda: 'elsewhere', 0.2\n"
        "def work():\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
        "go(Path(sys.argv[1]), 6, study={'storage': sys.argv[2]}, engine=Meddler(work))"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(toy_config), storage], stdout=subprocess.PIPE)
    assert driver.stdout is not None and driver.stdout.readline()
    (tmp_path / "run" / "lock").unlink()
    killed = []

    def kill():
        driver.kill()
        killed.append(time.monotonic())

    later = threading.Timer(3.0, kill)  # by then, a silent one would have been taken for dead
    recorder = Waiting(later.start)
    rows = stand_by(toy_config, recorder, storage=storage)
    driver.communicate()
    assert killed, "it waited for the driver's end"
    assert rows == whole and recorder.ended == ["0001", "0002", "0003", "0004", "0005"]
    waiting, took_over = recorder.notes
    assert re.match(
        r"the study run-\w+ is driven by another search \(process \d+ on elsewhere\)\. Standing by", waiting
    )
    assert took_over == f"{tmp_path}/run: the other search has ended; this one takes over"


def test_a_standby_of_a_search_that_ends_says_that_the_run_is_complete(toy_config, run, held):
    recorder = Waiting(held.release)
    stand_by(toy_config, recorder, trials=4)
    waiting, took_over, complete = recorder.notes
    assert re.match(rf"{run}: another search is running in this folder( \(.*\))?\. Standing by, to take over", waiting)
    assert "takes over" in took_over and f"{run} is complete: its 7 trials are finished" in complete
    assert recorder.ended == []


def test_a_standby_of_nobody_searches(toy_config, run, whole):
    recorder = Recorder()
    assert stand_by(toy_config, recorder) == whole
    assert recorder.ended == ["0004", "0005"] and recorder.notes == []


def test_several_stand_by_and_one_takes_over(toy_config, run, whole, monkeypatch):
    """Another was quicker by an instant."""
    hold, quicker = custody.hold, [InUse("another search", "Wait")]

    def second(*arguments):
        if quicker:
            raise quicker.pop()
        return hold(*arguments)

    monkeypatch.setattr(custody, "hold", second)
    assert stand_by(toy_config, Recorder()) == whole and not quicker


def test_ctrl_c_ends_the_wait_at_once(toy_config, held, monkeypatch):
    monkeypatch.setattr(custody, "STANDBY", 60.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    recorder = Waiting(timer.start)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            stand_by(toy_config, recorder)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 30 and len(recorder.notes) == 1


def test_a_mistake_is_said_before_the_wait(toy_config, held):
    with pytest.raises(InputError, match=r"study\.seed: was 0, is 5"):
        stand_by(toy_config, Waiting(lambda: pytest.fail("it waits")), seed=5)


def test_the_configuration_is_compared_again_after_the_wait(toy_config, run, held, tmp_path):
    """Somebody has put another run in the place of the one that was waited for."""
    go(toy_config, 1, study={"seed": 5}, output=str(tmp_path / "other"))

    def replace():
        shutil.move(run, tmp_path / "aside")
        shutil.move(tmp_path / "other", run)

    with pytest.raises(InputError, match=r"study\.seed: was 5, is 0"):
        stand_by(toy_config, Waiting(replace))


def test_a_standby_does_not_start_over(toy_config, run):
    result = CliRunner().invoke(app, ["search", str(toy_config), "--standby", "--fresh"])
    assert isinstance(result.exception, InputError) and "--standby: goes on" in str(result.exception)
    assert run.is_dir() and not run.with_name("run.1").exists()
