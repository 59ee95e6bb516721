"""Six kills at random; `make soak` has five hundred."""

import pytest

from benchmarks.soak import soak


@pytest.mark.timeout(900)
def test_six_random_kills_change_nothing(tmp_path):
    found = soak(tmp_path, 6, seed=29)
    assert found["kills"] == 6 and found["processes"] > found["searches"]
