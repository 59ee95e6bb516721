"""Which activations stay in a run folder: a function of the search, that changes nothing else of it."""

import shutil
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.cli.app import app
from nex_merge.errors import InputError
from nex_merge.inspect.neurons import read_neurons
from nex_merge.measures.estimates import objective_of
from nex_merge.nex import calibration
from nex_merge.records import Estimate, NexScore, TrialResult
from nex_merge.runs import room
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.recapture import recapture, uncaptured
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.setup.study_config import StudyConfig
from nex_merge.study.preflight import check
from tests.conftest import ROOT, toy_settings, without_hashes
from tests.searches import Steady, search, study_of, without_times
from tests.study.test_final import SETTINGS
from tests.study.test_race import Skilled

POOL = {"nex": {"calibration": "pool"}, "study": {"trials": 6}}
MEMBERS = {"base", "a", "b"}


def settings(keep, **study):
    return {**POOL, "study": {**POOL["study"], **study}, "activations": {"keep": keep}}


def with_rows(run):
    return {path.parent.parent.name for path in run.glob("trials/*/cache/rows")}


def caches(run):
    """All files of activations and credit, with their bytes."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for part in ("cache", "credit")
        for path in run.glob(f"trials/*/{part}/**/*")
        if path.is_file()
    }


def proposals(run):
    return [(trial.params, trial.values) for trial in study_of(run).trials]


@pytest.fixture(autouse=True)
def small_pool(monkeypatch):
    """Neuron weights are those of a pool that grows while the search goes on."""
    monkeypatch.setattr(calibration, "FIRST_POOL", 2)


@pytest.fixture(scope="module")
def searched(toy, tmp_path_factory):
    """The runs that kept everything (`all`), two merges (`top:2`) and no merge (`none`), to be read only."""
    root = tmp_path_factory.mktemp("room")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(calibration, "FIRST_POOL", 2)
        for keep in ("all", "top:2", "none"):
            (root / "toy.yaml").write_text(yaml.safe_dump(toy_settings(toy, root / keep)))
            search(root / "toy.yaml", **settings(keep))
    return root


@pytest.fixture
def dropped(searched, tmp_path):
    """A copy of the run that kept no merge's."""
    return shutil.copytree(searched / "none", tmp_path / "run")


@pytest.mark.parametrize("keep", ["top:2", "none"])
def test_what_is_kept_changes_neither_ranking_nor_proposals(searched, keep):
    whole, run = searched / "all", searched / keep
    assert without_times(read_rows(RunFolder(run))) == without_times(read_rows(RunFolder(whole)))
    assert proposals(run) == proposals(whole)
    told = sorted(RunFolder(whole).results()[3:], key=lambda result: -result.value("nex"))
    merges = {"top:2": {result.trial for result in told[:2]}, "none": set()}[keep]
    assert with_rows(run) == MEMBERS | merges and len(with_rows(whole)) == 9
    kept, all_of_it = caches(run), caches(whole)
    assert kept.items() - all_of_it.items() == {
        (f"trials/{trial}/cache/dropped.txt", f"activations.keep: {keep}".encode())
        for trial in with_rows(whole) - with_rows(run)
    }, "what stays is the same to the bit"
    assert all("/rows/" in name for name in all_of_it.keys() - kept.keys())
    assert RunFolder(run).damaged() == {}


@pytest.mark.parametrize("moment", [1, 4, 6])
def test_a_search_that_was_killed_before_it_made_room(toy_config, searched, tmp_path, monkeypatch, moment):
    killed(toy_config, monkeypatch, "nex_merge.study.search.make_room", room.make_room, moment, lambda run: True)
    resumed_as(searched / "top:2", toy_config, tmp_path / "run")


@pytest.mark.parametrize("moment", [0, 3])
def test_a_search_that_was_killed_while_it_removed_rows_removes_the_same(
    toy_config, searched, tmp_path, monkeypatch, moment
):
    def is_rows(path, **options):
        if path.name == "rows":
            (path / "keys.uint32").unlink()
        return path.name == "rows"

    killed(toy_config, monkeypatch, "nex_merge.activations.cache.shutil.rmtree", shutil.rmtree, moment, is_rows)
    assert len(list(tmp_path.glob("run/trials/*/cache/dropped.txt"))) == moment + 1
    resumed_as(searched / "top:2", toy_config, tmp_path / "run")


def killed(config, monkeypatch, name, function, moment, counts):
    """Search, and die at a call of a function, of those that `counts` is true of."""
    steps = iter(range(100))

    def dying(*args, **kwargs):
        if counts(*args, **kwargs) and next(steps) == moment:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(name, dying)
        with pytest.raises(KeyboardInterrupt):
            search(config, **settings("top:2"))


def resumed_as(whole, config, run):
    rows, recorder = search(config, **settings("top:2"))
    assert rows == without_times(read_rows(RunFolder(whole)))
    assert caches(run) == caches(whole)
    assert not any("Evaluated again" in note for note in recorder.notes)


def test_a_search_that_is_prolonged_makes_the_room_of_a_longer_one(toy_config, searched, tmp_path):
    search(toy_config, **settings("top:2", trials=3))
    search(toy_config, **settings("top:2"))
    assert caches(tmp_path / "run") == caches(searched / "top:2")


def leaders(most, told, **study):
    """`told`: values of the objectives by merge, in order of number."""
    objective = objective_of(StudyConfig.model_validate(study))

    def result(number, values):
        estimates = {name: Estimate(value) for name, value in zip(objective.names, values, strict=True)}
        score = NexScore(0.5, None, "self", (), 0, 0, 0, 0, None, {})
        return TrialResult(f"{number:04d}", "merge", "ties", "ties", 0, "complete", score=score, estimates=estimates)

    results = [result(number, values) for number, values in enumerate(told)]
    run = SimpleNamespace(results=lambda: results, objective=objective, ranks=lambda result: True)
    return sorted(int(trial) for trial in room._leaders(run, most))


def test_those_that_lead_by_what_they_were_told():
    assert leaders(2, [(0.1,), (0.5,), (0.3,), (0.4,)], objective="nex") == [1, 3]
    assert leaders(2, [(0.1,), (0.5,), (0.3,), (0.4,)], objective="mean_tokens", direction="minimize") == [0, 2]
    assert leaders(2, [(0.5,), (0.5,), (0.5,)], objective="nex") == [0, 1], "of equals, the earlier"
    assert leaders(9, [(0.5,), (0.5,)], objective="nex") == [0, 1] and leaders(0, [(0.5,)], objective="nex") == []
    both = {"objectives": {"nex": "maximize", "mean_tokens": "minimize"}}
    assert leaders(2, [(0.9, 90), (0.8, 95), (0.1, 10), (0.5, 80)], **both) == [0, 3], "the front, by the first"
    assert leaders(4, [(0.9, 90), (0.8, 95), (0.1, 10), (0.5, 80)], **both) == [0, 1, 2, 3]
    assert leaders(2, [(0.9, 90), (0.8, 95), (0.1, 10)], **both) == [0, 2], "before what one of it dominates"


def test_the_final_keeps_its_own_leaders(toy_config, tmp_path):
    rows, _ = search(toy_config, engine=Skilled(), **SETTINGS, output=str(tmp_path / "whole"))
    again, _ = search(toy_config, engine=Skilled(), **SETTINGS, activations={"keep": "top:1"})
    assert again == rows
    run = RunFolder(tmp_path / "run")
    for stage in (run, run.final):
        (kept,) = with_rows(stage.path) - MEMBERS
        eligible = [result for result in stage.results() if result.kind == "merge" and stage.ranks(result)]
        assert kept == max(eligible, key=lambda result: result.value("consensus")).trial
    assert len(with_rows(tmp_path / "whole" / "final")) == 3 + 8


@pytest.mark.parametrize(
    "keep", ["top:0", "top:x", "top:", "top: 2", "top:-1", "top:1e3", "best", "", 2, None, ["all"]]
)
def test_other_words_are_refused(toy_config, keep):
    expected = "a string" if not isinstance(keep, str) else "all, none or top:K with a number of merges from 1"
    with pytest.raises(InputError, match=rf"toy\.yaml: activations\.keep: expected {expected}"):
        resolve_config(str(toy_config), {"activations": {"keep": keep}})


def test_keeping_some_of_what_is_not_captured_is_refused(toy_config):
    for keep in ("none", "top:1"):
        activations = {"capture": "none", "keep": keep}
        with pytest.raises(InputError, match=rf"activations\.keep: {keep} has nothing to choose from"):
            check(resolve_config(str(toy_config), {"study": {"objective": "consensus"}, "activations": activations}))
    check(resolve_config(str(toy_config), {"study": {"objective": "consensus"}, "activations": {"capture": "none"}}))


def test_it_stays_as_it_was_when_a_run_is_resumed(toy_config, dropped):
    with pytest.raises(InputError, match=r"activations\.keep: was none, is all \(nex-merge clean removes"):
        search(toy_config, **POOL)


def test_a_run_of_an_earlier_version_keeps_all(toy_config, tmp_path):
    search(toy_config, engine=Steady(), study={"trials": 2})
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    assert content["activations"].pop("keep") == "all"
    path.write_text(yaml.safe_dump(content))
    without_hashes(tmp_path / "run")
    assert search(toy_config, engine=Steady(), study={"trials": 3})[1].ended == ["0002"]
    with pytest.raises(InputError, match=r"activations\.keep: was all, is none"):
        search(toy_config, engine=Steady(), study={"trials": 3}, activations={"keep": "none"})
    assert with_rows(tmp_path / "run") == MEMBERS | {"0000", "0001", "0002"}


def test_what_needs_the_rows_says_what_is_missing_and_how_to_get_it(dropped):
    missing = r"activations were not kept \(activations\.keep: none\)\. Capture them again: nex-merge rescore \S+/run"

    def refused(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)

    with pytest.raises(InputError, match=rf"^trial 1: the {missing} --capture 1$"):
        RunFolder(dropped).rows("0001")
    every = rf"^trial 0, trial 1, trial 2, trial 3, trial 4, trial 5: the {missing} --capture all$"
    for words in (["rescore", dropped, "--rho", "0.9"], ["rescore", dropped, "--min-run", "3"]):
        with pytest.raises(InputError, match=every):
            raise InputError(refused(*words))
    for name in ("phases", "agreement"):
        options = ["--annotations", "builtin"] if name == "agreement" else []
        with pytest.raises(InputError, match=rf"^trial 1: the {missing} --capture 1$"):
            raise InputError(refused(name, dropped, "--trial", "1", *options))
    assert "0001/cache: its rows were not kept (activations.keep: none); `nex-merge rescore --capture` captures" in (
        refused("score", "--cache", dropped / "trials/0001/cache")
    )
    assert CliRunner().invoke(app, ["phases", str(dropped), "--trial", "a"]).exit_code == 0, "members keep theirs"
    done = CliRunner().invoke(app, ["report", str(dropped)])
    assert done.exit_code == 0 and "activations were not kept (activations.keep: none)" in (
        (dropped / "report.html").read_text()
    )


def test_what_needs_no_rows_works_without(searched, dropped):
    whole = RunFolder(searched / "all")
    for name in ("self", "crossfit", "parents", "pool"):
        nex = whole.config.nex.model_copy(update={"calibration": name})
        run = RunFolder(dropped)
        assert without_times(rescore_run(run, nex)) == without_times(rescore_run(RunFolder(searched / "all"), nex))
        assert run.damaged() == {}
    for path in (searched / "all", dropped):
        rescore_run(RunFolder(path), whole.config.nex)
    mine, its = (read_neurons(RunFolder(path), "1") for path in (dropped, searched / "all"))
    assert mine.top(True, 5) == its.top(True, 5)
    assert CliRunner().invoke(app, ["neurons", str(dropped), "--trial", "1"]).exit_code == 0


def test_rows_are_captured_again_to_the_bit(toy_config, searched, dropped):
    results = {path: path.read_bytes() for path in dropped.glob("trials/*/result.json")}
    run = RunFolder(dropped)
    missing = uncaptured(run, [result.trial for result in run.results()])
    assert {result.trial for result in missing} == {f"000{i}" for i in range(6)}
    recapture(run, [result for result in missing if result.trial == "0001"])
    assert with_rows(dropped) == MEMBERS | {"0001"}
    done = CliRunner().invoke(app, ["rescore", str(dropped), "--capture", "all", "--rho", "0.9"])
    assert done.exit_code == 0, done.output
    assert caches(dropped) == caches(searched / "all")
    assert {path: path.read_bytes() for path in results} == results, "trials that were captured have their results"
    # A search that goes on makes the room that it is asked for.
    search(toy_config, **settings("none"))
    assert caches(dropped) == caches(searched / "none")


def test_rows_that_were_not_dropped_are_damage(toy_config, searched, tmp_path):
    run = shutil.copytree(searched / "top:2", tmp_path / "run")
    (kept, _) = sorted(with_rows(run) - MEMBERS)
    gone = next(trial for trial in ("0000", "0001", "0002", "0003") if trial not in with_rows(run))
    shutil.rmtree(run / "trials" / kept / "cache" / "rows")
    assert RunFolder(run).damaged().keys() == {kept}
    shutil.rmtree(run / "trials" / gone / "cache" / "base")
    assert RunFolder(run).damaged().keys() == {kept, gone}, "masses per response are never dropped"
    assert sorted(search(toy_config, **settings("top:2"))[1].ended) == sorted([kept, gone])
    assert caches(run) == caches(searched / "top:2")


def test_credit_that_can_not_be_computed_any_more_says_how_to_get_it(toy_config, searched, dropped, caplog):
    shutil.rmtree(dropped / "trials/0001/credit")
    (dropped / "trials/0002/credit/keys.uint32").write_bytes(b"")
    run = RunFolder(dropped)
    with pytest.raises(InputError, match=r"0001/credit is missing or damaged, and trial 1: the activations were not"):
        rescore_run(run, run.config.nex)
    assert run.damaged().keys() == {"0001", "0002"} and "the search computes it" not in caplog.text
    recapture(run, uncaptured(run, ["0001"]))
    assert RunFolder(dropped).damaged().keys() == {"0002"}
    rows, recorder = search(toy_config, **settings("none"))
    assert recorder.ended == ["0002"] and rows == without_times(read_rows(RunFolder(searched / "all")))
    assert caches(dropped) == caches(searched / "none")
