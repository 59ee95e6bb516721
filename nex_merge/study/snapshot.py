"""A run as an Optuna study of its present values, which a study that was told them at the time has not.

study.db has of every trial what it was worth when it ended. Measures that depend on the pool change with every variant
that joins it, and a trial that was told takes no other value. So the trials are copied, and given what the leaderboard
has now. The study itself is only read: a running search is not disturbed.
"""

import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nex_merge.errors import InputError, RunError
from nex_merge.runs import files
from nex_merge.runs.advice import lead
from nex_merge.runs.database import Database
from nex_merge.runs.leaderboard import latest_results, read_rows
from nex_merge.runs.results import read_reliability
from nex_merge.runs.rows import PARAMETER
from nex_merge.runs.run import RunFolder
from nex_merge.study.optuna_study import study_name
from nex_merge.wording import first_line

optuna.logging.set_verbosity(optuna.logging.WARNING)

WAIT = 30.0  # seconds that a database is waited for which another program holds
# What Optuna's dashboard shows of a trial's folder, as text: it would offer YAML as a download.
ARTIFACTS = (files.RECIPE, files.RESPONSES)
BASELINES = "base, parents and equal weights"


@dataclass(frozen=True)
class Told:
    """A run's study as it was told."""

    trials: Sequence[FrozenTrial]
    directions: Sequence[StudyDirection]


def read_study(run: RunFolder) -> Told:
    """The trials of a run's study, and the directions of its objectives.

    Raises InputError if there is no study to read.
    """
    database = Database(run.storage, run.path, limit=WAIT, read_only=True)
    if database.path is not None and not database.path.is_file():
        raise InputError(
            f"{database.label}: no such file; it records the ranges that parameters were searched in. Running the "
            "search again writes it, from the trials of the run"
        )

    def read() -> Told:
        url, options = database.arguments
        storage = RDBStorage(url, options)
        study = optuna.load_study(study_name=study_name(run, storage, database), storage=storage)
        return Told(study.get_trials(), study.directions)

    try:
        return database.run(read)
    except RunError as error:
        raise InputError(f"cannot read the study: {error}") from None
    except (KeyError, ValueError, RuntimeError, optuna.exceptions.OptunaError) as error:
        raise InputError(f"{database.label}: cannot read the study: {database.hide(first_line(error))}") from None


def study_now(run: RunFolder) -> optuna.Study:
    """The merges of a run as a study in memory, under their numbers. Raises InputError if there is no study to read."""
    return _merges(run, _Now(run), InMemoryStorage(), constraints_by_name=True)


def fill(storage: BaseStorage, run: RunFolder, with_files: bool) -> dict[str, Path]:
    """Put a run into an empty storage as `optuna-dashboard` reads it. Returns the files of its artifacts, by id.

    `with_files`: list files of trials as artifacts, which the caller then serves.

    Two studies: the merges, under their numbers; and base, parents and equal weights, which, without the parameters
    that merges have, would change their importances. Raises InputError if there is no study to read.
    """
    now = _Now(run, with_files)
    _merges(run, now, storage, constraints_by_name=False)
    beside = _created(f"{run.path.resolve().name}: {BASELINES}", run, now, storage)
    for trial in now.baselines():
        beside.add_trial(trial)
    return now.artifacts


def _merges(run: RunFolder, now: "_Now", storage: BaseStorage, constraints_by_name: bool) -> optuna.Study:
    study = _created(run.path.resolve().name, run, now, storage)
    for name, value in now.facts():
        study.set_user_attr(name, value)
    for trial in now.told.trials:
        study.add_trial(now.merge(trial, constraints_by_name))
    return study


def _created(name: str, run: RunFolder, now: "_Now", storage: BaseStorage) -> optuna.Study:
    study = optuna.create_study(study_name=name, storage=storage, directions=list(now.told.directions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(run.objective.names))
    return study


class _Now:
    """What a run's trials are worth now."""

    def __init__(self, run: RunFolder, with_files: bool = False) -> None:
        self._run, self.told, self._with_files = run, read_study(run), with_files
        self.artifacts: dict[str, Path] = {}
        self._results = {result.trial: result for result in latest_results(run)}
        # The values of the search: a final's are those of some merges, on other prompts, and stand beside them.
        self._searched = {row.trial: row for row in read_rows(run, final=False)}
        self._leading = {row.trial: row for row in read_rows(run)}

    def facts(self) -> Iterator[tuple[str, Any]]:
        """What the study as a whole says."""
        rows = list(self._leading.values())
        yield "run", str(self._run.path.resolve())
        if rows:
            yield "recommendation", next(lead(rows, self._run.objective, read_reliability(self._run.path)))

    def merge(self, trial: FrozenTrial, constraints_by_name: bool) -> FrozenTrial:
        """A merge with its present value; as it was told, where the folder has no result of it."""
        id = files.trial_id(trial.number)
        result = self._results.get(id)
        values = None if result is None else self._run.objective.values(result)
        if result is None or not trial.state.is_finished():
            return trial
        intermediate = trial.intermediate_values
        if intermediate and values is not None:
            intermediate = dict.fromkeys(intermediate, values[0])
        state = trial.state if values is not None else TrialState.FAIL
        violated = result.violations or ({} if result.violation is None else {"violation": result.violation})
        copy = optuna.trial.create_trial(
            state=state,
            values=values if state is TrialState.COMPLETE else None,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=self._attributes(id),
            system_attrs=self._shown(id) | ({} if constraints_by_name else {"constraints": list(violated.values())}),
            intermediate_values=intermediate,
            constraints=dict(violated) if constraints_by_name else None,
        )
        copy.datetime_start, copy.datetime_complete = trial.datetime_start, trial.datetime_complete
        return copy

    def baselines(self) -> Iterator[FrozenTrial]:
        """Base, parents and equal weights, told apart by a parameter, as trials of Optuna have no names."""
        found = [result for result in self._results.values() if result.kind != "merge" or result.is_reference]
        names = {result.trial: "equal weights" if result.is_reference else result.trial for result in found}
        for result in found:
            values = self._run.objective.values(result)
            trial = optuna.trial.create_trial(
                state=TrialState.FAIL if values is None else TrialState.COMPLETE,
                values=values,
                params={"variant": names[result.trial]},
                distributions={"variant": CategoricalDistribution(list(names.values()))},
                user_attrs=self._attributes(result.trial),
                system_attrs=self._shown(result.trial),
            )
            ended = datetime.fromtimestamp((self._run.folder(result.trial) / files.RESULT).stat().st_mtime)
            trial.datetime_complete = ended
            trial.datetime_start = ended - timedelta(seconds=sum(result.seconds.values()))
            yield trial

    def _attributes(self, trial: str) -> dict[str, Any]:
        """Every column of the leaderboard, without parameters; of a final, the values there, too."""
        row = self._searched.get(trial)
        if row is None:
            return {}
        leading = self._leading[trial]
        columns = {name: value for name, value in row.as_mapping().items() if not name.startswith(PARAMETER)}
        columns |= {name: getattr(leading, name) for name in ("rank", "front", "stage", "recommended")}
        if leading.stage != row.stage:
            columns |= {f"{leading.stage}.{name}": leading.value(name) for name in row.objectives}
        return {name: value for name, value in columns.items() if value is not None}

    def _shown(self, trial: str) -> dict[str, str]:
        """The files of a trial as Optuna lists artifacts. Put in with the trial: one that has ended takes no more."""
        found = {}
        for name in ARTIFACTS if self._with_files else ():
            path = self._run.folder(trial) / name
            if path.is_file():
                id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{trial}/{name}"))
                self.artifacts[id] = path
                about = {"artifact_id": id, "filename": name, "mimetype": "text/plain", "encoding": None}
                found[f"artifacts:{id}"] = json.dumps(about)
        return found
