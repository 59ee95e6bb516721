"""A PostgreSQL server of the tests' own: on a free port, in a temporary folder, as a user who is not root."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

# Where Debian installs what is not on the PATH; of several versions, the latest.
_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
BINARIES = next(
    (
        Path(found).parent
        for path in (*map(str, reversed(_PLACES)), None)
        if (found := shutil.which("initdb", path=path))
    ),
    None,
)
PASSWORD = "hunter2"
# The server refuses to run as root.
_USER = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


class Server:
    """A server with one user, `nex`, and as many databases as are asked for."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nex-merge-postgres-"))
        if _USER:
            shutil.chown(self._folder, _USER["user"], _USER["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._numbers = count()
        (self._folder / "password").write_text(PASSWORD)
        self._do(
            "initdb", "--username=nex", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8",
            "--locale=C", "--no-sync", f"--pwfile={self._folder}/password", f"--pgdata={self._folder}/data",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        command = ["postgres", "-D", "data", "-F", "-p", str(self._port), "-h", "127.0.0.1", "-k", str(self._folder)]
        deadline = time.monotonic() + 30
        self._process = self._popen(*command)
        while self._popen("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)).wait():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            if self._process.poll() is not None:  # what a killed one has left is not yet freed
                self._process = self._popen(*command)
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        self._process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        self._process.wait()
        shutil.rmtree(self._folder)

    def fresh(self) -> str:
        """The URL of a new database."""
        name = f"fresh{next(self._numbers)}"
        self._do("createdb", "-h", str(self._folder), "-p", str(self._port), "-U", "nex", name)
        return f"postgresql://nex:{PASSWORD}@127.0.0.1:{self._port}/{name}"

    def _do(self, *command: str) -> None:
        assert self._popen(*command).wait() == 0, (self._folder / "log").read_text()

    def _popen(self, name: str, *arguments: str) -> subprocess.Popen:
        assert BINARIES is not None
        with open(self._folder / "log", "a") as log:
            return subprocess.Popen(
                [BINARIES / name, *arguments], cwd=self._folder, stdout=log, stderr=log, start_new_session=True, **_USER
            )
