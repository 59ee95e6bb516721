"""A study as a trial finds it has the trials that Optuna's own copy would have."""

import optuna
from optuna.trial import TrialState

from nex_merge.study.views import as_before


def of(trials):
    return [(trial.number, trial.state, trial.params, trial.values) for trial in trials]


def test_a_study_as_it_is_found_is_that_of_optunas_copies_and_changes_nothing():
    study, other = (optuna.create_study(direction="maximize") for _ in range(2))
    for number in range(6):
        study.tell(trial := study.ask(), trial.suggest_float("x", number, number + 1))
    other.tell(trial := other.ask(), trial.suggest_float("x", 0, 1))
    before, earlier = of(study.trials), other.trials
    found = as_before(study, 5, 3, {"0001": [7.0]}, earlier)

    copied = optuna.create_study(direction="maximize")
    for trial in (*earlier, *study.trials[:3]):
        copied.add_trial(trial)
    for trial in study.trials[3:5]:
        copied.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=trial.params,
                                                   distributions=trial.distributions))  # fmt: skip
    copied.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING))
    expected = of(copied.trials)
    expected[2] = (2, TrialState.COMPLETE, study.trials[1].params, [7.0])
    assert of(found.trials) == of(found.get_trials(deepcopy=False)) == expected
    running = (TrialState.RUNNING,)
    assert of(found.get_trials(states=running)) == [row for row in expected if row[1] is TrialState.RUNNING]
    assert of(study.trials) == before and of(other.trials) == of(earlier)
