"""What tests of searches compare with."""

import shutil
from pathlib import Path

import pytest
import yaml

from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from tests.conftest import ROOT, toy_settings
from tests.searches import go, without_times


@pytest.fixture
def toy_rows(toy_run):
    """The leaderboard of the search that `toy_config` describes, done once for all tests that compare with it."""
    return without_times(read_rows(RunFolder(toy_run)))


@pytest.fixture(scope="session")
def searched(toy, tmp_path_factory):
    """A folder with two undisturbed runs: `whole` of six merges and `run` of four."""
    root = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for name, trials in (("whole", 6), ("run", 4)):
            (root / "toy.yaml").write_text(yaml.safe_dump(toy_settings(toy, root / name)))
            go(root / "toy.yaml", trials)
    return root


@pytest.fixture
def whole(searched):
    """The leaderboard of six merges."""
    return without_times(read_rows(RunFolder(searched / "whole")))


@pytest.fixture
def run(searched, tmp_path):
    """A run of four merges, as `toy_config` describes it."""
    return Path(shutil.copytree(searched / "run", tmp_path / "run"))
