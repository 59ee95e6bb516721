"""A member's files change while a search runs."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import save_file

from nex_merge.errors import InputError, TrialError
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from nex_merge.setup import fingerprints
from nex_merge.setup.resolve import resolve_config
from nex_merge.study import member_files
from nex_merge.study.member_files import MemberFiles
from tests.engines.fakes import FakeEngine
from tests.searches import search, without_times


@pytest.fixture
def family(toy, tmp_path):
    """A copy of the toy family, to be written to: folders by name."""
    return {name: Path(shutil.copytree(toy[name], tmp_path / name)) for name in ("base", "a", "b")}


@pytest.fixture
def config(family, toy_config):
    settings = yaml.safe_load(toy_config.read_text())
    settings["family"] = {"base": str(family["base"]), "models": {"a": str(family["a"]), "b": str(family["b"])}}
    toy_config.write_text(yaml.safe_dump(settings))
    return toy_config


class Changing(FakeEngine):
    """Does something to the files within the fifth merge, the second of the study."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def load(self, recipe):
        if len(self.loaded) == 4 and self.change is not None:
            change, self.change = self.change, None
            change()
        return super().load(recipe)


def overwritten(file, content=None, keep_times=False):
    """Other bytes in the same file, or the content given."""
    times = file.stat()
    data = bytearray(file.read_bytes())
    data[-64:] = bytes(64)
    with open(file, "r+b") as opened:
        opened.write(bytes(data) if content is None else content)
    if keep_times:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(file):
    other = file.with_suffix(".new")
    data = file.read_bytes()
    other.write_bytes(data[:-64] + bytes(64))
    os.replace(other, file)


@pytest.mark.parametrize("change", [
    lambda folder: overwritten(folder / "model.safetensors"),
    lambda folder: overwritten(folder / "model.safetensors", keep_times=True),
    lambda folder: replaced(folder / "model.safetensors"),
], ids=["in place", "in place, with its time put back", "by another file"])  # fmt: skip
def test_a_parent_that_changes_ends_the_search_as_its_start_would(config, family, tmp_path, change):
    weights, kept = family["a"] / "model.safetensors", (family["a"] / "model.safetensors").read_bytes()
    with pytest.raises(InputError) as ended:
        search(config, engine=Changing(lambda: change(family["a"])))
    assert f"family.models.a: the weights in {family['a'].resolve()} changed since the run" in str(ended.value)
    with pytest.raises(InputError) as refused:
        search(config, engine=FakeEngine())
    assert str(refused.value) == str(ended.value)
    run = RunFolder(tmp_path / "run")
    assert [result.trial for result in run.results()] == ["base", "a", "b", "0000"], "nothing of the one that saw both"
    assert len(json.loads((run.path / "leaderboard.json").read_text())) == 4
    weights.write_bytes(kept)
    rows, recorder = search(config, engine=FakeEngine())
    assert recorder.ended == ["0001", "0002", "0003"] and len(rows) == 7


def test_half_a_file_is_no_fault_of_the_recipe(config, family, tmp_path):
    def cut():
        overwritten(family["b"] / "model.safetensors")
        raise TrialError("the merged tensor is not finite")

    with pytest.raises(InputError, match=r"family\.models\.b: the weights in .* changed since the run was started"):
        search(config, engine=Changing(cut))
    assert not (tmp_path / "run" / "trials" / "0001" / "result.json").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "added_tokens.json"])
def test_files_that_say_how_weights_are_used_count_too(config, family, name):
    file = family["base"] / name

    def changed():
        content = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**content, "another": 1}))

    with pytest.raises(InputError, match=rf"family\.base: {name} in .* changed since the run was started"):
        search(config, engine=Changing(changed))


def test_what_is_touched_or_copied_back_goes_on(config, family, toy_config, tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(
        member_files, "fingerprint", lambda folder: counted.append(folder) or fingerprints.fingerprint(folder)
    )

    def copied():
        for folder in family.values():
            for file in folder.iterdir():
                content = file.read_bytes()
                file.unlink()
                file.write_bytes(content)

    rows, recorder = search(config, engine=Changing(copied))
    assert recorder.ended[-1] == "0003" and len(counted) == 2 * len(family), "at the start, and when they had moved"
    (tmp_path / "run").rename(tmp_path / "first")
    assert search(config, engine=FakeEngine())[0] == rows == without_times(read_rows(RunFolder(tmp_path / "first")))


def test_an_adapter_is_watched_with_its_base_and_what_they_were_merged_to(config, family, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    shutil.copy(family["b"] / "model.safetensors", adapter / "adapter_model.safetensors")
    given = {"base": str(family["base"]), "models": {"x": {"path": str(family["a"]), "adapter": str(adapter)}}}
    resolved = resolve_config(str(config), family=given)
    merged = resolved.family.folders["x"]
    merged.mkdir(parents=True)
    shutil.copy(family["b"] / "model.safetensors", merged)
    files = MemberFiles(resolved)
    for folder, name in ((adapter, "adapter_model"), (family["a"], "model"), (merged, "model")):
        file = folder / f"{name}.safetensors"
        kept = file.read_bytes()
        replaced(file)
        with pytest.raises(InputError, match="the files of x changed since the run was started"):
            files.check()
        file.write_bytes(kept)
        files.check()


def test_looking_takes_no_time(config, family, tmp_path):
    for folder in family.values():
        tensors = {f"w{i}": b"" for i in range(4)}
        shards = {name: f"{name}.safetensors" for name in tensors}
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
        for shard in shards.values():
            save_file({}, folder / shard, {"of": shard})
    files = MemberFiles(resolve_config(str(config)))
    began = time.perf_counter()
    for _ in range(20):
        files.check()
    assert (time.perf_counter() - began) / 20 < 0.005
