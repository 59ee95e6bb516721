"""Several runs, or copies of one, on one storage."""

import shutil

import optuna
import pytest

from nex_merge.errors import RunError
from tests.engines.fakes import FakeEngine
from tests.searches import search


def test_runs_of_one_name_on_a_shared_storage_keep_apart(toy_config, tmp_path):
    shared = f"sqlite:///{tmp_path}/shared.db"
    both = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        rows, _ = search(toy_config, study={"trials": 2, "storage": shared}, output=str(tmp_path / folder / "x"))
        both.append(rows)
    assert both[0] == both[1]
    assert len(optuna.get_all_study_names(shared)) == 2


def test_a_trial_that_another_search_evaluates_is_left_alone(toy_config, tmp_path):
    """Two copies of a run on one storage: the second finds the first at work on trial 0."""
    shared = f"sqlite:///{tmp_path}/shared.db"

    class Looks(FakeEngine):
        def answer(self, *args, **kwargs):
            answers = super().answer(*args, **kwargs)
            if self.answered == 4:
                shutil.copytree(tmp_path / "run", tmp_path / "copy")
                with pytest.raises(
                    RunError, match=r"trial 0 of this study is being evaluated by another search \(proc"
                ):
                    search(toy_config, engine=FakeEngine(), study=study, output=str(tmp_path / "copy"))
            return answers

    study = {"trials": 2, "storage": shared}
    _, recorder = search(toy_config, engine=Looks(), study=study)
    assert recorder.ended == ["base", "a", "b", "0000", "0001"]
