"""work.jsonl: appended to and read, whatever became of it."""

import dataclasses
import json

import pytest

from nex_merge.records import Stint
from nex_merge.runs import files
from nex_merge.runs.work import append_stint, read_stints

pytestmark = pytest.mark.quick
ONE = Stint(1.0, "worker 1", "0000", "ties", 1, 2.0, 4.0, "done", {"merge": 0.5, "generate": 1.5})
OTHER = dataclasses.replace(ONE, trial="0001", began=4.0, ended=5.0, how="lost")


def test_lines_come_back_in_their_order(tmp_path):
    assert read_stints(tmp_path) == []
    append_stint(tmp_path, ONE)
    append_stint(tmp_path, OTHER)
    assert read_stints(tmp_path) == [ONE, OTHER]
    assert len((tmp_path / files.WORK).read_text().splitlines()) == 2


def test_a_torn_line_costs_no_other(tmp_path):
    append_stint(tmp_path, ONE)
    append_stint(tmp_path, ONE)
    path = tmp_path / files.WORK
    path.write_bytes(path.read_bytes()[:-20])
    assert read_stints(tmp_path) == [ONE]
    append_stint(tmp_path, OTHER)
    assert read_stints(tmp_path) == [ONE, OTHER]


def line(**changes) -> str:
    return json.dumps({**dataclasses.asdict(ONE), **changes})


@pytest.mark.parametrize(
    "content",
    [
        "{", "[1]", "null", "{}", line(more=1), line(trial=7), line(began="x"), line(stages=[1]), line(ended=None),
        line(stages={"merge": "x"}), line(ended=float("nan")), line(tries=float("inf")), "[" * 100_000, "\xff\xfe",
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_what_is_no_line_is_left_out(tmp_path, content):
    (tmp_path / files.WORK).write_bytes(content.encode("latin-1") + b"\n")
    append_stint(tmp_path, ONE)
    assert read_stints(tmp_path) == [ONE]


def test_what_cannot_be_read_is_not_there(tmp_path):
    (tmp_path / files.WORK).mkdir()
    assert read_stints(tmp_path) == []
