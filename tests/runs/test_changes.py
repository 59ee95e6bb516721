"""What is said of a configuration that is not the run's, and what counts as the same: only true reasons."""

import errno
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
import yaml

from nex_merge.cli import _described, app
from nex_merge.cli.errors import usage_message
from nex_merge.errors import InputError, RunError
from nex_merge.runs import custody, files
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from tests.searches import Steady, search, with_space
from tests.test_faq import FAQ


def go(config, trials=2, **overrides):
    overrides["study"] = {"trials": trials, **overrides.get("study", {})}
    return search(config, **{"engine": Steady(), **overrides})


def said(config, **overrides):
    with pytest.raises(InputError) as error:
        custody.compare(resolve_config(str(config), overrides))
    return str(error.value).splitlines()[1:-1]


@pytest.fixture
def movable(toy, toy_config, tmp_path):
    """A configuration whose models are in a folder `here` that can be moved, and how to move them."""
    data = yaml.safe_load(toy_config.read_text())
    for name, folder in toy.items():
        shutil.copytree(folder, tmp_path / "here" / name)

    def at(place):
        folders = {name: str(tmp_path / place / name) for name in toy}
        return {"base": folders.pop("base"), "models": folders}

    data["family"] = at("here")
    toy_config.write_text(yaml.safe_dump(data))

    def move(place):
        (tmp_path / "here").rename(tmp_path / place)
        (tmp_path / f"{place}.yaml").write_text(yaml.safe_dump(at(place)))
        return str(tmp_path / f"{place}.yaml")

    return toy_config, move


def test_other_models_are_other_models_and_nothing_else(toy, toy_config, tmp_path):
    go(toy_config)
    assert said(toy_config, models=["a"]) == ["  models: was ['a', 'b'], is ['a']"]
    data = yaml.safe_load(toy_config.read_text())
    del data["family"]["models"]["b"]
    toy_config.write_text(yaml.safe_dump(data))
    assert said(toy_config) == ["  family.models: was ['a', 'b'], is ['a']"]
    data["family"]["models"]["b"] = str(toy["base"])
    toy_config.write_text(yaml.safe_dump(data))
    assert said(toy_config) == [f"  family.models.b: was '{toy['b']}', is '{toy['base']}'"]


def test_a_moved_family_is_the_same(movable, tmp_path):
    config, move = movable
    space = {"methods": ["ties"], "parameters": {"weight": {"choices": [0.5, 1.0]}, "density": 0.5}}
    with_space(config, space)
    before, _ = go(config, 3, engine=None)
    again, recorder = go(config, 5, engine=None, output=str(tmp_path / "whole"))
    family = move("there")
    with pytest.raises(InputError) as error:
        Remerger(RunFolder(tmp_path / "run"))
    assert "here/base" in str(error.value) and "there is no such folder" in str(error.value)
    assert f"nex-merge search {tmp_path}/run/config.yaml --trials 0 --family FILE" in str(error.value)
    for words in ("there is no such folder", "--trials 0 --family FILE evaluates nothing again"):
        assert words in str(error.value) and words in FAQ
    rows, recorder = go(tmp_path / "run/config.yaml", 0, engine=None, family=family)
    assert rows == before and recorder.ended == []
    assert RunFolder(tmp_path / "run").config.study.trials == 3, "a lower number does not shorten a longer run"
    remerger = Remerger(RunFolder(tmp_path / "run"))
    for result in remerger.run.results():
        if result.state == "complete":
            remerger.load(result)  # the same tensors
    rows, recorder = go(tmp_path / "run/config.yaml", 5, engine=None)
    assert rows == again and recorder.ended == ["0003", "0004"]
    assert [row["state"] for row in rows].count("duplicate") > 0, "recipes of before are known in the new place"
    with pytest.raises(InputError, match=r"config\.json in .*there/a changed"):
        (tmp_path / "there/a/config.json").write_text(
            (tmp_path / "there/a/config.json").read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
        )
        custody.compare(resolve_config(str(tmp_path / "run/config.yaml")))


def test_members_that_change_places_are_not_the_same(movable, tmp_path):
    config, _ = movable
    go(config)
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (tmp_path / "here" / old).rename(tmp_path / "here" / new)
    data = yaml.safe_load(config.read_text())
    models = data["family"]["models"]
    data["family"]["models"] = {"a": models["b"], "b": models["a"]}
    config.write_text(yaml.safe_dump(data))
    assert said(config) == [f"  family.models.{n}: was '{models[n]}', is '{models[o]}'" for n, o in ("ab", "ba")]


def test_a_row_that_the_study_lost_is_written_again(toy_config, tmp_path):
    whole, _ = go(toy_config, 5, output=str(tmp_path / "whole"))
    go(toy_config, 4)
    for statement, said in (
        ("DELETE FROM trials WHERE number = 2", "lacks a row, or has one twice"),
        ("UPDATE trials SET number = 1 WHERE number = 2", "lacks a row, or has one twice"),
        ("DROP TABLE trial_params", "has other parameters for trial 0"),
        ("UPDATE trial_params SET param_value = 0.3 WHERE trial_id = 2", "has other parameters for trial 1"),
        ("UPDATE trial_values SET value = value + 0.1 WHERE trial_id = 3", "has another value for trial 2"),
    ):
        with closing(sqlite3.connect(tmp_path / "run/study.db")) as connection, connection:
            connection.execute(statement)
        notes = go(toy_config, 4)[1].notes
        assert any(said in note and "written again, from the trials" in note for note in notes), (statement, notes)
    rows, recorder = go(toy_config, 5)
    assert rows == whole and recorder.ended == ["0004"] and not recorder.notes
    numbers = "SELECT number, state FROM trials ORDER BY trial_id"
    with closing(sqlite3.connect(tmp_path / "run/study.db")) as connection:
        assert connection.execute(numbers).fetchall() == [(number, "COMPLETE") for number in range(5)]


def test_a_full_disk_names_the_folder(toy_config, tmp_path, monkeypatch):
    write, fsync = files.write_responses, os.fsync

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_responses", full)
    with pytest.raises(RunError, match=r"/run: the disk is full\. Free some space; the same command goes on"):
        go(toy_config)
    assert not (tmp_path / "run/error.log").exists()
    monkeypatch.setattr(files, "write_responses", write)
    assert len(go(toy_config)[0]) == 5
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as error:
        files.write_atomically(tmp_path / "out" / "scores.json", "{}")
    monkeypatch.setattr(os, "fsync", fsync)
    assert _described(error.value) == (
        f"{tmp_path}/out: the disk is full (scores.json). Free some space; the same command goes on"
    )


@pytest.mark.quick
@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--resume", "The same command goes on where a search stopped."),
        ("--threads", None),
        ("--jobs", None),
        ("--trails", "Did you mean --trials?"),
        ("--fres", "Did you mean --fresh?"),
    ],
)
def test_an_option_that_does_not_exist_suggests_only_what_is_close(option, hint):
    from typer.exceptions import TyperException

    with pytest.raises(TyperException) as error:
        app(["search", "x.yaml", option, "2"], prog_name="nex-merge", standalone_mode=False)
    text = " ".join(filter(None, (f"no such option: {option}.", hint, "See nex-merge search --help")))
    assert usage_message(error.value) == text


@pytest.mark.quick
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\ndtype: bfloat16\n", "mergekit-yaml"),
        ("slices: [{sources: [{model: a, layer_range: [0, 2]}]}]\nmerge_method: passthrough\n", "mergekit-yaml"),
        ("genome: {models: [a, b], merge_method: dare_ties}\ntasks: [{name: gsm8k}]\n", "mergekit-evolve"),
        ("base_model: a\ngate_mode: random\nexperts: [{source_model: b}]\n", "mergekit-moe"),
    ],
)
def test_a_configuration_of_mergekit_is_called_what_it_is(content, expected, tmp_path):
    (tmp_path / "theirs.yml").write_text(content)
    with pytest.raises(InputError, match=rf"theirs\.yml: is a .*{expected}") as error:
        resolve_config(str(tmp_path / "theirs.yml"), {"output": str(tmp_path)})
    assert ("study: {recipes: [FILE]}" in str(error.value)) == (expected != "mergekit-moe")
