"""Names of files as people write them, in every key alike, and in commands to be copied."""

import os
import shlex
from pathlib import Path

import pytest

from nex_merge.errors import InputError
from nex_merge.setup import paths
from nex_merge.setup.config import PromptsConfig, RunConfig, parse
from nex_merge.setup.families import FamilyConfig
from nex_merge.setup.study_config import StudyConfig

pytestmark = pytest.mark.quick


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_key_takes_home_and_variables(home):
    config = parse(
        RunConfig,
        {"family": "~/f.yaml", "search_space": "$HOME/s.yaml", "prompts": {"file": "${DATA}/p.jsonl"},
         "study": {"storage": "sqlite:///~/x.db"}, "output": "~/runs/a"},
        "c",
    )  # fmt: skip
    assert (config.family, config.search_space) == (f"{home}/f.yaml", f"{home}/s.yaml")
    assert (config.prompts.file, config.output) == (f"{home}/data/p.jsonl", f"{home}/runs/a")
    assert config.study.storage == f"sqlite:///{home}/x.db"
    family = parse(FamilyConfig, {"base": "~/base", "models": {"a": "$DATA/a", "b": {"path": "~/b"}}}, "f")
    assert [family.base.path, *(m.path for m in family.models.values())] == [
        f"{home}/base",
        f"{home}/data/a",
        f"{home}/b",
    ]


@pytest.mark.parametrize(
    "name", ["run?v=2", "run 100%", "run#3", "läuft 好", "it's", 'a"b', "cost$5", "a~", "a:b", "-x"]
)
def test_other_characters_are_names(home, name):
    assert parse(PromptsConfig, {"file": name}, "c").file == name


def test_a_dollar_in_a_name_that_is_there(home):
    (home / "a$NOWHERE").touch()
    assert paths.expand("a$NOWHERE") == "a$NOWHERE"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "$NOWHERE/x",
            "c: file: expected a variable that is set, got $NOWHERE in '$NOWHERE/x'; set it, or write out the",
        ),
        ("${NOWHERE}", "expected a variable that is set, got ${NOWHERE}"),
        ("~nobody-of-this-name/x", "got '~nobody-of-this-name/x': ~nobody-of-this-name has no home folder here"),
        ("a\udcff", "file: expected a name in UTF-8, got 'a\\udcff'; rename the file or folder"),
        ("a\0b", "file: expected a name without NUL characters"),
    ],
)
def test_names_that_are_refused(home, name, message):
    with pytest.raises(InputError) as error:
        parse(PromptsConfig, {"file": name}, "c")
    assert message in str(error.value)


def test_a_user_without_a_home(home, monkeypatch):
    """As `docker run --user 12345` has it: no HOME, and no entry in the list of users."""
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(
        InputError, match="c: storage: expected a path, got '~/x': ~ has no home folder here; write out"
    ):
        parse(StudyConfig, {"storage": "~/x"}, "c")


@pytest.mark.parametrize("name", ["run?v=2", "run 100%", "läuft", "it's", "-x", "a$HOME", "a;b"])
def test_commands_can_be_pasted(name):
    words = shlex.split(paths.command("export", Path(name), "--out", "DIR"))
    assert words[:2] == ["nex-merge", "export"] and words[3:] == ["--out", "DIR"]
    assert Path(words[2]) == Path(name) and not words[2].startswith("-")


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "file", "expected a folder, got the file"),
        (tmp_path / "file" / "run", "is a file"),
    ):
        with pytest.raises(InputError, match=f"output: .*{message}"):
            paths.check_writable_folder(path, "output")
    with pytest.raises(InputError, match="--out: expected a file name, got the folder"):
        paths.check_writable_file(tmp_path, "--out")
    paths.check_writable_folder(tmp_path / "new" / "run", "output")


def test_folders_of_somebody_else(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o555)
    # As for a user other than root, who may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path).name == "theirs" and mode & os.W_OK))
    with pytest.raises(InputError, match=r"cannot write to .+: permission denied; choose another folder"):
        paths.check_writable_folder(tmp_path / "theirs" / "run", "output")
