"""A cluster whose one worker starts, and never has a node: without Ray, spoken by a stand-in for the other process."""

import subprocess
import sys
from contextlib import contextmanager

from nex_merge.setup.config import RuntimeConfig
from nex_merge.workers.cluster import Cluster

_SPEAK = "import sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
_SPEAK += "c.recv(); c.send(('worker 1', 'starting', None)); c.recv()"


@contextmanager
def silent_cluster(monkeypatch):
    """(the cluster, the list of what it notes)"""
    real, notes = subprocess.Popen, []
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **named: real([sys.executable, "-c", _SPEAK, command[-1]], **named)
    )
    found = Cluster(RuntimeConfig(cluster="auto", workers=1), 1, notes.append)
    try:
        yield found, notes
    finally:
        found.close()
