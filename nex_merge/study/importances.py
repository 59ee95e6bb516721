"""How much of the variance of the objective, of several the first, each searched parameter explains."""

from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.run import RunFolder
from nex_merge.study.snapshot import read_study
from nex_merge.wording import counted

optuna.logging.set_verbosity(optuna.logging.WARNING)

FEWEST = 4  # merges needed to estimate importances


def importances(run: RunFolder, values: Mapping[str, float]) -> dict[str, float]:
    """The share of the values' variance that each searched parameter explains, greatest first; they add up to 1.

    fANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), as implemented by Optuna. `values` by trial;
    parameters that some of these trials lack are left out. The study is only read, so a running search is not
    disturbed. Raises InputError if there is no study to read, or too few or only equal values.
    """
    told = read_study(run)
    copy = optuna.create_study(direction=told.directions[0])
    for trial in told.trials:
        value = values.get(files.trial_id(trial.number))
        if value is not None and trial.state is TrialState.COMPLETE:
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
