"""Files of a run folder that are damaged: one message that names the file, and exit code 2."""

import pytest

from nex_merge.activations.cache import read_cache, read_manifest
from nex_merge.errors import InputError
from nex_merge.runs import files, results
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder


@pytest.fixture
def run(toy_run_copy):
    return toy_run_copy


def read_everything(run):
    read_rows(RunFolder(run))
    results.read_reliability(run)
    RunFolder(run).scoring()
    files.read_recipe(run, "0000")
    files.read_responses(files.trial_folder(run, "0000"))
    read_cache(files.trial_folder(run, "0000") / files.CACHE)


def test_a_whole_run_is_read(run):
    read_everything(run)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'{"a"', b"[]", b"x: ["], ids=repr)
@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "scores.json",
        "reliability.json",
        "trials/0000/result.json",
        "trials/0000/recipe.yaml",
        "trials/0000/responses.jsonl",
        "trials/0000/cache/manifest.json",
    ],
)
def test_a_damaged_file_is_named(run, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(InputError, match=name.rpartition("/")[2]):
        read_everything(run)


def test_a_manifest_of_something_else_is_refused(run):
    folder = files.trial_folder(run, "0000") / files.CACHE
    (folder / "manifest.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"manifest\.json: expected the manifest of a cache"):
        read_manifest(folder)
