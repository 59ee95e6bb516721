"""How much of the objective's variance each searched parameter explains."""

import sqlite3
from collections.abc import Mapping

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.run import Run

optuna.logging.set_verbosity(optuna.logging.WARNING)

FEWEST = 4  # merges needed to estimate importances


def importances(run: Run, values: Mapping[str, float]) -> dict[str, float]:
    """The share of the values' variance that each searched parameter explains, greatest first; they add up to 1.

    fANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), as implemented by Optuna. `values` by trial;
    parameters that some of these trials lack are left out. The study is only read, so a running search is not
    disturbed. Raises InputError if there is no study to read, or too few or only equal values.
    """
    storage = run.config.study.storage
    if storage is None and not (run.path / files.STUDY).is_file():
        raise InputError(f"{run.path}: has no {files.STUDY}, which records the ranges that parameters were searched in")
    try:
        if storage is None:
            address = f"{(run.path / files.STUDY).resolve().as_uri()}?mode=ro"
            opened = {"creator": lambda: sqlite3.connect(address, uri=True)}
            study = optuna.load_study(study_name=None, storage=RDBStorage("sqlite://", engine_kwargs=opened))
        else:
            study = optuna.load_study(study_name=run.study_name, storage=storage)
        trials = study.get_trials(states=(TrialState.COMPLETE,))
    except (SQLAlchemyError, ImportError, KeyError, ValueError, RuntimeError, optuna.exceptions.OptunaError) as error:
        where = storage or run.path / files.STUDY
        raise InputError(f"{where}: cannot read the study: {str(error).splitlines()[0]}") from None
    copy = optuna.create_study(direction=study.direction)
    for trial in trials:
        value = values.get(files.trial_id(trial.number))
        if value is not None:
            trial.values = [value]
            copy.add_trial(trial)
    scores = [trial.value for trial in copy.get_trials(deepcopy=False)]
    if len(scores) < FEWEST or len(set(scores)) == 1:
        raise InputError(
            f"expected at least {FEWEST} merges with different scores, got {len(scores)} merges with "
            f"{len(set(scores))} different scores"
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        name: float(share) for name, share in optuna.importance.get_param_importances(copy, evaluator=evaluator).items()
    }
