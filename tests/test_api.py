"""The Python interface: what `nex_merge` offers, on a search with an engine of one's own."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import nex_merge
from nex_merge.activations.cache import read_cache
from tests.engines.fakes import FakeEngine
from tests.searches import Recorder

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.quick
def test_everything_that_is_offered_is_there_and_documented():
    for name in nex_merge.__all__:
        assert getattr(nex_merge, name).__doc__, name
    assert set(nex_merge.__all__) <= set(dir(nex_merge))
    assert (Path(nex_merge.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = nex_merge.serach


@pytest.mark.quick
def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, nex_merge\n"
        "nex_merge.InputError\n"
        "heavy = {'torch', 'transformers', 'optuna', 'mergekit', 'pandas', 'sklearn', 'scipy', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("form", ["file", "mapping", "config"])
def test_a_search_from_a_file_a_mapping_or_a_configuration(toy_config, tmp_path, form):
    mapping = yaml.safe_load(toy_config.read_text())
    config = {"file": toy_config, "mapping": mapping, "config": nex_merge.RunConfig(**mapping)}[form]
    run = nex_merge.search(config, engine=FakeEngine(), observers=[recorder := Recorder()])
    assert recorder.ended[-1] == "0003"
    assert isinstance(run, nex_merge.Run) and run.path == tmp_path / "run"
    frame = run.leaderboard
    assert list(frame["rank"])[:3] == [1, 2, 3] and len(frame) == 7
    assert run.best().trial == frame[frame["kind"] == "merge"]["trial"].iloc[0]
    assert run.trial(2).trial == "0002" and run.trial("base").kind == "base"
    assert nex_merge.open_run(run.path).best() == run.best()


@pytest.mark.quick
def test_another_family_replaces_that_of_the_file(toy, toy_config):
    family = {"base": str(toy["base"]), "models": {"other": str(toy["b"])}}
    run = nex_merge.search(toy_config, family=family, engine=FakeEngine())
    assert set(run.leaderboard["trial"]) == {"base", "other", "0000", "0001", "0002", "0003"}


def test_a_run_exports(toy_run_copy, tmp_path):
    run = nex_merge.open_run(toy_run_copy)
    out = run.export(tmp_path / "best")
    assert out == tmp_path / "best" and (out / "model.safetensors").is_file()
    with pytest.raises(nex_merge.InputError, match="expected a new or empty folder"):
        run.export(out, trial=0)


def test_any_optuna_sampler_takes_over_after_the_first_guesses(toy_config, tmp_path):
    import optuna

    def searched(name, trials, **changes):
        settings = {
            **yaml.safe_load(toy_config.read_text()),
            "output": str(tmp_path / name),
            "study": {"trials": trials},
        }
        run = nex_merge.search(settings | changes, engine=FakeEngine(), observers=[recorder := Recorder()], **given)
        return [dict(run.trial(i).parameters) for i in range(trials)], recorder.notes

    given = {}
    own, _ = searched("own", 5)
    given = {"sampler": optuna.samplers.RandomSampler(seed=0)}
    drawn, notes = searched("given", 5)
    assert drawn[:3] == own[:3] and drawn[3] != own[3] and drawn[4] != own[4]
    assert any("RandomSampler, given from Python" in note and "the trials finished stay" in note for note in notes)
    given = {"sampler": optuna.samplers.RandomSampler(seed=0)}
    pooled, _ = searched("pooled", 5, nex={"calibration": "pool"})
    assert pooled == drawn
    resumed, _ = searched("given", 6)
    assert resumed[:5] == drawn


@pytest.mark.quick
def test_what_is_no_sampler_or_has_nothing_to_sample_is_refused(toy_config):
    import optuna

    with pytest.raises(nex_merge.InputError, match=r"sampler: expected an Optuna sampler, such as .+, got 'tpe'"):
        nex_merge.search(toy_config, engine=FakeEngine(), sampler="tpe")
    settings = yaml.safe_load(toy_config.read_text())
    settings["study"]["warm_start"] = "results/other"
    with pytest.raises(nex_merge.InputError, match=r"sampler: expected none with study\.warm_start"):
        nex_merge.search(settings, engine=FakeEngine(), sampler=optuna.samplers.RandomSampler())


@pytest.mark.quick
def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(nex_merge.InputError, match="not a run folder"):
        nex_merge.open_run(tmp_path)


class Broken(nex_merge.Observer):
    """Fails at whatever it is told."""

    def on_trial_end(self, result):
        raise ZeroDivisionError("planted")

    def on_note(self, text):
        raise ValueError("planted")


def test_an_observers_failure_is_reported_once_and_ends_nothing(toy_config, caplog):
    recorder = Recorder()
    run = nex_merge.search(toy_config, engine=FakeEngine(), observers=[Broken(), recorder])
    assert len(run.leaderboard) == 7 and len(recorder.ended) == 7
    told = [record.message for record in caplog.records if "observer" in record.message]
    assert len(told) == 1 and "observer Broken failed in on_trial_end (ZeroDivisionError: planted)" in told[0]


@pytest.mark.quick
def test_nex_alone_on_a_cache():
    nex = nex_merge.nex
    rows = read_cache(GOLDEN / "long")
    analyses = nex.analyse(rows, 0.95, 2)
    evidence = nex.Evidence(np.arange(rows.responses), rows.base, nex.stack_credits(analyses))
    assert nex.score(evidence, analyses, "self").nex == nex_merge.score(cache=GOLDEN / "long").score.nex


@pytest.mark.parametrize("module", ["answers.conclusions", "inspect.score"])
def test_the_examples_in_docstrings_run(module):
    found = doctest.testmod(importlib.import_module(f"nex_merge.{module}"))
    assert found.attempted and not found.failed
