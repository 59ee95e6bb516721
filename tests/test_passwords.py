"""Passwords of databases: used, and found in no file and no output."""

import sqlite3

import pytest
import yaml
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import OperationalError
from typer.exceptions import TyperException

from nex_merge.cli import app
from nex_merge.cli.errors import usage_message
from nex_merge.errors import InputError, NexMergeError, RunError
from nex_merge.interrupts import _line
from nex_merge.passwords import hidden, is_ambiguous, masked, secrets_of, without_password
from nex_merge.runs.database import Database
from nex_merge.runs.run import RunFolder
from nex_merge.setup.resolve import resolve_config
from tests.engines.fakes import FakeEngine
from tests.searches import search

SECRET, OTHER = "hunt%3Aer2", "tops3cret"
WRITTEN = (SECRET, "hunt:er2", OTHER)


class Vault(SQLiteDialect_pysqlite):
    """A server that asks for a password and quotes what it was given, with a file behind it."""

    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url):
        return super().get_pool_class(url.set(drivername="sqlite"))

    def create_connect_args(self, url):
        return [url.database], {"dsn": url.render_as_string(hide_password=False)}

    def connect(self, path, dsn):
        if SECRET not in dsn and "hunt:er2" not in dsn:
            raise sqlite3.OperationalError(f'connection to "{dsn}" failed: no password supplied, not even {OTHER}')
        return sqlite3.connect(path, check_same_thread=False)


registry.register("vault", __name__, "Vault")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://u:hunter2@h/db", "postgresql://u@h/db"),
        ("postgresql+psycopg://u:hunt%40er2@h:5432/db?sslmode=require&sslpassword=hunter2&passfile=/a",
         "postgresql+psycopg://u@h:5432/db?sslmode=require&passfile=/a"),
        ("postgresql://h:5432/db?password=hunter2", "postgresql://h:5432/db"),
        ("postgresql://u:hunter2@h/db?options=a=b@c", "postgresql://u@h/db?options=a=b@c"),
        ("postgresql://u:hunter2?x@host/db", "postgresql://u@host/db"),
        ("mysql+pymysql://u:my hunter2@h/x", "mysql+pymysql://u@h/x"),
        # Not valid, and nothing where a password could be is kept.
        ("postgresql://u:hunter2@ss@h/db", "postgresql://u@h/db"),
        ("postgresql://u:p@hunter2/x@h/db", "postgresql://u@h/db"),
        ("postgresql:/u:hunter2@h/x", "postgresql:/u@h/x"),
        ("me:hunter2@h", "me@h"),
        ("postgresql://me:hunter2", "postgresql://me"),
        ("postgresql:u:hunter2:h", "postgresql"),
        # None at all.
        ("sqlite:////data/me@work/study.db?timeout=5", "sqlite:////data/me@work/study.db?timeout=5"),
        ("sqlite:///C:/Users/me@home/x.db", "sqlite:///C:/Users/me@home/x.db"),
        ("postgresql://me@db:port/x", "postgresql://me@db:port/x"),
    ],
)  # fmt: skip
def test_what_of_a_url_is_kept(url, kept):
    assert without_password(url) == kept
    if "hunter2" in url and "://u:" in url:
        assert "hunter2" not in masked(f"cannot open '{url}'. See {url}") and "hunter2" not in str(InputError(url))


@pytest.mark.quick
def test_texts_without_passwords_stay_as_they_are():
    for text in ("generation.max_new_tokens=256", "https://huggingface.co/a/b: no such file", "base+adapter@main"):
        assert masked(text) == text
    assert masked("dsn 'user=x password=hunter2 host=y'") == "dsn 'user=x password=*** host=y'"
    assert secrets_of("postgresql://u:a%40b@h/d?sslpassword=c&sslmode=require") == ["a%40b", "a@b", "c"]
    assert is_ambiguous("postgresql://u:a@b@h/d") and not is_ambiguous("postgresql://u@h/d@e")


@pytest.mark.quick
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hunter2@db:port/x", r"got 'postgresql://me@db:port/x'"),
        ("postgresql://me:hun@ter2@db/x", r"the password in postgresql://me@db/x has an @, .* write %40"),
        ("nosuch://me:hunter2@db/x", r"cannot open nosuch:// URLs"),
        ("sqlite://me:hunter2@", r"expected a database URL|in memory"),
        ("vault://me:hunter2@db/x", r"not available \(connection to .* failed: no password supplied"),
    ],
)
def test_refusals_quote_no_password(url, said, tmp_path, monkeypatch):
    for key in ("study.storage", "NEX_MERGE_STORAGE"):
        if key == "NEX_MERGE_STORAGE":
            monkeypatch.setenv(key, url)
        with pytest.raises(NexMergeError, match=said) as error:
            Database(None if key == "NEX_MERGE_STORAGE" else url, tmp_path).check()
        assert str(error.value).startswith(key) and "hunter2" not in str(error.value) and "ter2" not in str(error.value)


@pytest.mark.quick
def test_a_drivers_error_neither_quotes_it_nor_stays_as_the_cause(tmp_path):
    database = Database(f"vault://me:{SECRET}@db/{tmp_path}/x.db?sslpassword={OTHER}", tmp_path, print, limit=0)

    def refused():
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError(f"{OTHER} and hunt:er2 are wrong"))

    with pytest.raises(RunError, match=r"\*\*\* and \*\*\* are wrong") as error:
        database.run(refused)
    assert error.value.__cause__ is None and error.value.__suppress_context__


class Talkative(FakeEngine):
    """Fails in the third variant with an error that quotes its database."""

    def answer(self, *args, **kwargs):
        if self.answered == 3 and self.broken:
            raise ValueError(f"cannot reach vault://me:{SECRET}@db/x, {OTHER}")
        return super().answer(*args, **kwargs)


def test_no_file_and_no_output_has_it(toy_config, tmp_path, monkeypatch, capsys):
    """The user's file has it at every run; the run folder and all that is said have none of it."""
    url = f"vault://me:{SECRET}@db/{tmp_path}/vault.db?sslpassword={OTHER}"
    run, said, caught = tmp_path / "run", [], []
    data = yaml.safe_load(toy_config.read_text())
    data["study"] |= {"storage": url, "trials": 2}
    toy_config.write_text(yaml.safe_dump(data))

    def command(*words):
        try:
            app([str(word) for word in words], prog_name="nex-merge", standalone_mode=False)
        except NexMergeError as error:
            said.append(str(error))
        except TyperException as error:
            said.append(usage_message(error))

    def searched(engine=None, config=toy_config, **overrides):
        rows, recorder = search(config, engine=engine or FakeEngine(), **overrides)
        said.extend(recorder.notes)
        return rows, recorder

    talkative = Talkative()
    talkative.broken = True
    with pytest.raises(RunError) as error:
        searched(talkative)
    caught.append(error.value)
    assert (run / "error.log").exists()
    searched()  # goes on
    assert yaml.safe_load((run / "config.yaml").read_text())["study"]["storage"] == f"vault://me@db/{tmp_path}/vault.db"
    # A whole URL in the environment, also for the run's own configuration.
    with pytest.raises(InputError, match="no password supplied"):
        searched(config=run / "config.yaml")
    monkeypatch.setenv("NEX_MERGE_STORAGE", url)
    assert searched(config=run / "config.yaml")[1].ended == []
    assert searched(config=run / "config.yaml", study={"trials": 3})[1].ended == ["0002"]
    monkeypatch.delenv("NEX_MERGE_STORAGE")
    # What an earlier version kept is used, and gone after the next search.
    kept = run / "config.yaml"
    kept.write_text(kept.read_text().replace("vault://me@db", f"vault://me:{SECRET}@db"))
    assert "storage: vault://me@db/" in yaml.safe_dump(RunFolder(run).config.model_dump())
    for words in (
        ("leaderboard", run), ("leaderboard", run, "--format", "json"), ("report", run), ("watch", run, "--once"),
        ("validate", toy_config), ("validate", toy_config, "--set", f"study.storage={url}"),
        ("search", toy_config, "--dry-run", "--set", f"study.storage={url}"), ("rescore", run), ("phases", run),
        ("validate", toy_config, "--set", f"study.storge={url}"), ("validate", url), ("search", toy_config, url),
        ("validate", toy_config, "--set", f"study.storage:{url}"),
        ("validate", toy_config, "--set", f"study.storage=[{url}]"), ("export", run, "--out", tmp_path / "out"),
    ):  # fmt: skip
        command(*words)
    monkeypatch.setattr("nex_merge.interrupts._now.words", ("search", "x.yaml", "--set", f"study.storage={url}"))
    said.append(_line())
    searched(config=run / "config.yaml", study={"trials": 4})
    captured = capsys.readouterr()
    everything = "\n".join(
        [*said, *map(str, caught), captured.out, captured.err, repr(resolve_config(str(toy_config)))]
    )
    assert "leaderboard" in everything and "valid" in everything
    for secret in WRITTEN:
        assert secret not in everything, everything[max(0, everything.index(secret) - 200) :][:400]
        for path in [path for path in run.rglob("*") if path.is_file()]:
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.quick
def test_a_password_of_one_character_leaves_the_text_readable():
    assert hidden("http://me:p@h: no response, pq", ["pq", "p"]) == "http://me:***@h: no response, ***"


def test_tokens_of_the_hub_are_masked_wherever_they_stand():
    token = "hf_" + "aB3" * 11
    assert masked(f"Illegal header value b'Bearer {token}\\n'") == "Illegal header value b'Bearer hf_***\\n'"
    assert (
        token not in str(RunError(f"https://me:{token}@host: refused"))
        and masked("hf_hub_download") == "hf_hub_download"
    )


def test_a_url_that_lacks_a_slash_is_masked_too():
    assert masked("mysql:/me:hunter2@db/x: no such folder") == "mysql:/me:***@db/x: no such folder"
