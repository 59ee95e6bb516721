"""The database of a study: opening it, waiting while another program holds it, and its faults in the user's words.

All access to a study goes through `Database.run`. Each step given to it has to be safe to repeat: transactions that
fail are rolled back, and a step that is repeated finds what an earlier attempt has committed.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from nex_merge.errors import InputError, RunError
from nex_merge.interrupts import held
from nex_merge.passwords import AMBIGUOUS, HIDDEN, hidden, is_ambiguous, secrets_of, without_password
from nex_merge.runs import files

VARIABLE = "NEX_MERGE_STORAGE"  # the environment variable with a whole URL
LIMIT = 600.0  # seconds that a search waits for its database
POLL = 0.5  # seconds between two attempts
SILENT = 2.0  # seconds of waiting that are not worth a message
REMINDER = 60.0  # seconds between two messages while waiting
# Seconds that SQLite itself waits for a lock. Short, since an interrupt has to wait as well.
BUSY = 0.5
CONNECT = 3  # seconds until a server counts as unreachable

# SQLite's primary result codes (https://sqlite.org/rescode.html).
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# SQLSTATE of PostgreSQL where another session created the same at the same time: unique_violation, duplicate_table.
_CREATED = ("23505", "42P07")
# What to install for a driver, by module, where the names differ.
_PACKAGES = {"psycopg": "nex-merge[postgres]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_CONNECT_TIMEOUT_DRIVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb")

_logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a database."""

    text: str
    advice: str
    passes: bool = False  # worth waiting for


class Database:
    """A study's database: study.db of the run folder, or `study.storage`, or what NEX_MERGE_STORAGE names instead.

    No message of it has the URL's password.
    """

    def __init__(
        self,
        storage: str | None,
        run: Path,
        note: Callable[[str], None] = _logger.warning,
        limit: float | None = None,
        read_only: bool = False,
    ) -> None:
        """`note` receives messages while waiting, for at most `limit` seconds (default: `LIMIT`).

        Raises InputError if `storage` is not a database URL, is in memory, or its driver is not installed.
        """
        self._note, self._limit, self._read_only = note, LIMIT if limit is None else limit, read_only
        named = os.environ.get(VARIABLE)
        storage = named or storage
        key = VARIABLE if named else "study.storage"
        self._key = "" if storage is None else f"{key}: "
        self._secrets = [] if storage is None else secrets_of(storage)
        self._url = None if storage is None else _parse(storage, key)
        self._local = self._url is None or self._url.get_backend_name() == "sqlite"
        self.path = _file_of(self._url, run)  # of an SQLite database; None for a server
        self.label = str(self.path) if self.path else without_password(storage or "", f":{HIDDEN}")
        try:
            self.engine.dialect.create_connect_args(self.engine.url)
        except ImportError as error:
            module = error.name or self.engine.url.get_driver_name()  # without a name: a part of it is missing
            package = _PACKAGES.get(module, module)
            raise InputError(
                f"{self._key}{self.label}: needs the Python package {module}, which is not installed: "
                f"pip install '{package}'. Or use null for study.db in the run folder"
            ) from None
        except ValueError as error:
            raise InputError(
                f"{self._key}{self.label}: invalid option: {self.hide(str(error))}. Correct or remove it"
            ) from None

    @property
    def is_own(self) -> bool:
        """Whether it is study.db of the run folder, which has this run's study alone."""
        return self._url is None

    def hide(self, text: str) -> str:
        """A text without passwords, also where a driver quotes this URL's by itself."""
        return hidden(text, self._secrets)

    @property
    def arguments(self) -> tuple[str, dict[str, Any]]:
        """URL and engine options, as Optuna's RDBStorage takes them."""
        if self._url is None or (self._read_only and self.path is not None):
            assert self.path is not None
            # Not as a URL, in which `?`, `%` and braces in a folder's name have a meaning.
            address = self.path.absolute().as_uri() + ("?mode=ro" if self._read_only else "")
            return "sqlite://", {
                "creator": lambda: sqlite3.connect(address, BUSY, check_same_thread=False, uri=True),
                "poolclass": NullPool,
            }
        options: dict[str, Any] = {"poolclass": NullPool} if self._local else {"pool_pre_ping": True}
        if self._local and "timeout" not in self._url.query:
            options["connect_args"] = {"timeout": BUSY}
        elif self._url.get_driver_name() in _CONNECT_TIMEOUT_DRIVERS and "connect_timeout" not in self._url.query:
            options["connect_args"] = {"connect_timeout": max(2, min(CONNECT, round(self._limit)))}
        return self._url.render_as_string(hide_password=False), options

    @cached_property
    def engine(self) -> Engine:
        url, options = self.arguments
        return create_engine(url, **options)

    def check(self) -> None:
        """Raise InputError unless the database can be written, or created. Creates nothing and waits for nobody."""
        if self.path is not None and not self.path.exists():
            parent = self.path.absolute().parent
            if self._url is not None and not parent.is_dir():
                raise InputError(f"{self._key}{self.label}: the folder {parent} does not exist. Create it first")
            if parent.is_dir() and not os.access(parent, os.W_OK):
                raise InputError(f"{self._key}{self.label}: the folder {parent} cannot be written")
            return
        if self.path is not None and not self.path.is_file():
            raise InputError(f"{self._key}{self.label}: expected a database file, got a folder. Rename or remove it")
        try:
            self._probe()
        except DBAPIError as error:
            fault = self._fault(error)
            # A server that can't be reached now is most likely a mistake in the URL.
            if not fault.passes or not self._local:
                raise InputError(f"{self._key}{self.label}: {fault.text}. {fault.advice}") from None
        except (TypeError, ValueError) as error:  # of the driver, such as for an option that it doesn't know
            raise InputError(f"{self._key}{self.label}: {self.hide(str(error))}. Correct the URL") from None

    def run(self, step: Callable[[], T]) -> T:
        """The result of a step, repeated while another program holds the database. Ctrl-C works while waiting.

        Raises RunError if the database stays unavailable beyond the limit, or waiting would not help.
        """
        since: float | None = None
        announce = SILENT  # seconds of waiting until the next message
        while True:
            try:
                with held():
                    if not self._read_only:
                        self._probe()
                    result = step()
                break
            # Optuna wraps the database's errors in several of its own; what is none of them is raised again.
            except Exception as error:
                cause = _database_error(error)
                if cause is None:
                    raise
                fault = self._fault(cause)
                if not fault.passes:
                    # Without its cause, which may quote the password.
                    raise RunError(f"{self._key}{self.label}: {fault.text}. {fault.advice}") from None
            now = time.monotonic()
            since = now if since is None else since
            if now - since >= self._limit:
                raise RunError(
                    f"{self._key}{self.label}: {fault.text}, for {_duration(now - since)} now. {fault.advice}"
                ) from None
            if now - since >= announce:
                self._note(
                    f"waiting for {self.label} for {_duration(now - since)} now: {fault.text}. Gives up after "
                    f"{_duration(self._limit)}"
                    + ("" if self._read_only else "; Ctrl-C ends the search, and the same command resumes it")
                )
                announce += REMINDER
            time.sleep(POLL)
        if since is not None and announce > SILENT:
            self._note(f"{self.label} is available again after {_duration(time.monotonic() - since)}")
        return result

    def _probe(self) -> None:
        """Raise a DBAPIError unless the database can be written now."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self._local else "SELECT 1")

    def _fault(self, error: DBAPIError) -> Fault:
        text = self.hide((str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0])
        resume = "Then try again" if self._read_only else "The same command resumes the search"
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        # Two searches that create the tables of a new database at once. PostgreSQL's texts are in its own language.
        if state in _CREATED or "already exists" in text or "alembic_version" in text:
            return Fault("another search is setting it up", resume, passes=True)
        if not self._local:
            passes = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
            return Fault(f"the server is not available ({text})", f"Check the URL and the server. {resume}", passes)
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in _HELD:
            holders = open_in(self.path) if self.path is not None else []
            who = f"{', '.join(holders)} holds" if holders else "another program holds"
            return Fault(f"{who} it ({text})", f"Close the program that holds it. {resume}", passes=True)
        if code in _DAMAGED:
            return Fault(
                f"the file is damaged or not a database ({text})",
                "Restore it from a copy, or rename it: the same command then rebuilds the study from the run's trials",
            )
        if "no such table" in text:
            return Fault(
                f"another program removed or replaced it ({text})",
                "The same command writes the study again, from the run's trials",
            )
        if code == sqlite3.SQLITE_READONLY:
            return Fault(f"cannot be written ({text})", f"Make the file and its folder writable. {resume}")
        if code == sqlite3.SQLITE_FULL:
            return Fault(f"the disk is full ({text})", f"Free some space. {resume}")
        return Fault(f"cannot be used ({text})", f"Check that it is a file you can read and write. {resume}")


def open_in(path: Path) -> list[str]:
    """Other processes of this machine that have a file open, as messages name them; only what this user may see."""
    found, wanted = [], os.path.realpath(path)
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if process.pid != os.getpid() and any(item.path == wanted for item in process.open_files()):
                found.append(f"process {process.pid} ({process.info['name']})")
        except (psutil.Error, OSError):
            continue
    return found


def _parse(storage: str, key: str) -> URL:
    shown = without_password(storage)
    if is_ambiguous(storage):
        raise InputError(f"{key}: {AMBIGUOUS.format(shown)}")
    try:
        url = make_url(storage)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except NoSuchModuleError:
        raise InputError(
            f"{key}: cannot open {storage.partition('://')[0]}:// URLs. Use sqlite:///FILE, postgresql://, "
            "mysql+pymysql://, or null for study.db in the run folder"
        ) from None
    except (ArgumentError, ValueError):  # ValueError: a port that is not a number
        raise InputError(
            f"{key}: expected a database URL such as sqlite:///study.db or postgresql://user@host/database, got "
            f"{shown!r}. Use null for study.db in the run folder"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise InputError(
            f"{key}: {shown!r} is a database in memory, which is lost when the search ends. Use sqlite:///FILE, or "
            "null for study.db in the run folder"
        )
    return url


def _file_of(url: URL | None, run: Path) -> Path | None:
    if url is None:
        return run / files.STUDY
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _database_error(error: BaseException | None) -> DBAPIError | None:
    """The database's own error behind one of Optuna's, if there is one."""
    while error is not None:
        if isinstance(error, DBAPIError):
            return error
        error = error.__cause__
    return None


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
