"""What accuracy.json of a trial holds: its accuracy on each set of labelled problems.

The measurement that was made or attached last stands at the top of the file, as the only one did in earlier versions;
those before it are a list under `earlier`, as long as they have a figure that no later one has. A measurement:

    accuracy, accuracy_low, accuracy_high, n    share of right answers, its 95 % interval, problems
    right_by_problem                            1 or 0 for every problem, where known
    source                                      what it was measured on: only equal ones can be compared
    tasks                                       of several tasks, or by lm-eval: the same of each task, by name;
                                                `accuracy` is then their mean
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.runs import files

EARLIER, TASKS = "earlier", "tasks"
_DIGEST = re.compile(r" [0-9a-f]{16}\Z")
_FILE_TYPE = re.compile(r"\.(csv|jsonl?)\Z")


@dataclass(frozen=True)
class Measured:
    """A trial's accuracy on one set of problems."""

    accuracy: float
    low: float | None = None  # 95 % interval
    high: float | None = None
    n: int | None = None  # problems
    right: str | None = None  # 1 or 0 for every problem
    source: str = "None"  # what it was measured on


def read_measurements(run: Path, trial: str) -> list[Mapping[str, Any]]:
    """The measurements of a trial, the last one first; none where nothing was measured."""
    latest = files.read_accuracy(run, trial)
    if latest is None:
        return []
    return [{key: value for key, value in latest.items() if key != EARLIER}, *latest.get(EARLIER, ())]


def add_measurement(run: Path, trial: str, measurement: Mapping[str, Any]) -> None:
    """Keep a measurement as the last one, and of those before it what it doesn't replace."""
    earlier, known = [], {*names_of(measurement)}
    for one in read_measurements(run, trial):
        if not known.issuperset(names_of(one)):
            earlier.append(one)
            known |= {*names_of(one)}
    files.write_accuracy(run, trial, {**measurement, **({EARLIER: earlier} if earlier else {})})


def by_name(measurements: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """The accuracy on every set of problems, each as it was measured last. `measurements`: the last one first."""
    found: dict[str, Measured] = {}
    for one in measurements:
        for name, item in _parts(one).items():
            if name not in found and item.get("accuracy") is not None:
                found[name] = Measured(
                    item["accuracy"],
                    item.get("accuracy_low"),
                    item.get("accuracy_high"),
                    item.get("n"),
                    item.get("right_by_problem"),
                    str(item.get("source")),
                )
    return found


def names_of(measurement: Mapping[str, Any]) -> list[str]:
    """What a measurement has a figure of: its tasks, or the one set of problems that it was made on."""
    return list(_parts(measurement))


def _parts(measurement: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    tasks = measurement.get(TASKS)
    return tasks if isinstance(tasks, Mapping) and tasks else {_name(str(measurement.get("source"))): measurement}


def _name(source: str) -> str:
    """A short name of a source without tasks: its file's, as in `bench` for 'bench.jsonl, text 0123456789abcdef'."""
    told, digests = _DIGEST.subn("", source)
    return _FILE_TYPE.sub("", Path(told.partition(", ")[0] if digests else told).name)
