"""Searches over the toy family as tests run them: through the library, with an observer that keeps what it is told."""

from dataclasses import replace
from pathlib import Path

import optuna
import yaml
from optuna.storages import RDBStorage

from nex_merge.engines.observe import quiet
from nex_merge.measures.constraints import constraints_of
from nex_merge.measures.estimates import objective_of
from nex_merge.runs.database import Database
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.observers import Observer
from nex_merge.study.search import run_search
from nex_merge.study.terms import Terms, split_prompts
from nex_merge.study.trial import TrialRunner
from nex_merge.workers.job import done_here
from tests.engines.fakes import FakeEngine
from tests.rows import by_column

# The trials of the search that `toy_config` describes.
TRIALS = ["base", "a", "b", "0000", "0001", "0002", "0003"]
# They differ from run to run.
TIMES = ("seconds",)


class Recorder(Observer):
    """Keeps notes and the trials that ended."""

    def __init__(self):
        self.notes, self.ended = [], []

    def on_note(self, text):
        self.notes.append(text)

    def on_trial_end(self, result):
        self.ended.append(result.trial)


def search(config: Path, fresh=False, engine=None, **overrides):
    """(the leaderboard's rows without times, the recorder)."""
    recorder = Recorder()
    rows = run_search(resolve_config(str(config), overrides), fresh, [recorder], engine)
    return without_times(rows), recorder


def terms_of(config, members, prompt_ids, **changes) -> Terms:
    """The terms of a search by its configuration."""
    objective, constraints = objective_of(config.study), constraints_of(config.study)
    asked = split_prompts(config.study, len(prompt_ids))[0]
    return Terms(config, members, prompt_ids, asked, objective, constraints, **changes)


def without_times(rows):
    """What has to be the same in every run."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in by_column(rows)]


def with_space(config: Path, space) -> Path:
    """The configuration with another search space."""
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "search_space": space}))
    return config


def study_of(run: Path) -> optuna.Study:
    """The only study in a run folder's database."""
    return optuna.load_study(study_name=None, storage=f"sqlite:///{run}/study.db")


class RunnerHere(TrialRunner):
    """A runner with an engine, on which it has the work done at once."""

    def __init__(self, engine, terms, run, notify=quiet):
        super().__init__(terms, run)
        self.engine, self._notify = engine, notify

    def answer(self, trial, name, recipe):
        return done_here(self.work(trial, name, recipe), self.engine, self._notify)


class Faulty(FakeEngine):
    """Raises an error at the fifth answer, once."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def answer(self, *args, **kwargs):
        answers = super().answer(*args, **kwargs)
        if self.answered == 5:
            raise self.error
        return answers


class Steady(FakeEngine):
    """Answers follow from the recipe alone, however many were evaluated before."""

    def load(self, recipe):
        self.sha256 = super().load(recipe)
        return self.sha256

    def answer(self, *args, **kwargs):
        shift = int(self.sha256[:4], 16) % 40
        return [replace(answer, token_ids=(shift, *range(20, 25)), text=f"{shift}") for answer in super().answer(*args)]


def go(config, trials=4, **overrides):
    """(rows, recorder) of a search over the fake engine."""
    overrides["study"] = {"trials": trials, **overrides.get("study", {})}
    return search(config, **{"engine": Steady(), **overrides})


class Meddler(Steady):
    """Does something to the study while the fifth variant is evaluated."""

    def __init__(self, deed):
        super().__init__()
        self.deed = deed

    def answer(self, *args, **kwargs):
        answers = super().answer(*args, **kwargs)
        if self.answered == 5:
            self.deed()
        return answers


def told(database: Database):
    """(number, state, value) of the trials in the only study of a database."""
    study = optuna.load_study(study_name=None, storage=RDBStorage(*database.arguments))
    return [(trial.number, trial.state.name, trial.value) for trial in study.trials]
