"""Ask, evaluate, tell; resume. The only module that imports Optuna; knows nothing of models.

A study is reproducible however often it is stopped: every random draw of the sampler is seeded by (study seed, trial
number, parameter), never by what was drawn before, and a trial that a dead process left running is taken up again with
the values it was given, under its own number.
"""

import hashlib
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from nex_merge.errors import InputError, TrialError
from nex_merge.measures.estimates import Objective
from nex_merge.records import MergeRecipe, SearchSpace, TrialResult
from nex_merge.runs import files
from nex_merge.runs.run import Run
from nex_merge.setup.config import StudyConfig
from nex_merge.study.observers import Observer

optuna.logging.set_verbosity(optuna.logging.WARNING)

SEED_BITS = 31
FEWEST = 4  # merges, below which nothing is said of their parameters
Propose = Callable[[Any, int], MergeRecipe]
Evaluate = Callable[[str, str, MergeRecipe], TrialResult]
Seen = Callable[[int], Mapping[str, float] | None]


def stable_seed(*parts: object) -> int:
    """A seed from what it is for, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") % 2**SEED_BITS


class StatelessSampler(BaseSampler):
    """An Optuna sampler made anew for every draw, so that resuming needs no state but the study itself.

    `seen` gives the values that earlier trials have for the draw with a number, or None where those told are final:
    under a pool they change as it grows, and Optuna has to compare like with like.
    """

    def __init__(self, kind: str, seed: int, seen: Seen = lambda number: None) -> None:
        self._kind, self._seed, self._seen = kind, seed, seen
        self._number, self._study = -1, None  # the study as a trial finds it

    def _fresh(self, *parts: object) -> BaseSampler:
        seed = stable_seed(self._seed, *parts)
        return TPESampler(seed=seed) if self._kind == "tpe" else RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        sampler = self._fresh(trial.number, param_name)
        return sampler.sample_independent(self._as_found(study, trial.number), trial, param_name, param_distribution)

    def _as_found(self, study: Any, number: int) -> Any:
        """The study with the values that earlier trials have for this one; made once per trial."""
        if number != self._number:
            values = self._seen(number)
            self._number, self._study = number, None if values is None else _with_values(study, values)
        return study if self._study is None else self._study


def _with_values(study: Any, values: Mapping[str, float]) -> optuna.Study:
    """A copy in memory of the study, its finished trials with other values."""
    copy = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        value = values.get(files.trial_id(trial.number))
        if value is not None:
            trial.values = [value]
        copy.add_trial(trial)
    return copy


def open_study(run: Run, config: StudyConfig, sign: int, seen: Seen) -> optuna.Study:
    """The run's study, made if it isn't there yet; `sign` +1 maximizes.

    Raises InputError where the storage can't be opened, or holds another run's study of the same name.
    """
    try:
        with undisturbed():
            storage = _storage(run, config.storage)
            study = optuna.create_study(
                study_name=_study_name(run, storage, config.storage),
                storage=storage,
                sampler=StatelessSampler(config.sampler, config.seed, seen),
                pruner=optuna.pruners.NopPruner(),
                direction="maximize" if sign > 0 else "minimize",
                load_if_exists=True,
            )
            finished = [trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    except (SQLAlchemyError, ImportError, ValueError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(
            f"study.storage: cannot open {config.storage or run.path / files.STUDY}: {str(error).splitlines()[0]}. "
            "Use null, or a URL like sqlite:///study.db"
        ) from None
    for number in finished:
        if run.result(files.trial_id(number)) is None:
            raise InputError(
                f"study.storage: the study {study.study_name!r} has trial {number}, and {run.path} does not: it "
                "belongs to another run. Choose an output folder of another name"
            )
    return study


def _storage(run: Run, url: str | None) -> RDBStorage:
    return RDBStorage(url or f"sqlite:///{run.path / files.STUDY}")


def _study_name(run: Run, storage: RDBStorage, url: str | None) -> str:
    """The run's study in the storage. study.db in the run folder holds one study, whatever the folder was called."""
    if url is None and len(known := storage.get_all_studies()) == 1:
        return known[0].study_name
    return run.study_name


def run_merges(
    run: Run,
    study: optuna.Study,
    config: StudyConfig,
    objective: Objective,
    space: SearchSpace,
    first: Mapping[str, Any],
    propose: Propose,
    evaluate: Evaluate,
    observer: Observer,
) -> None:
    """Try merges until `config.trials` of them are finished, `first` (study parameters) before all others."""
    with undisturbed():
        if config.trials > 0 and not study.get_trials(deepcopy=False):
            study.enqueue_trial(dict(first))
    while True:
        with undisturbed():
            trial = _next_trial(study, config.trials)
            if trial is None:
                return
            number = files.trial_id(trial.number)
            # Where the result is there already, this gives the study the parameters it may lack.
            recipe = propose(trial, stable_seed("merge", config.seed, trial.number))
        result = run.result(number)
        if result is None:
            observer.on_trial_start(number, recipe.method)
            result = _finish(run, number, recipe, evaluate, space)
            observer.on_trial_end(result)
        with undisturbed():
            _tell(study, trial, result, objective)


def _next_trial(study: optuna.Study, wanted: int) -> optuna.Trial | None:
    """What a dead process left running, then a new trial; None once `wanted` are finished."""
    known = study.get_trials(deepcopy=False)
    left = [trial for trial in known if trial.state is TrialState.RUNNING]
    if left:
        # The run folder is locked, so whoever ran this trial is gone.
        return optuna.Trial(study, left[0]._trial_id)
    return study.ask() if sum(trial.state.is_finished() for trial in known) < wanted else None


def importances(run: Run, values: Mapping[str, float]) -> dict[str, float]:
    """The share of the values' variance that each searched parameter explains, greatest first; they add up to 1.

    fANOVA over a random forest (Hutter, Hoos and Leyton-Brown 2014), as Optuna has it. `values` by trial; parameters
    that some of these trials lack are left out. The study is only read, so a search that uses it goes on undisturbed.
    Raises InputError where there is no study to read, or the values are too few or too equal to tell.
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
        told = study.get_trials(states=(TrialState.COMPLETE,))
    except (SQLAlchemyError, ImportError, KeyError, ValueError, RuntimeError, optuna.exceptions.OptunaError) as error:
        where = storage or run.path / files.STUDY
        raise InputError(f"{where}: cannot read the study: {str(error).splitlines()[0]}") from None
    copy = optuna.create_study(direction=study.direction)
    for trial in told:
        value = values.get(files.trial_id(trial.number))
        if value is not None:
            trial.values = [value]
            copy.add_trial(trial)
    found = [trial.value for trial in copy.get_trials(deepcopy=False)]
    if len(found) < FEWEST or len(set(found)) == 1:
        raise InputError(
            f"expected at least {FEWEST} merges with different scores, got {len(found)} merges with {len(set(found))} "
            "different scores"
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return {
        name: float(share) for name, share in optuna.importance.get_param_importances(copy, evaluator=evaluator).items()
    }


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back Ctrl-C while the study's database is at work, which would roll back with a traceback of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


def _finish(run: Run, number: str, recipe: MergeRecipe, evaluate: Evaluate, space: SearchSpace) -> TrialResult:
    """The trial's result, complete, duplicate or failed, on disk."""
    began = time.perf_counter()
    earlier = _same_recipe(run, number, recipe, space)
    try:
        if earlier is None:
            return evaluate(number, recipe.method, recipe)
    except TrialError as error:
        result = failed(number, recipe.method, recipe, error, time.perf_counter() - began)
    else:
        files.write_recipe(run.folder(number), recipe)
        reason = f"the same recipe as trial {earlier.trial}"
        result = replace(
            earlier,
            trial=number,
            state="duplicate",
            reason=reason,
            same_as=earlier.trial,
            parameters=recipe.parameters,
            seconds={},
        )
    run.write(result)
    return result


def failed(trial: str, name: str, recipe: MergeRecipe, error: TrialError, seconds: float) -> TrialResult:
    """A failed trial with its reason."""
    return TrialResult(
        trial=trial,
        kind=recipe.kind,
        name=name,
        method=recipe.method,
        seed=recipe.seed,
        state="failed",
        reason=str(error),
        parameters=recipe.parameters,
        seconds={"total": seconds},
    )


def _same_recipe(run: Run, number: str, recipe: MergeRecipe, space: SearchSpace) -> TrialResult | None:
    """The earlier complete trial that merged the same thing; stochastic methods differ by their seeds."""
    if any(method.stochastic for method in space.methods if method.name == recipe.method):
        return None
    wanted = json.dumps(recipe.config, sort_keys=True)
    merges = [r for r in run.results() if r.kind == "merge" and r.state in files.SCORED]
    earlier = [r for r in merges if int(r.trial) < int(number)]
    same = (r for r in earlier if json.dumps(files.read_recipe(run.path, r.trial), sort_keys=True) == wanted)
    return next(same, None)


def _tell(study: optuna.Study, trial: optuna.Trial, result: TrialResult, objective: Objective) -> None:
    trial.set_user_attr("state", result.state)
    if result.reason is not None:
        trial.set_user_attr("reason", result.reason)
    if result.violation is not None and "collapse" not in trial.constraints:
        # Above 0 the trial is infeasible, and the sampler learns to avoid its like. Set already where a kill came
        # between this and telling.
        trial.set_constraint("collapse", result.violation)
    value = result.value(objective.name)
    if value is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
