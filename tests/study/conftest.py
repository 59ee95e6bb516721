"""What tests of searches compare with."""

import pytest

from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.run import RunFolder
from tests.searches import without_times


@pytest.fixture
def toy_rows(toy_run):
    """The leaderboard of the search that `toy_config` describes, done once for all tests that compare with it."""
    return without_times(read_rows(RunFolder(toy_run)))
