"""The study's database: what is waited for, what is refused, and that a step which is repeated loses nothing."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from sqlalchemy.exc import OperationalError

from nex_merge.errors import InputError, RunError
from nex_merge.runs import database as module
from nex_merge.runs.database import Database

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "BUSY", 0.01)
    monkeypatch.setattr(module, "POLL", 0.02)
    monkeypatch.setattr(module, "SILENT", 0.0)


def count(database: Database) -> int:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (x)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        return connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one()


@contextmanager
def held(path, seconds=60.0):
    """Another process holds a database exclusively, for some time."""
    code = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); time.sleep(float(sys.argv[2])); c.execute('COMMIT')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path), str(seconds)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return path


def test_a_database_that_another_program_holds_is_waited_for(file):
    notes = []
    database = Database(None, file.parent, notes.append)
    with held(file, 0.5) as holder:
        database.check()  # a lock is no reason to refuse a search
        assert database.run(lambda: count(database)) == 1
    waiting, available = notes
    assert re.match(
        rf"waiting for {file} for 0 s now: process {holder.pid} \(\S+\) holds it \(database is locked\)\. "
        r"Gives up after 10 min; Ctrl-C ends the search, and the same command resumes it",
        waiting,
    )
    assert re.fullmatch(rf"{file} is available again after \d s", available)


def test_the_wait_has_a_limit_and_says_how_to_go_on(file):
    database = Database(None, file.parent, lambda text: None, limit=0.1)
    with (
        held(file),
        pytest.raises(
            RunError, match=r"study\.db: process \d+ \(\S+\) holds it .* Close the program .* The same command resumes"
        ),
    ):
        database.run(lambda: count(database))
    assert database.run(lambda: count(database)) == 1, "no attempt was half done"


def test_a_long_wait_is_announced_again(file, monkeypatch):
    monkeypatch.setattr(module, "REMINDER", 0.1)
    notes = []
    database = Database(None, file.parent, notes.append, limit=0.5)
    with held(file), pytest.raises(RunError):
        database.run(lambda: count(database))
    assert len(notes) >= 3


def test_a_short_wait_is_not_worth_a_message(file, monkeypatch):
    monkeypatch.setattr(module, "SILENT", 10.0)
    with held(file, 0.2):
        assert Database(None, file.parent, pytest.fail).run(lambda: 1) == 1


@pytest.fixture
def hearing():
    """SIGINT as in a terminal: a script that runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_wait(file, hearing):
    database = Database(None, file.parent, lambda text: None)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    with held(file), pytest.raises(KeyboardInterrupt):
        timer.start()
        database.run(lambda: count(database))
    assert time.monotonic() - began < 5


def test_ctrl_c_in_a_step_that_fails_is_not_lost(file, hearing):
    database = Database(None, file.parent, lambda text: None)

    def step():
        os.kill(os.getpid(), signal.SIGINT)
        raise sqlite3.OperationalError("planted")

    with pytest.raises(KeyboardInterrupt):
        database.run(step)


def test_an_error_of_the_step_itself_is_passed_on(file):
    database = Database(None, file.parent)
    with pytest.raises(ZeroDivisionError):
        database.run(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (lambda path: path.write_bytes(b"no database at all" * 100), r"damaged or not a database .* rename it"),
        (lambda path: (path.unlink(), path.mkdir()), r"expected a database file, got a folder"),
    ],
    ids=["corrupt", "folder"],
)
@pytest.mark.parametrize("own", [True, False], ids=["storage", "study.db"])
def test_what_no_waiting_helps_is_refused(file, plant, expected, own):
    plant(file)
    database = Database(f"sqlite:///{file}" if own else None, file.parent, pytest.fail)
    with pytest.raises(InputError, match=("study.storage: " if own else "^") + f"{file}: .*{expected}"):
        database.check()


def test_damage_that_appears_meanwhile_ends_the_search(file):
    database = Database(None, file.parent, pytest.fail)
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(RunError, match=r"damaged or not a database .* rebuilds the study from the run's trials"):
        database.run(lambda: count(database))


def test_a_full_disk_and_a_read_only_file_are_named(file):
    database = Database(None, file.parent, pytest.fail)

    def full():
        with database.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 2")
            connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")

    def read_only():
        with database.engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA query_only = 1")
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")

    with pytest.raises(RunError, match=r"the disk is full .* Free some space\. The same command resumes"):
        database.run(full)
    with pytest.raises(RunError, match=r"cannot be written \(attempt to write a readonly database\)\. Make the file"):
        database.run(read_only)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("mydb", r"expected a database URL such as sqlite:///study\.db .* got 'mydb'"),
        ("foo://x", r"cannot open foo:// URLs"),
        ("redis://localhost", r"cannot open redis:// URLs"),
        ("postgresql://me@db:port/x", r"expected a database URL .* got 'postgresql://me@db:port/x'"),
        ("sqlite://", r"a database in memory"),
        ("sqlite:///:memory:", r"a database in memory"),
        ("sqlite:////nowhere/at/all.db", r"/nowhere/at/all\.db: the folder /nowhere/at does not exist"),
    ],
)
def test_a_storage_that_can_not_be_used(storage, expected, tmp_path):
    with pytest.raises(InputError, match=rf"study\.storage: .*{expected}"):
        Database(storage, tmp_path).check()


def test_a_driver_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(InputError, match=r"//me:\*\*\*@db/x: needs .* pip install 'psycopg2-binary'"):
        Database("postgresql+psycopg2://me:secret@db/x", tmp_path)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_psycopg_3_however_it_is_spelled(tmp_path, monkeypatch, scheme):
    url = f"{scheme}://me:secret@db/x"
    database = Database(url, tmp_path)
    assert database.arguments[0] == "postgresql+psycopg://me:secret@db/x"
    assert database.engine.driver == "psycopg" and "secret" not in database.label + repr(database.engine)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    needs = r"//me:\*\*\*@db/x: needs the Python package psycopg, .* pip install 'nex-merge\[postgres\]'"
    with pytest.raises(InputError, match=needs):
        Database(url, tmp_path)


def test_an_invalid_option_of_the_url(tmp_path):
    with pytest.raises(InputError, match=r"invalid option: could not convert .*'long'.* Correct or remove it"):
        Database(f"sqlite:///{tmp_path}/new.db?timeout=long", tmp_path)


def test_a_server_that_can_not_be_reached(tmp_path, monkeypatch):
    """At first it is most likely a mistake in the URL; during a search, a server that restarts."""
    database = Database(None, tmp_path, lambda text: None, limit=0.1)
    database._local, database.path, database.label = False, None, "postgresql://db/x"

    def unreachable():
        raise OperationalError("SELECT 1", {}, Exception("connection refused\nIs the server running?"))

    monkeypatch.setattr(database, "_probe", unreachable)
    with pytest.raises(InputError, match=r"db/x: the server is not available \(connection refused\)\. Check the URL"):
        database.check()
    with pytest.raises(RunError, match=r"the server is not available \(connection refused\), for \d s now"):
        database.run(lambda: 1)


def test_checking_creates_nothing(tmp_path):
    Database(f"sqlite:///{tmp_path}/new.db", tmp_path).check()
    Database(None, tmp_path / "run").check()
    assert list(tmp_path.iterdir()) == []


def test_study_db_is_in_the_folder_whatever_its_name(tmp_path):
    folder = tmp_path / "a?b#c%20{d}"
    folder.mkdir()
    database = Database(None, folder)
    assert database.run(lambda: count(database)) == 1
    assert [path.name for path in folder.iterdir()] == ["study.db"] and list(tmp_path.iterdir()) == [folder]


def test_reading_writes_nothing_and_waits_as_well(file):
    file.chmod(0o444)
    notes = []
    database = Database(f"sqlite:///{file}", file.parent, notes.append, read_only=True)

    def read():
        with database.engine.connect() as connection:
            return connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one()

    with held(file, 0.4):
        assert database.run(read) == 0
    assert "waiting for" in notes[0] and "resumes" not in notes[0]
    with pytest.raises(RunError, match="cannot be written"):
        database.run(lambda: count(database))
