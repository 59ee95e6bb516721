"""What an experiment tracker is told of a search, and what of it is kept in the run folder so that it goes on.

A tracker is told by a process of its own (`process.py`), which reads the run folder and nothing else: this module has
what it finds there.
"""

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nex_merge.errors import InputError
from nex_merge.records import TrialResult
from nex_merge.runs import files
from nex_merge.runs.results import Scores, read_result, read_scores

NAMES = ("trackio", "mlflow")


@dataclass(frozen=True)
class Task:
    """What the process of a tracker is told first."""

    tracker: str  # one of NAMES
    target: str = field(repr=False)  # trackio: the project; mlflow: the URI, with its password
    where: str  # the same without a password
    run: Path
    study: str  # the name of the run's study, which no other run has
    settings: Mapping[str, Any]  # the configuration, by `section.key`


@dataclass(frozen=True)
class Entry:
    """A trial as a tracker is told it."""

    trial: str
    state: str
    settings: Mapping[str, Any]  # kind, method, seed and the searched parameters
    metrics: Mapping[str, float]  # every measure that has a value
    recipe: Path | None
    pool: int  # trials that were finished when the metrics had these values

    @property
    def digest(self) -> str:
        """Of the metrics."""
        return hashlib.sha256(json.dumps(self.metrics, sort_keys=True).encode()).hexdigest()[:16]


class Tracker(Protocol):
    """An experiment tracker. Whatever it raises ends its part in the search, and nothing else."""

    def begin(self, known: str | None) -> str:
        """Open the run of the search, or go on with the `known` one. Returns its id."""
        ...

    def tell(self, entry: Entry, known: str | None) -> str:
        """Log a trial as a run of its own, or what a `known` one is worth now. Returns the id of that run."""
        ...

    def end(self, leaderboard: Path | None, complete: bool) -> None:
        """Close the run of the search, with its leaderboard.csv if there is one. `complete`: it was not interrupted."""
        ...


@dataclass
class Kept:
    """tracking.NAME.json: the ids that a tracker gave, and what it was told last."""

    where: str = ""
    search: str | None = None
    trials: dict[str, str] = field(default_factory=dict)  # trial -> the id of its run
    metrics: dict[str, str] = field(default_factory=dict)  # trial -> a digest of its metrics

    def write(self, run: Path, tracker: str) -> None:
        files.write_atomically(run / files.TRACKING.format(tracker), json.dumps(asdict(self), indent=1))


def read_kept(run: Path, tracker: str, where: str) -> Kept:
    """What is kept for a tracker; nothing for another project or URI. Raises InputError if the file is damaged."""
    path = run / files.TRACKING.format(tracker)
    if not path.is_file():
        return Kept(where)
    advice = "Remove it: the tracker then gets a new run"
    content = files.read_json(path, advice)
    try:
        kept = Kept(**content)
    except TypeError as error:
        raise InputError(f"{path}: is damaged ({error}). {advice}") from None
    return kept if kept.where == where else Kept(where)


def entries(run: Path, besides: Container[str] = ()) -> Iterator[Entry]:
    """The finished trials of a run but for some, with their present values.

    Files that can't be read are passed over: they are the search's matter.
    """
    trials = [path.parent.name for path in (run / files.TRIALS).glob(f"*/{files.RESULT}")]
    found = []
    for trial in sorted(trials):
        with suppress(InputError):
            entry = None if trial in besides else read_result(run, trial)
            found += [] if entry is None else [entry[0]]
    scores = read_scores(run) if found else None
    for result in sorted(found, key=lambda result: files.trial_order(result.kind, result.trial)):
        yield _entry(run, result, scores, len(trials))


def _entry(run: Path, result: TrialResult, scores: Scores | None, pool: int) -> Entry:
    rescored = {} if scores is None else scores.estimates.get(result.same_as or result.trial, {})
    estimates = {**result.estimates, **rescored}
    metrics = {name: float(item.value) for name, item in estimates.items() if item.value is not None}
    metrics["seconds"] = float(sum(result.seconds.values()))
    settings = {"kind": result.kind, "method": result.method, "seed": result.seed, **result.parameters}
    recipe = files.trial_folder(run, result.trial) / files.RECIPE
    return Entry(result.trial, result.state, settings, metrics, recipe if recipe.is_file() else None, pool)
