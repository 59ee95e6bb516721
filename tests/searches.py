"""Searches over the toy family as tests run them: through the library, with an observer that keeps what it is told."""

from pathlib import Path

import yaml

from nex_merge.setup.resolve import resolve_config
from nex_merge.study.observers import Observer
from nex_merge.study.search import run_search
from tests.rows import by_column

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


def without_times(rows):
    """What has to be the same in every run."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in by_column(rows)]


def with_space(config: Path, space) -> Path:
    """The configuration with another search space."""
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "search_space": space}))
    return config
