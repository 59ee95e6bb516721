"""Searches on Ray clusters: one with two nodes on this machine that tests join, and those that searches start."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.resolve import resolve_config
from nex_merge.workers.cluster import Cluster
from nex_merge.workers.nodes import family_engine, members
from nex_merge.workers.sessions import end_session
from tests.conftest import ROOT, toy_settings
from tests.pages import FAQ
from tests.searches import TIMES, TRIALS, search
from tests.workers.mortal import Mortal

if find_spec("ray") is None and os.environ.get("NEX_MERGE_RAY") != "required":
    pytest.skip("Ray is not installed", allow_module_level=True)

# Ray's own, as docs/clusters.md names them.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
AT_ONCE = 5.0  # seconds in which an interrupted search ends


class Nodes:
    """A cluster of two nodes with a CPU each, in sessions of their own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self.head = self._start({}, "--head", "--port=0", "--include-dashboard=false", f"--temp-dir={self.folder}")
        self.address = (Path(self.folder) / "ray_current_cluster").read_text()
        self.second = self._start({"TEST_NODE": "second"}, f"--address={self.address}")

    def _start(self, also, *options):
        command = ["-c", "from ray.scripts.scripts import main; main()", "start", "--num-cpus=1", *options]
        process = subprocess.Popen(
            [sys.executable, *command, "--object-store-memory=100000000"],
            env={**os.environ, **ENVIRONMENT, **also, "PYTHONPATH": str(ROOT), "TMPDIR": self.folder},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert process.wait(60) == 0, process.stdout.read()
        return process.pid

    @property
    def sessions(self):
        return self.head, self.second

    def close(self):
        end_session(self.second)
        end_session(self.head, self.folder)


@pytest.fixture(scope="module")
def nodes():
    found = Nodes()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield found
    found.close()


def written(folder, toy, **runtime):
    """A configuration of a search with four trials under way."""
    settings = {**toy_settings(toy, folder / "run"), "study": {"trials": 4, "parallel": 4}, "runtime": runtime}
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def kept(run):
    """What has to be the same whoever tried the merges, by file."""
    board = json.loads((run / "leaderboard.json").read_text())
    found = {"leaderboard": [{key: value for key, value in row.items() if key not in TIMES} for row in board]}
    for trial in TRIALS:
        folder = run / "trials" / trial
        found |= {(trial, name): (folder / name).read_bytes() for name in ("responses.jsonl", "recipe.yaml")}
        result = json.loads((folder / "result.json").read_text())
        assert result.pop("seconds") and result["weights_sha256"]
        found[trial, "result.json"] = result
    return found


@pytest.fixture(scope="module")
def here(toy, tmp_path_factory):
    """Rows and files of the search without a cluster."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        rows, _ = search(written(folder, toy))
    return rows, kept(folder / "run")


def test_another_checkpoint_is_refused_and_a_cluster_that_was_joined_goes_on(nodes, toy, tmp_path):
    resolved = resolve_config(str(written(tmp_path, toy)))
    right = members(resolved.family, resolved.resolved)
    wrong = replace(right, checkpoints={**right.checkpoints, "a": "0" * 64})
    cluster = Cluster(RuntimeConfig(cluster=nodes.address, workers=1), 1, print)
    try:
        cluster.set_up(partial(family_engine, wrong, RuntimeConfig()))
        with pytest.raises(InputError) as refused:
            while not cluster.ready():
                cluster.wait(lambda *told: None)
    finally:
        cluster.close()
    assert f"{os.uname().nodename}: a: {toy['a']} has other weights" in str(refused.value)
    names = [process.cmdline() for process in psutil.process_iter() if os.getsid(process.pid) in nodes.sessions]
    assert sum("/raylet" in name[0] for name in names if name) == 2
    assert not any("Actor" in part for name in names for part in name)
    assert not list(Path(nodes.folder).glob("nex-merge-orders-*"))


def test_an_actor_is_killed_and_a_node_is_lost_in_mid_trial(nodes, here, toy, tmp_path):
    """The last one on this cluster. The replacement for the second one finds no room, and holds no trial."""
    config = written(tmp_path, toy, cluster=nodes.address, workers=2)
    family = resolve_config(str(config)).family

    def end():
        while not (tmp_path / "waits").exists():
            time.sleep(0.05)
        # First the one that would report that the actor has ended: it is the node that is lost.
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.Error):  # another that has ended meanwhile
                if os.getsid(process.pid) == nodes.second and "/raylet" in "".join(process.cmdline()[:1]):
                    process.kill()
        end_session(nodes.second)

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    rows, recorder = search(config, engine=partial(Mortal, family, RuntimeConfig(device="cpu"), str(tmp_path)))
    thread.join()
    for why in ("ended, as a process does that is killed or runs out of memory", "was lost with its node"):
        # 3 of 3 where the node had the trial whose actor was killed.
        assert any(f"{why}; tried again" in note for note in recorder.notes), "\n".join(recorder.notes)
    assert (rows, kept(tmp_path / "run")) == here


def test_nobody_to_join(toy, tmp_path):
    with pytest.raises(InputError) as refused:
        search(written(tmp_path, toy, cluster="127.0.0.1:9", workers=1))
    words = "[Errno 111] Connection refused"
    assert str(refused.value) == f"runtime.cluster: 127.0.0.1:9: {words}" and words in FAQ


def test_another_version_of_ray_is_told_whole():
    import ray
    from ray._private.utils import check_version_info

    from nex_merge.workers.ray_actors import _first_line

    own = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    with pytest.raises(RuntimeError) as refused:
        check_version_info({**own, "ray_version": "2.0"}, "here")
    words = "Version mismatch: The cluster was started with:"
    assert f"{words} Ray: 2.0 Python: {own['python_version']} This process" in _first_line(refused.value)
    assert words in FAQ


PROGRAM = """
import os, sys
from functools import partial
from nex_merge import interrupts
interrupts.install()
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.resolve import resolve_config
from nex_merge.study.progress import Progress
from nex_merge.measures.estimates import objective_of
from nex_merge.study.search import run_search
from tests.workers.mortal import Mortal
resolved = resolve_config(sys.argv[1])
engine = partial(Mortal, resolved.family, RuntimeConfig(device="cpu"), sys.argv[2])
interrupts.begin()
try:
    run_search(resolved, False, [Progress(objective_of(resolved.config.study))], engine)
    assert not any(name.startswith("RAY_") for name in os.environ) and "ray" not in sys.modules
    interrupts.end()
except KeyboardInterrupt:
    interrupts.stopped()
    sys.exit(interrupts.finish())
"""


@pytest.fixture
def begun(toy, tmp_path):
    """Starts a search that starts a cluster, in a process with a home of its own; and what is left of either."""
    home, temporary = tmp_path / "home", tempfile.mkdtemp(prefix="t", dir="/tmp")
    home.mkdir()
    own = {"HOME": str(home), "TMPDIR": temporary, "TEST_MARK": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def start(node=None):
        config = written(tmp_path, toy, cluster="ray", workers=1)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {} if node is None else {"TEST_NODE": node}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(config), str(tmp_path)],
            env={**environment, **own},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which whoever runs the tests may ignore
        )  # fmt: skip

    def processes():
        found = psutil.process_iter(["environ", "name"])
        return [one for one in found if (one.info["environ"] or {}).get("TEST_MARK") == str(tmp_path)]

    yield start, processes, lambda: [*processes(), *os.listdir(temporary), *os.listdir(home)]
    for process in processes():
        process.kill()
    shutil.rmtree(temporary)


def test_a_cluster_of_its_own(begun, here, tmp_path):
    """With a worker that is killed: nothing of Ray's is printed, kept in the home, or left."""
    start, _, left = begun
    process = start()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "tried again, 2 of 3" in output + errors
    assert not any(word in output + errors for word in ("raylet", "Ray ", "ray::", "RAY_"))
    assert kept(tmp_path / "run") == here[1]
    assert not left()


@pytest.mark.parametrize(
    ("number", "code", "when"),
    [(signal.SIGINT, 130, "starts"), (signal.SIGKILL, -9, "starts"), (signal.SIGTERM, 143, "works")],
    ids=["Ctrl-C while Ray starts", "SIGKILL while Ray starts", "SIGTERM in mid-trial"],
)
def test_nothing_is_left(begun, tmp_path, number, code, when):
    start, processes, left = begun
    process = start("second")

    def is_then():
        if when == "works":
            return (tmp_path / "waits").exists()
        return any(one.info["name"] == "gcs_server" for one in processes())

    deadline = time.monotonic() + 60
    while not is_then():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    asked = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode == code
    while left() and number == signal.SIGKILL and time.monotonic() - asked < AT_ONCE:
        time.sleep(0.1)
    assert not left() and time.monotonic() - asked < AT_ONCE
