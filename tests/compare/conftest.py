"""Runs to compare variants of."""

import shutil
from pathlib import Path

import pytest

from nex_merge.setup.resolve import resolve_config
from nex_merge.study.search import run_search
from tests.compare.compared import chat, numbers, settings_of
from tests.conftest import ROOT
from tests.labels.answered import answer_run


@pytest.fixture(scope="session")
def searched(toy, tmp_path_factory) -> Path:
    """The finished run of two merges on twelve prompts, to be copied."""
    folder = tmp_path_factory.mktemp("compared") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_search(resolve_config(settings_of(toy, folder)))
    return folder


@pytest.fixture
def chats(searched, tmp_path) -> Path:
    """Its answers are open-ended: all differ but on the last prompt."""
    run = Path(shutil.copytree(searched, tmp_path / "run"))
    answer_run(run, chat)
    return run


@pytest.fixture
def numbered(searched, tmp_path) -> Path:
    """Its answers conclude numbers: base others than the rest, on ten prompts."""
    run = Path(shutil.copytree(searched, tmp_path / "run"))
    answer_run(run, numbers)
    return run
