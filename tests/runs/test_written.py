"""Whatever is read from a run folder is what was written there: files that were changed are named, or made again."""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nex_merge.activations.cache import read_base, read_cache, read_credits
from nex_merge.cli import app
from nex_merge.errors import InputError
from nex_merge.runs import files
from nex_merge.runs.leaderboard import read_rows
from nex_merge.runs.recapture import recapture, uncaptured
from nex_merge.runs.rescore import rescore_run
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder
from nex_merge.runs.seals import Seals
from tests.conftest import ROOT, toy_settings, without_hashes
from tests.searches import Steady, search, without_times
from tests.test_faq import FAQ

T = "trials/0001/"


def flip(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def edit(path: Path, change) -> None:
    item = json.loads(path.read_text())
    change(item)
    path.write_text(json.dumps(item, indent=1))


def edit_config(run: Path, section: str, key: str, value) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text())
    content[section][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def searched(toy, tmp_path_factory) -> Path:
    """A run of three merges, answered by a fake engine, to be read only."""
    root = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        (root / "toy.yaml").write_text(yaml.safe_dump(toy_settings(toy, root / "run")))
        search(root / "toy.yaml", engine=Steady(), study={"trials": 3})
    return root / "run"


@pytest.fixture
def run(searched, tmp_path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.fixture(scope="module")
def rows(searched):
    return without_times(read_rows(RunFolder(searched)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("result.json", lambda path: edit(path, lambda item: item["estimates"]["nex"].update(value=0.99))),
        ("result.json", lambda path: edit(path, lambda item: item.update(trial="0002"))),
        ("result.json", lambda path: path.write_text(path.read_text()[:100])),
        ("result.json", lambda path: path.write_text("[" * 200_000)),
        ("recipe.yaml", lambda path: path.write_text(path.read_text().replace("weight:", "weight: 0.5 #", 1))),
        ("responses.jsonl", lambda path: path.write_text(path.read_text().replace('"text": "', '"text": "9', 1))),
        ("cache/base/w_sum.float16", flip),
        ("cache/rows/keys.uint32", flip),
        ("cache/manifest.json", lambda path: path.write_text(path.read_text() + " ")),
        ("cache/manifest.json", Path.unlink),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_trial_that_was_changed_is_named_and_made_again(toy_config, run, rows, name, change):
    change(run / T / name)
    opened = RunFolder(run)
    with pytest.raises(InputError, match=rf"0001/{name}: .*(run the search again: it evaluates|capture it again)"):
        opened.recipe(opened.find("1"))
        rescore_run(opened, opened.config.nex)
        read_cache(run / T / files.CACHE)
    again, recorder = search(toy_config, engine=Steady(), study={"trials": 3})
    assert again == rows and recorder.ended == ["0001"]
    assert [note for note in recorder.notes if f"0001/{name}: " in note and "Evaluated again: trial 1" in note]
    assert search(toy_config, engine=Steady(), study={"trials": 3})[1].ended == []


def test_credit_is_computed_again_from_the_cache(toy_config, run, rows, caplog):
    whole = {path.name: path.read_bytes() for path in (run / T / "credit").iterdir()}
    for change in (lambda: flip(run / T / "credit/row_ptr.int64"), lambda: shutil.rmtree(run / T / "credit")):
        change()
        assert without_times(rescore_run(RunFolder(run), RunFolder(run).config.nex)) == rows
        recorder = search(toy_config, engine=Steady(), study={"trials": 3})[1]
        assert recorder.ended == [] and any("Computed from" in note for note in recorder.notes)
        assert {path.name: path.read_bytes() for path in (run / T / "credit").iterdir()} == whole
    assert "credit/row_ptr.int64: does not match the checksum" in caplog.text
    flip(run / T / "credit/row_ptr.int64")
    with pytest.raises(InputError, match="the search computes it"):
        read_credits(run / T / files.CREDIT)
    flip(run / T / "cache/base/row_ptr.int64")
    with pytest.raises(InputError, match=r"row_ptr\.int64: does not match the checksum"):
        read_base(run / T / files.CACHE)


def test_a_result_that_is_gone_is_said(run, rows):
    (run / T / "result.json").unlink()
    result = CliRunner().invoke(app, ["leaderboard", str(run)])
    assert "lacks results that were there: 0001" in result.output
    result = CliRunner().invoke(app, ["rescore", str(run)])
    assert isinstance(result.exception, InputError) and "0001/result.json: was there and is gone" in str(
        result.exception
    )


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("study", "objective", "mean_tokens"), ("nex", "rho", 0.5), ("study", "seed", 7), ("models", None, ["a"]),
        ("resolved", "prompts_sha256", "0" * 64), ("resolved", "search_space", {"methods": ["linear"]}),
    ],
)  # fmt: skip
def test_keys_of_an_edited_configuration_are_named(toy_config, run, section, key, value):
    if key is None:
        content = yaml.safe_load((run / "config.yaml").read_text()) | {section: value}
        (run / "config.yaml").write_text(yaml.safe_dump(content))
    else:
        edit_config(run, section, key, value)
    named = rf"run/config\.yaml: was edited or damaged since it was written: {'.'.join(filter(None, (section, key)))}\."
    for words in (["leaderboard", str(run)], ["rescore", str(run)], ["search", str(run / "config.yaml")]):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, InputError)
        with pytest.raises(InputError, match=named):
            raise result.exception
    with pytest.raises(InputError, match=named):
        search(toy_config, engine=Steady(), study={"trials": 3})


def test_how_far_a_run_goes_and_where_it_is_may_be_edited(toy_config, run):
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["study"] |= {"trials": 4, "timeout": 10}
    (run / "config.yaml").write_text(yaml.safe_dump(content | {"output": "elsewhere"}))
    assert len(read_rows(RunFolder(run))) == 6
    assert search(run / "config.yaml", engine=Steady())[1].ended == ["0003"]


@pytest.mark.parametrize("name", ["copy of 0001", "0001 (copy)", "1", "01", "00001", "copy", "٠٠٠١"])
def test_a_folder_is_the_trial_that_it_is_named_by(toy_config, run, rows, name):
    shutil.copytree(run / "trials/0001", run / "trials" / name)
    (run / "trials" / ".DS_Store").touch()
    notes = []
    opened = RunFolder(run, note=notes.append)
    assert without_times(rescore_run(opened, opened.config.nex)) == rows and opened.begun() == []
    assert len(notes) == 1 and f"passed over {name!r}: a trial's folder is named" in notes[0]
    again, recorder = search(toy_config, engine=Steady(), study={"trials": 3})
    assert again == rows and recorder.ended == [] and sum("passed over" in note for note in recorder.notes) == 1


def test_a_trial_put_in_anothers_place_is_not_it(toy_config, run):
    without_hashes(run)  # as in a run of an earlier version
    shutil.rmtree(run / "trials/0002")
    shutil.copytree(run / "trials/0001", run / "trials/0002")
    with pytest.raises(InputError, match=r"0002/result\.json: is that of trial 1\. Restore"):
        RunFolder(run).results()
    assert search(toy_config, engine=Steady(), study={"trials": 3})[1].ended == ["0002"]


@pytest.mark.parametrize("name", ["scores.json", "reliability.json"])
def test_what_a_rescoring_wrote_is_what_is_read(toy_config, run, rows, name):
    for text in (
        (run / name).read_text().replace("0.", "0.9", 1),
        (run / name).read_text()[:100],
    ):
        (run / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name}: .*`nex-merge rescore`"):
            read_rows(RunFolder(run)), read_reliability(run)
        assert without_times(rescore_run(RunFolder(run), RunFolder(run).config.nex)) == rows
        (run / name).write_text(text)
        assert search(toy_config, engine=Steady(), study={"trials": 3})[0] == rows
        read_reliability(run)


def test_a_study_without_hashes_and_one_that_is_not_reached_are_said(toy_config, run, rows, monkeypatch):
    without_hashes(run)
    (run / T / "responses.jsonl").write_text((run / T / "responses.jsonl").read_text().replace('"text"', ' "text"'))
    notes = []
    rescore_run(RunFolder(run, note=notes.append), RunFolder(run).config.nex)
    assert [note for note in notes if "the study has no hashes of trials' files" in note] == notes and len(notes) == 1
    again, recorder = search(toy_config, engine=Steady(), study={"trials": 3})
    assert again == rows and any("no hashes" in note for note in recorder.notes), "taken as it is"
    assert not any("no hashes" in note for note in search(toy_config, engine=Steady(), study={"trials": 3})[1].notes)
    flip(run / T / "responses.jsonl")
    with pytest.raises(InputError, match=r"responses\.jsonl: is damaged or was edited"):
        RunFolder(run).responses("0001")
    notes.clear()
    monkeypatch.setenv("NEX_MERGE_STORAGE", "postgresql+nosuchdriver://db/x")
    read_rows(RunFolder(run, note=notes.append))
    assert len(notes) == 1 and "hashes of its files can't be read" in notes[0] and "NEX_MERGE_STORAGE: " in notes[0]


def test_hashes_follow_what_is_captured_later(toy_config, tmp_path):
    overrides = {"study": {"trials": 1, "objective": "mean_tokens"}, "activations": {"capture": "none"}}
    search(toy_config, **overrides)
    run = RunFolder(tmp_path / "run")
    recapture(run, uncaptured(run, ["0000"]))
    rescore_run(run, run.config.nex)
    assert RunFolder(run.path).damaged() == {} and RunFolder(run.path).find("0").score is not None
    flip(run.path / "trials/0000/cache/manifest.json")
    assert "0000/cache/manifest.json" in RunFolder(run.path).damaged()["0000"]


@pytest.mark.parametrize("moment", range(6))
def test_killed_at_any_moment_around_the_hashes(toy_config, run, rows, moment, monkeypatch):
    """Whatever stands when a process dies while a trial is finished, nothing is called damaged; the rows are equal."""
    shutil.rmtree(run / T)
    steps = iter(range(100))

    def dying(function):
        def step(*args, **kwargs):
            if next(steps) == moment:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Seals, "add", dying(Seals.add))
        patch.setattr(files, "write_atomically", dying(files.write_atomically))
        with suppress(KeyboardInterrupt):
            search(toy_config, engine=Steady(), study={"trials": 3})
    again, recorder = search(toy_config, engine=Steady(), study={"trials": 3})
    assert again == rows and not any("damaged" in note for note in recorder.notes)


def test_checking_is_cheap(run):
    """Milliseconds a trial."""
    began = time.perf_counter()
    opened = RunFolder(run)
    assert len(opened.results()) == 6 and opened.damaged() == {}
    assert (time.perf_counter() - began) / 6 < 0.1


def test_the_words_of_the_faq(run):
    words = (
        "is damaged or was edited: its SHA-256 is not the one in the study",
        "was edited or damaged since it was written",
        "the study has no hashes of trials' files",
    )
    flip(run / T / "result.json")
    said = [RunFolder(run).damaged()["0001"]]
    edit_config(run, "nex", "rho", 0.5)
    with pytest.raises(InputError) as error:
        RunFolder(run).results()
    RunFolder(without_hashes(run), note=said.append).damaged()
    said = "\n".join([*said, str(error.value)])
    assert all(one in said and one in FAQ for one in words)


def test_what_is_wrong_with_a_folder_is_what_is_said(toy_config, run):
    shutil.rmtree(run / T)
    (run / "trials/0001").touch()
    with pytest.raises(InputError, match=r"trials/0001: expected the folder of trial 1, got a file\. Remove it"):
        search(toy_config, engine=Steady(), study={"trials": 3})
    whole = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**whole, "schema": "x"}))
    with pytest.raises(InputError, match=r"is damaged: schema: expected a number, got 'x'"):
        search(toy_config, engine=Steady(), study={"trials": 3})
    del whole["resolved"]
    (run / "config.yaml").write_text(yaml.safe_dump(whole))
    with pytest.raises(InputError, match=r"was edited or damaged since it was written: resolved\.checkpoints"):
        search(toy_config, engine=Steady(), study={"trials": 3})
