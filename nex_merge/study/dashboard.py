"""Optuna's dashboard of a run: served on this machine alone, from memory, and put together anew when the run changes.

A finished trial of a study takes no other value, so that a change makes a new study, and an application around it: the
next request is answered by that one, under the same address.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import InMemoryStorage, RDBStorage

from nex_merge.atomic import new_file
from nex_merge.errors import InputError, NexMergeError
from nex_merge.runs import files
from nex_merge.runs.leaderboard import LEADERBOARD_FILES
from nex_merge.runs.run import RunFolder
from nex_merge.study.snapshot import BASELINES, fill

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST, PORT = "127.0.0.1", 8080  # where optuna-dashboard is by itself, too; another port if that is taken
EVERY = 2.0  # seconds between two looks at the run


def check_dashboard(out: str) -> None:
    """Raise InputError if Optuna's dashboard is not installed. `out`: a command that does without it."""
    if find_spec("optuna_dashboard") is None:
        raise InputError(
            "needs Optuna's dashboard; install nex-merge[dashboard]. For one that is installed elsewhere, write the "
            f"study to a file: {out}"
        )


def write_study(run: RunFolder, file: Path) -> None:
    """Write a run, as it is now, as an SQLite database that `optuna-dashboard` and `optuna.load_study` open.

    Raises InputError if there is no study to read, or anything but what this wrote earlier would be overwritten.
    """
    if file.exists() and not _was_written_here(file):
        raise InputError(
            f"--out: expected a new file, or one that this command wrote earlier, got {file}; choose another name"
        )
    with new_file(file) as path:
        storage = RDBStorage("sqlite://", {"creator": lambda: _connected(path)})
        fill(storage, run, with_files=False)
        storage.engine.dispose()


def _was_written_here(file: Path) -> bool:
    """Whether a file is a database with the study of baselines, which a search's own has not."""
    if not file.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            names = connection.execute("SELECT study_name FROM studies").fetchall()
    except sqlite3.Error:
        return False
    return any(name.endswith(f": {BASELINES}") for (name,) in names)


def _connected(path: Path) -> sqlite3.Connection:
    """Not by a URL, in which `?` and `%` in a name have a meaning. The file is synced once, when it is whole."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


class RunFiles:
    """Files of a run as a store of artifacts: nothing of them is copied, and nothing is written."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return self._paths[artifact_id].open("rb")
        except (KeyError, FileNotFoundError):
            raise ArtifactNotFound(artifact_id) from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise PermissionError("the files of a run can't be changed here")

    def remove(self, artifact_id: str) -> None:
        """Forget it; the file stays."""
        self._paths.pop(artifact_id, None)


class Dashboard:
    """A WSGI application: Optuna's, of the run as it is."""

    def __init__(self, run: RunFolder, note: Callable[[str], None]) -> None:
        """`note` is told why a change can't be shown. Raises InputError if there is no study to read."""
        self._run, self._note, self._said = run, note, ""
        self._looking = threading.Lock()
        self._seen, self._looked = self._state(), time.monotonic()
        self._application = self._made()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with self._looking:
            if time.monotonic() - self._looked > EVERY:
                self._look()
                self._looked = time.monotonic()
            application = self._application
        return application(environ, start_response)

    def _look(self) -> None:
        if (state := self._state()) == self._seen:
            return
        try:
            self._application, self._seen, self._said = self._made(), state, ""
        except NexMergeError as error:  # what was shown is better than nothing; the next look tries again
            if (said := str(error)) != self._said:
                self._said = said
                self._note(f"not brought up to date: {said}")

    def _made(self) -> "WSGIApplication":
        from optuna_dashboard import wsgi

        storage = InMemoryStorage()
        return wsgi(storage, RunFiles(fill(storage, self._run, with_files=True)))

    def _state(self) -> Any:
        """What changes whenever a trial ends, a run is ranked anew, or an accuracy is measured."""
        run = self._run.path
        kept = [run / name for name in (*LEADERBOARD_FILES, files.SCORES)]
        kept += [run / files.FINAL / files.SCORES, *(run / files.TRIALS).glob(f"*/{files.RESULT}")]
        return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(run: RunFolder, ready: Callable[[str], None], note: Callable[[str], None]) -> None:
    """Serve a run's dashboard until it is interrupted. `ready` is told its address.

    Raises InputError if there is no study to read.
    """
    dashboard = Dashboard(run, note)
    with _listening(dashboard) as server:
        ready(f"http://{HOST}:{server.server_port}/dashboard")
        server.serve_forever()


def _listening(application: "WSGIApplication") -> WSGIServer:
    try:
        return make_server(HOST, PORT, application, _Server, _Quiet)
    except OSError:
        return make_server(HOST, 0, application, _Server, _Quiet)
