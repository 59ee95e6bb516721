"""What a run asks is fixed when it is begun: on another day, and where nothing was kept, trials are asked the same."""

import json
import shutil
from datetime import datetime

import pytest

from nex_merge.engines import resident as engines
from nex_merge.errors import InputError
from nex_merge.runs.asked import keep_asked, read_asked
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from nex_merge.study import preflight
from nex_merge.study.preflight import check
from tests.conftest import toy_settings
from tests.searches import search

DAYS = datetime(2024, 5, 6), datetime(2025, 7, 8)


@pytest.fixture
def on(monkeypatch):
    """Makes it another day."""

    def set_day(day):
        class Stopped(datetime):
            @classmethod
            def now(cls, tz=None):
                return day

        for module in (engines, preflight):
            monkeypatch.setattr(module, "datetime", Stopped)

    return set_day


def asked(run):
    return {result.trial: [r.prompt_ids for r in run.responses(result.trial)] for result in run.results()}


def test_a_run_on_two_days_asks_the_same_whether_it_was_kept_or_not(toy, tmp_path, on):
    """The template writes the date; the run is gone on with on another day, then as a run of an earlier version."""
    folders = {name: shutil.copytree(folder, tmp_path / name) for name, folder in toy.items()}
    for folder in folders.values():
        template = folder / "chat_template.jinja"
        template.write_text("{{- 'signs ' if strftime_now('%Y') == '2024' else 'pairs ' -}}\n" + template.read_text())
    config = tmp_path / "toy.yaml"
    settings = toy_settings(folders, tmp_path / "run") | {"activations": {"capture": "none"}}
    config.write_text(json.dumps(settings | {"study": {"objective": "consensus", "trials": 1}}))
    on(DAYS[0])
    assert any("writes the date or time" in note and "2024-05-06" in note for note in search(config)[1].notes)
    kept = (tmp_path / "run/prompts.json").read_bytes()
    on(DAYS[1])
    _, seen = search(config, study={"trials": 2})
    assert any("2024-05-06" in note for note in seen.notes) and not any("otherwise" in note for note in seen.notes)
    assert (tmp_path / "run/prompts.json").read_bytes() == kept, "it is written once"
    assert Remerger(RunFolder(tmp_path / "run")).resident.clock == DAYS[0], "the clock of benchmarks"
    (tmp_path / "run/prompts.json").unlink()
    _, seen = search(config, study={"trials": 3})
    assert any("4 prompts of 4 would be rendered otherwise today" in note for note in seen.notes)
    found = asked(RunFolder(tmp_path / "run"))
    assert len(found) == 6 and len({json.dumps(ids) for ids in found.values()}) == 1
    assert [list(ids) for ids in found["base"]] == read_asked(tmp_path / "run").ids


def test_kept_prompts_that_fit_no_more_are_named(toy_run_copy):
    resolved = resolve_config(str(toy_run_copy / "config.yaml"))
    path = toy_run_copy / "prompts.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "ids": [[5], *before["ids"][1:]]}))
    checked = check(resolved)
    assert checked.asked.ids[0] == [5]
    assert any("1 prompt of 4 would be rendered otherwise today" in note for note in checked.notes)
    path.write_text(json.dumps({**before, "ids": before["ids"][1:]}))
    with pytest.raises(InputError, match=r"prompts\.json: expected 4 prompts, got 3"):
        check(resolved)
    path.write_text("{")
    with pytest.raises(InputError, match=r"prompts\.json: is damaged\. Restore it .+, or remove it"):
        check(resolved)
    assert check(resolved, fresh=True).asked.ids == before["ids"]


def test_a_run_is_not_gone_on_with_in_another_precision(toy_run_copy):
    """As on a machine with a GPU, where `auto` is the checkpoints' dtype, and then on one without."""
    resolved = resolve_config(str(toy_run_copy / "config.yaml"))
    path = toy_run_copy / "prompts.json"
    before = json.loads(path.read_text())
    assert before["computing"] == "float32 on cpu"
    for begun in ("bfloat16 on cuda", "bfloat16 on cpu"):
        path.write_text(json.dumps({**before, "computing": begun}))
        with pytest.raises(InputError, match=rf"begun with models that compute in {begun}, .+ now compute in float32"):
            check(resolved)
        assert not any("compute" in note for note in check(resolved, fresh=True).notes)
    path.write_text(json.dumps({**before, "computing": "float32 on cuda"}))
    said = "float32 on cuda, and they would now compute in float32 on cpu"
    assert any(said in note for note in check(resolved).notes)
    path.write_text(json.dumps({key: value for key, value in before.items() if key != "computing"}))
    assert not any("compute" in note for note in check(resolved).notes), "an earlier version kept nothing of it"


def test_what_a_search_without_trials_left_is_not_believed(toy_run, tmp_path):
    """It may have been begun with other prompts."""
    shutil.copy(toy_run / "prompts.json", tmp_path)
    assert read_asked(tmp_path) is None and read_asked(toy_run) is not None
    (tmp_path / "trials").mkdir()
    found = read_asked(tmp_path)
    keep_asked(tmp_path, found)
    assert found == read_asked(toy_run) and len(found.ids) == 4
