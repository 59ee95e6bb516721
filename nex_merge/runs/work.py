"""work.jsonl: what every worker did when, over all sessions of a search.

For the report alone: whoever reads it does without what is not there, or is no line of it.
"""

import dataclasses
import json
import math
from pathlib import Path

from nex_merge.records import Stint
from nex_merge.runs import files


def append_stint(run: Path, stint: Stint) -> None:
    """Add a line, after what a killed process may have left of one."""
    with (run / files.WORK).open("ab+") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(dataclasses.asdict(stint)).encode() + b"\n")


def read_stints(run: Path) -> list[Stint]:
    """All lines that can be read, in the order in which they were written."""
    try:
        lines = (run / files.WORK).read_bytes().splitlines()
    except OSError:
        return []
    return [stint for line in lines if (stint := _stint(line)) is not None]


def _stint(line: bytes) -> Stint | None:
    try:
        stint = Stint(**json.loads(line))
        numbers = [stint.session, stint.began, stint.ended, stint.tries, *stint.stages.values()]
        is_whole = all(map(math.isfinite, numbers))
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    texts = [stint.worker, stint.trial, stint.method, stint.how]
    return stint if is_whole and all(isinstance(text, str) for text in texts) else None
