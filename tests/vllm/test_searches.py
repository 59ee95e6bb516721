"""Whole searches with vLLM: the leaderboard of transformers, also after a stop, and with several workers."""

import pytest
import yaml

from nex_merge.engines.vllm_engine import VllmAnswers
from nex_merge.study.search import run_search
from tests.conftest import toy_settings
from tests.searches import resolve_config, search, without_times

VLLM = {"engine": "vllm"}


@pytest.fixture(scope="module")
def by_transformers(toy, tmp_path_factory):
    settings = toy_settings(toy, tmp_path_factory.mktemp("transformers") / "run")
    return without_times(run_search(resolve_config(settings)))


@pytest.fixture
def config(toy, tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_settings(toy, tmp_path / "run") | {"runtime": VLLM}))
    return path


class Stopped(BaseException):
    """As Ctrl-C is, nobody's to catch."""


def test_a_search_that_was_stopped_ends_with_the_leaderboard_of_transformers(config, by_transformers, monkeypatch):
    asked, answer = [], VllmAnswers.answer

    def stopping(self, *args, **kwargs):
        asked.append(1)
        if len(asked) == 6:
            raise Stopped
        return answer(self, *args, **kwargs)

    monkeypatch.setattr(VllmAnswers, "answer", stopping)
    with pytest.raises(Stopped):
        search(config)
    before = len(asked)
    rows, _ = search(config)
    assert rows == by_transformers
    assert before == 6 and len(asked) < 6 + len(rows)  # what was answered is not asked again


def test_workers_have_a_vllm_each(config, by_transformers):
    rows, _ = search(config, runtime=VLLM | {"workers": 2}, study={"trials": 4, "parallel": 2})
    alone, _ = search(config, study={"trials": 4, "parallel": 2}, output=str(config.parent / "alone"))
    assert rows == alone and len(rows) == len(by_transformers)
