"""What a search refuses, and that it changes nothing then."""

import shutil

import pytest
import yaml

from nex_merge.errors import InputError, RunError
from tests.engines.fakes import FakeEngine
from tests.searches import search, with_space


def test_another_configuration_is_refused_with_the_difference(toy_config, tmp_path):
    search(toy_config, study={"trials": 1})
    with pytest.raises(InputError) as error:
        search(toy_config, study={"trials": 1, "seed": 5}, nex={"rho": 0.9})
    assert "nex.rho: was 0.95, is 0.9" in str(error.value)
    assert "study.seed: was 0, is 5" in str(error.value)
    assert "--fresh" in str(error.value)
    _, watcher = search(toy_config, fresh=True, study={"trials": 1, "seed": 5}, nex={"rho": 0.9})
    assert f"renamed the earlier run to {tmp_path}/run.1" in watcher.notes
    assert (tmp_path / "run.1" / "trials" / "0000" / "result.json").exists()


def test_changed_prompts_are_another_configuration(toy_config, tmp_path):
    (tmp_path / "p.txt").write_text("pairs\nsigns\n")
    prompts = {"file": str(tmp_path / "p.txt")}
    search(toy_config, study={"trials": 0}, prompts=prompts)
    (tmp_path / "p.txt").write_text("pairs\npairs\n")
    with pytest.raises(InputError, match=r"prompts\.file: the content of .*p\.txt has changed"):
        search(toy_config, study={"trials": 0}, prompts=prompts)


def test_other_library_versions_are_noted(toy_config, tmp_path):
    search(toy_config, study={"trials": 0})
    path = tmp_path / "run" / "config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["resolved"]["versions"]["torch"] = "1.0"
    path.write_text(yaml.safe_dump(saved))
    _, watcher = search(toy_config, study={"trials": 0})
    assert any("library version changed since this run was started: torch: was '1.0'" in note for note in watcher.notes)


def test_two_searches_in_one_folder(toy_config, tmp_path):
    from filelock import FileLock

    search(toy_config, study={"trials": 0})
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(RunError, match="another search is running"):
        search(toy_config, study={"trials": 0})


def test_a_filter_that_catches_nothing(toy_config):
    space = {"methods": ["ties"], "parameters": {"weight": 0.5}, "filters": ["self_atn"]}
    with pytest.raises(InputError, match=r"filters\.0: expected part of a tensor's name, got 'self_atn'"):
        search(with_space(toy_config, space))


def test_no_room_for_the_response(toy_config):
    with pytest.raises(InputError, match="the model's context is 512"):
        search(toy_config, generation={"max_new_tokens": 500})


def test_fresh_does_not_step_around_a_search_at_work(toy_config, tmp_path):
    from filelock import FileLock

    search(toy_config, study={"trials": 0})
    with FileLock(tmp_path / "run" / "lock"), pytest.raises(RunError, match="another search is running"):
        search(toy_config, fresh=True, study={"trials": 0})
    assert (tmp_path / "run" / "trials" / "base" / "result.json").exists(), "nothing was moved aside"


def test_what_is_refused_moves_nothing_aside(toy_config, tmp_path):
    search(toy_config, study={"trials": 0})
    with pytest.raises(InputError, match="the model's context is 512"):
        search(toy_config, fresh=True, generation={"max_new_tokens": 500})
    assert not (tmp_path / "run.1").exists()


def test_changed_checkpoints_are_another_configuration(toy, toy_config, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(toy["a"], own)
    config = yaml.safe_load(toy_config.read_text())
    config["family"]["models"]["a"] = str(own)
    toy_config.write_text(yaml.safe_dump(config))
    search(toy_config, study={"trials": 0})
    shutil.copy(toy["b"] / "model.safetensors", own / "model.safetensors")
    with pytest.raises(InputError, match=r"family\.models\.a: the weights in .*own changed since"):
        search(toy_config, study={"trials": 0})


def test_a_search_that_failed_before_its_first_trial_blocks_nothing(toy_config):
    with pytest.raises(InputError, match=r"study\.storage: expected a database URL"):
        search(toy_config, engine=FakeEngine(), study={"trials": 1, "storage": "foo"})
    rows, _ = search(toy_config, engine=FakeEngine(), study={"trials": 1})
    assert len(rows) == 4
