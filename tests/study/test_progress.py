"""What a search says of how far it is: counts, values, time left, and live.json for whoever looks on."""

import io
import re
import shutil
from contextlib import suppress
from dataclasses import replace

import pytest
from rich.console import Console

from nex_merge.measures.estimates import Objective
from nex_merge.records import Estimate, TrialResult
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study import optuna_study, progress
from nex_merge.study.search import run_search
from tests.engines.fakes import FakeEngine

NEX = Objective("nex", 1)


def ended(trial, value, measure="nex", kind="merge", **changes):
    estimates = {} if value is None else {measure: Estimate(value)}
    seconds = {"merge": 1.5, "generate": 2.0}
    fields = {"method": "ties", "state": "complete", **changes}
    return TrialResult(trial, kind, "x", seed=0, **fields, estimates=estimates, seconds=seconds)


def begins(observer, trial, method, worker="here", tries=1):
    """A worker begins with a trial, as the search tells it."""
    observer.on_worker(worker, trial, tries)
    observer.on_trial_start(trial, method)


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.time, "time", lambda: now[0])
    return now


def test_a_line_says_how_many_the_value_and_the_time_left(clock, capsys):
    shown = progress.Progress(NEX)
    earlier = [ended("base", 0.4, kind="base"), ended("0000", 0.7), ended("0001", 0.9, state="collapsed", reason="x")]
    shown.on_start("run", 6, earlier)
    assert capsys.readouterr().err == "the ranking so far, from another terminal: nex-merge watch run\n"
    clock[0] += 10
    shown.on_trial_end(ended("0002", 0.6))
    clock[0] += 20
    shown.on_trial_end(ended("0003", None, state="failed", reason="not finite"))
    clock[0] += 60
    shown.on_trial_end(ended("0004", 0.75))
    assert capsys.readouterr().err.splitlines() == [
        # One trial took 10 seconds, and two are left; then two took 30, and one is left.
        "[4/6] trial 2 (ties): nex 0.6000, 3.5 s, 0:20 left",
        "[5/6] trial 3 (ties): failed: not finite, 3.5 s, 0:15 left",
        "[6/6] trial 4 (ties): nex 0.7500, 3.5 s, 0:00 left",
    ]


def test_merges_are_expected_to_take_what_parents_took_and_then_what_merges_do(clock, capsys):
    shown = progress.Progress(NEX)
    shown.on_start("run", 6, [])
    capsys.readouterr()
    took = {"base": 60, "a": 20, "b": 30, "0000": 10, "0001": 14}
    for trial, seconds in took.items():
        clock[0] += seconds + 1  # between two trials
        kind = "base" if trial == "base" else "parent" if trial in "ab" else "merge"
        shown.on_trial_end(replace(ended(trial, 0.5, kind=kind), seconds={"generate": float(seconds)}))
    left = [line.rsplit(", ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert left == ["5:05 left", "1:24 left", "1:18 left", "0:22 left", "0:13 left"]


def test_of_several_objectives_all_are_shown(clock, capsys):
    shown = progress.Progress(Objective("nex", 1, (Objective("mean_tokens", -1), Objective("consensus", 1))))
    shown.on_start("run", 2, [])
    capsys.readouterr()
    estimates = {"nex": Estimate(0.7), "mean_tokens": Estimate(31.6)}
    shown.on_trial_end(replace(ended("0000", 0.7), estimates=estimates))
    line = "[1/2] trial 0 (ties): nex 0.7000, mean_tokens 32, consensus not defined yet, 3.5 s, 0:00 left\n"
    assert capsys.readouterr().err == line


def test_base_and_parents_go_by_their_names_and_a_collapse_by_its_reason(clock, capsys):
    shown = progress.Progress(NEX)
    shown.on_start("run", 3, [])
    capsys.readouterr()
    for result in (
        ended("base", 0.4, kind="base", method="passthrough"),
        ended("math", 0.5, kind="parent", method="passthrough"),
        ended("0012", 0.9, state="collapsed", reason="loops"),
    ):
        shown.on_trial_end(result)
    assert [line.partition(", ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "[1/3] base: nex 0.4000",
        "[2/3] parent math: nex 0.5000",
        "[3/3] trial 12 (ties): collapsed: loops",
    ]


def test_a_terminal_shows_the_stage_at_work(clock):
    shown = progress.Progress(NEX)
    shown._console = Console(file=io.StringIO(), force_terminal=True)
    shown.on_start("run", 4, [ended("base", 0.4, kind="base")])
    try:
        shown.on_worker("here", None, 0)
        begins(shown, "a", "parent")
        shown.on_stage("a", "generate", 120)
        assert str(shown._status.status) == "[1/4] parent a: generate 120 tokens"
        shown.on_worker("here", None, 1)
        assert str(shown._status.status) == "[1/4] parent a: generate 120 tokens"
        begins(shown, "0000", "ties")
        shown.on_stage("0000", "merge", 0)
        assert str(shown._status.status) == "[1/4] trial 0 (ties): merge"
    finally:
        shown.on_end([])
    assert not shown._console._live_stack, "the live line is given back"


def lines_of(config, capsys, **overrides):
    """(done, total, trial) of the lines that a search with the fake engine shows."""
    capsys.readouterr()
    with suppress(KeyboardInterrupt):
        run_search(resolve_config(str(config), overrides), observers=[progress.Progress(NEX)], engine=FakeEngine())
    found = re.findall(r"\[(\d+)/(\d+)\] (?:trial |parent )?(\w+)", capsys.readouterr().err)
    return [(int(done), int(total), trial) for done, total, trial in found]


def test_trials_of_earlier_processes_count_after_a_kill_between_result_and_tell(
    toy_config, tmp_path, monkeypatch, capsys
):
    tell = optuna_study._tell

    def dies(study, trial, *rest):
        if trial.number == 2:
            raise KeyboardInterrupt
        tell(study, trial, *rest)

    monkeypatch.setattr(optuna_study, "_tell", dies)
    first = lines_of(toy_config, capsys)
    assert first == [(i, 7, t) for i, t in enumerate(["base", "a", "b", "0", "1", "2"], 1)]
    monkeypatch.setattr(optuna_study, "_tell", tell)
    assert lines_of(toy_config, capsys) == [(7, 7, "3")]


def test_a_trial_that_was_begun_does_not_go_beyond_fewer_trials(toy_config, tmp_path, monkeypatch, capsys):
    """Killed within trial 2, then asked for one merge only: trial 2 waits until more are asked for."""

    class Dies(FakeEngine):
        def answer(self, *args, **kwargs):
            if self.answered == 5:
                raise KeyboardInterrupt
            return super().answer(*args, **kwargs)

    with pytest.raises(KeyboardInterrupt):
        run_search(resolve_config(str(toy_config)), engine=Dies())
    assert RunFolder(tmp_path / "run").begun() == ["0002"]
    assert lines_of(toy_config, capsys, study={"trials": 1}) == []
    assert lines_of(toy_config, capsys, study={"trials": 3}) == [(6, 6, "2")]


def test_a_lost_trial_counts_once_and_nothing_counts_past_the_total(toy_config, tmp_path, capsys):
    run_search(resolve_config(str(toy_config)), engine=FakeEngine())
    shutil.rmtree(tmp_path / "run" / "trials" / "0001")
    assert lines_of(toy_config, capsys, study={"trials": 2}) == [(7, 7, "1")]
    shutil.rmtree(tmp_path / "run" / "trials" / "0001")
    assert lines_of(toy_config, capsys, study={"trials": 5}) == [(7, 8, "1"), (8, 8, "4")]


def test_trials_that_another_search_adds_raise_the_total(clock, capsys):
    shown = progress.Progress(NEX)
    shown.on_start("run", 1, [ended("base", 0.4, kind="base")])
    shown.on_trial_end(ended("0000", 0.6))
    assert capsys.readouterr().err.startswith("[2/2] ")


def test_what_a_search_is_at_is_told_at_most_twice_a_second(tmp_path, clock):
    beacon = progress.Beacon(tmp_path)
    beacon.on_start("run", 15, [None] * 3)
    beacon.on_worker("here", None, 0)
    beacon.on_stage("0000", "merge", 0)
    assert files.read_live(tmp_path) is None  # the folder may be another search's until a trial begins
    begins(beacon, "0001", "ties")
    beacon.on_stage("0001", "generate", 0)
    for amount, seconds in ((10, 0.2), (20, 0.2), (30, 0.2), (40, 0.2)):
        clock[0] += seconds
        beacon.on_stage("0001", "generate", amount)
    found = files.read_live(tmp_path)
    assert found is not None and (found.done, found.total, found.told) == (3, 15, pytest.approx(1000.6))
    (worker,) = found.workers
    assert (worker.stage, worker.amount, worker.told) == ("generate", 30, pytest.approx(1000.6))
    assert (worker.stage_began, worker.trial_began) == (1000.0, 1000.0)
    beacon.on_end([])
    assert files.read_live(tmp_path) is None and list(tmp_path.iterdir()) == []


def test_a_new_trial_or_stage_is_told_at_once(tmp_path, clock):
    beacon = progress.Beacon(tmp_path)
    beacon.on_start("run", 5, [])
    begins(beacon, "base", "base")
    clock[0] += 0.1
    beacon.on_stage("base", "capture", 0)
    (found,) = files.read_live(tmp_path).workers
    assert (found.trial, found.stage, found.stage_began, found.trial_began) == ("base", "capture", 1000.1, 1000.0)
    beacon.on_worker("here", None, 1)
    assert (files.read_live(tmp_path).done, files.read_live(tmp_path).waiting) == (0, 1)
    beacon.on_trial_end(ended("base", 0.4, kind="base"))
    assert (files.read_live(tmp_path).done, files.read_live(tmp_path).waiting) == (1, 0)
    clock[0] += 0.1
    begins(beacon, "a", "parent")
    live = files.read_live(tmp_path)
    (found,) = live.workers
    assert (live.done, live.total, found.trial, found.method, found.stage) == (1, 5, "a", "parent", "merge")


def test_who_never_began_removes_nothing(tmp_path, clock):
    """A search that is refused, as another is at work in the folder, leaves the other's live.json alone."""
    other = progress.Beacon(tmp_path)
    begins(other, "base", "base")
    refused = progress.Beacon(tmp_path)
    refused.on_end([])
    assert files.read_live(tmp_path) is not None
