"""How much of the variance of the objective, of several the first, each searched parameter explains."""

from collections.abc import Mapping

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from nex_merge.errors import InputError, RunError
from nex_merge.runs import files
from nex_merge.runs.database import Database
from nex_merge.runs.run import RunFolder
from nex_merge.study.optuna_study import study_name
from nex_merge.wording import counted

optuna.logging.set_verbosity(optuna.logging.WARNING)

FEWEST = 4  # merges needed to estimate importances
WAIT = 30.0  # seconds that a database is waited for which another program holds


def importances(run: RunFolder, values: Mapping[str, float]) -> dict[str, float]:
    """The share of the values' variance that each searched parameter explains, greatest first; they add up to 1.

    fANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), as implemented by Optuna. `values` by trial;
    parameters that some of these trials lack are left out. The study is only read, so a running search is not
    disturbed. Raises InputError if there is no study to read, or too few or only equal values.
    """
    database = Database(run.storage, run.path, limit=WAIT, read_only=True)
    if database.path is not None and not database.path.is_file():
        raise InputError(
            f"{database.label}: no such file; it records the ranges that parameters were searched in. Running the "
            "search again writes it, from the trials of the run"
        )

    def read() -> tuple[list[FrozenTrial], optuna.Study]:
        url, options = database.arguments
        storage = RDBStorage(url, options)
        study = optuna.load_study(study_name=study_name(run, storage, database), storage=storage)
        return study.get_trials(states=(TrialState.COMPLETE,)), optuna.create_study(direction=study.directions[0])

    try:
        trials, copy = database.run(read)
    except RunError as error:
        raise InputError(f"cannot read the study: {error}") from None
    except (KeyError, ValueError, RuntimeError, optuna.exceptions.OptunaError) as error:
        raise InputError(
            f"{database.label}: cannot read the study: {database.hide(str(error).splitlines()[0])}"
        ) from None
    for trial in trials:
        value = values.get(files.trial_id(trial.number))
        if value is not None:
            trial.values = [value]
            copy.add_trial(trial)
    scores = [trial.value for trial in copy.get_trials(deepcopy=False)]
    if len(scores) < FEWEST or len(set(scores)) == 1:
        raise InputError(
            f"expected at least {FEWEST} merges with different scores, got {counted(len(scores), 'merge')} with "
            f"{len(set(scores))} different scores"
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        name: float(share) for name, share in optuna.importance.get_param_importances(copy, evaluator=evaluator).items()
    }
