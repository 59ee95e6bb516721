"""The leaderboard depends on the search, never on who did it: workers in number, order, and when they die."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml

from nex_merge.errors import InputError, RunError
from nex_merge.setup.config import RuntimeConfig
from nex_merge.study.samplers import stable_seed
from nex_merge.workers.places import places
from nex_merge.workers.serve import portable
from tests.searches import Steady, search
from tests.workers.engines import AT, HOW, ONCE, SEED, Mortal, never_starts, refuses

STUDY = {"trials": 7, "parallel": 4}


def content(run):
    """What trials left in a run folder, but for times."""
    found = {}
    for path in sorted(run.glob("trials/*/*")) + sorted(run.glob("final/trials/*/*")):
        name = str(path.relative_to(run))
        if path.name == "result.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def done(config, tmp_path, name, workers=1, engine=Mortal, study=STUDY, **changes):
    """(rows, what is in the run folder, the recorder) of a search."""
    changes = {"output": str(tmp_path / name), "study": study, "runtime": {"workers": workers}, **changes}
    rows, recorder = search(config, engine=engine, **changes)
    return rows, content(tmp_path / name), recorder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, toy):
    """(rows, content) of the search that all others are held against, by a single worker in this process."""
    from tests.conftest import toy_settings

    folder = tmp_path_factory.mktemp("alone")
    config = folder / "toy.yaml"
    config.write_text(yaml.safe_dump(toy_settings(toy, folder / "run")))
    return done(config, folder, "alone")[:2]


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_nothing(toy_config, tmp_path, alone, workers):
    rows, found, recorder = done(toy_config, tmp_path, "run", workers)
    assert (rows, found) == alone
    assert [int(trial) for trial in recorder.ended[3:]] == list(range(7)), "told in order"


@pytest.mark.parametrize(
    ("stage", "how"), [("merge", "kill"), ("generate", "kill"), ("capture", "kill"), ("generate", "memory")]
)
def test_a_worker_that_dies_costs_its_trial_a_try(toy_config, tmp_path, alone, monkeypatch, stage, how):
    for name, value in ((AT, stage), (ONCE, str(tmp_path / "died")), (HOW, how)):
        monkeypatch.setenv(name, value)
    rows, found, recorder = done(toy_config, tmp_path, "run", 2)
    assert (tmp_path / "died").exists() and (rows, found) == alone
    (note,) = (note for note in recorder.notes if "tried again, 2 of 3" in note)
    assert ("was ended by SIGKILL" if how == "kill" else "ran out of memory (no more of it)") in note


def test_a_trial_that_its_workers_die_of_fails_and_the_search_goes_on(toy_config, tmp_path, monkeypatch):
    monkeypatch.setenv(AT, "generate")
    monkeypatch.setenv(SEED, str(stable_seed("merge", 0, 2)))
    rows, _, recorder = done(toy_config, tmp_path, "run", 2)
    (failed,) = (row for row in rows if row["state"] == "failed")
    assert (
        failed["trial"] == "0002"
        and "its worker was lost in each of 3 tries; the last one was ended by SIGKILL" in (failed["reason"])
    )
    assert sum("tried again" in note for note in recorder.notes) == 2 and len(rows) == 10


def test_what_is_logged_in_a_worker_is_logged(toy_config, tmp_path, monkeypatch, caplog):
    for name, value in ((AT, "capture"), (ONCE, str(tmp_path / "said")), (HOW, "warning")):
        monkeypatch.setenv(name, value)
    done(toy_config, tmp_path, "run", 2)
    (said,) = (record.getMessage() for record in caplog.records if "something to know" in record.getMessage())
    assert said in ("worker 1: something to know", "worker 2: something to know")


def test_workers_share_a_gpu_that_is_named_without_a_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for devices in ({"device": "cuda"}, {"devices": ["cuda"]}):
        found = places(RuntimeConfig(workers=2, **devices), 2)
        assert [place.device for place in found] == ["cuda:0", "cuda:0"]
        assert all(place.environment()["CUDA_VISIBLE_DEVICES"] == "0" for place in found)


def test_a_fault_of_the_program_ends_the_search_and_the_same_command_goes_on(toy_config, tmp_path, alone, monkeypatch):
    monkeypatch.setenv(AT, "capture")
    monkeypatch.setenv(HOW, "fault")
    monkeypatch.setenv(SEED, str(stable_seed("merge", 0, 3)))
    with pytest.raises(RunError, match=r"trial 3: ZeroDivisionError: a fault of the program \(not the recipe's"):
        done(toy_config, tmp_path, "run", 2)
    trace = (tmp_path / "run" / "error.log").read_text()
    assert "in a worker:" in trace and "in _perhaps" in trace
    monkeypatch.delenv(AT)
    rows, found, _ = done(toy_config, tmp_path, "run", 3)
    assert (rows, found) == alone


def test_workers_that_cannot_start_end_the_search(toy_config, tmp_path):
    with pytest.raises(RunError, match=r"no worker can be started: the last one ended with exit code 7"):
        search(toy_config, engine=_Either(never_starts), study=STUDY, runtime={"workers": 2})
    with pytest.raises(InputError, match="a member is not there"):
        search(toy_config, engine=_Either(refuses), study=STUDY, runtime={"workers": 2})


class _Either:
    """Makes an engine in this process, and does something else in a worker."""

    def __init__(self, inside):
        self.inside, self.here = inside, os.getpid()

    def __call__(self):
        return Steady() if os.getpid() == self.here else self.inside()


def test_more_workers_than_trials_at_once_are_refused(toy_config):
    with pytest.raises(InputError, match=r"runtime\.workers: expected at most 2, got 3: study.parallel says"):
        search(toy_config, engine=Mortal, study={"parallel": 2}, runtime={"workers": 3})
    for engine, message in (
        (Steady(), "got an engine of this process"),
        (lambda: Steady(), "expected a class or a function that other processes can import"),
    ):
        with pytest.raises(InputError, match=message):
            search(toy_config, engine=engine, study={"parallel": 2}, runtime={"workers": 2})


def test_an_error_that_cannot_be_sent_is_told_all_the_same():
    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} {two}")

    found = portable(Odd("a", "b"))
    assert type(found) is RuntimeError and str(found) == "Odd: a b" and "in a worker:" in found.__notes__[0]


VARIANTS = {
    "race, constraint": {
        "study": {"trials": 10, "parallel": 4, "objective": "consensus", "pruner": "wilcoxon", "block": 1,
                  "constraints": {"mean_tokens": "<= 9"}},
    },
    "pool, final": {"nex": {"calibration": "pool"}, "study": {"trials": 10, "parallel": 3,
                    "final": {"top": 2, "share": 0.5}}, "prompts": {"limit": None}},
    "no activations": {"activations": {"capture": "none"}, "study": {"trials": 6, "parallel": 4,
                       "objective": "consensus", "max_tokens": 330}},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_the_real_engine_gives_the_same_in_two_processes(toy_config, tmp_path, name):
    changes = dict(VARIANTS[name])
    study = changes.pop("study")
    one, two = (done(toy_config, tmp_path, str(n), n, None, study, **changes)[:2] for n in (1, 2))
    assert one == two


def start(config, *more):
    command = [sys.executable, "-m", "nex_merge", "search", str(config), "--workers", "2", *more]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which whoever runs the tests may ignore
    )  # fmt: skip


def wait_for_work(process, run):
    """Until a merge is under way; the processes of the search."""
    while not list((run / "trials").glob("0*/recipe.yaml")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_search(toy_config, tmp_path, number):
    """Stopped in any way, and gone on with by another number of workers, it finds what it would have found."""
    process = start(toy_config, "--trials", "40")
    pids = wait_for_work(process, tmp_path / "run")
    assert len(pids) == 3
    os.kill(process.pid, number)
    began = time.monotonic()
    assert process.wait(20) == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -9)
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() - began < 5, "a worker is left"
        time.sleep(0.02)
    if number != signal.SIGKILL:
        return
    rows, _, _ = done(toy_config, tmp_path, "run", 3, None)
    assert rows == done(toy_config, tmp_path, "other", 1, None)[0]
