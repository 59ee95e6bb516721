"""A search in MLflow: a run with its configuration and its leaderboard, and a run within it for each trial."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from nex_merge.runs import files
from nex_merge.study.tracking.told import Entry, Task

EXPERIMENT = "nex-merge"  # unless MLFLOW_EXPERIMENT_NAME names another, as for MLflow itself
ARTIFACTS = "mlartifacts"  # as `mlflow server` calls the folder by itself
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
MOST, LONGEST = 100, 6000  # MLflow's own: parameters at once, characters of a value


class Mlflow:
    """Writes to a server, or to a database by itself."""

    def __init__(self, task: Task) -> None:
        self._task, self._client = task, MlflowClient(tracking_uri=task.target)
        self._search = ""

    def begin(self, known: str | None) -> str:
        client, task = self._client, self._task
        if known is not None:
            client.update_run(known, status="RUNNING")
            self._search = known
            return known
        run = client.create_run(self._experiment(), run_name=task.run.resolve().name, tags={NOTE: str(task.run)})
        self._search = run.info.run_id
        self._settings(self._search, task.settings)
        client.log_artifact(self._search, str(task.run / files.CONFIG))
        return self._search

    def tell(self, entry: Entry, known: str | None) -> str:
        client, is_new = self._client, known is None
        if known is None:
            tags = {PARENT: self._search, "state": entry.state}
            name = files.trial_name(entry.trial)
            known = client.create_run(
                client.get_run(self._search).info.experiment_id, run_name=name, tags=tags
            ).info.run_id
        now = int(time.time() * 1000)
        client.log_batch(known, [Metric(name, value, now, entry.pool) for name, value in entry.metrics.items()])
        if is_new:
            self._settings(known, entry.settings)
            if entry.recipe is not None:
                client.log_artifact(known, str(entry.recipe))
            client.set_terminated(known, "FAILED" if entry.state == "failed" else "FINISHED")
        return known

    def end(self, leaderboard: Path | None, complete: bool) -> None:
        if leaderboard is not None:
            self._client.log_artifact(self._search, str(leaderboard))
        self._client.set_terminated(self._search, "FINISHED" if complete else "KILLED")

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=_artifacts(self._task.target))

    def _settings(self, run: str, settings: Mapping[str, Any]) -> None:
        params = [Param(re.sub(r"[^\w\-. /:]", "_", name), str(value)[:LONGEST]) for name, value in settings.items()]
        for first in range(0, len(params), MOST):
            self._client.log_batch(run, params=params[first : first + MOST])


def _artifacts(uri: str) -> str | None:
    """Where the files of a new experiment go: beside an SQLite database, else where the server has them."""
    scheme, _, path = uri.partition(":///")
    return (Path(path).absolute().parent / ARTIFACTS).as_uri() if scheme.startswith("sqlite") else None
