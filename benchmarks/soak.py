"""Searches whose processes are killed at random, and gone on with by other workers, against one that was left alone.

    python -m benchmarks.soak [KILLS] [SEED] [--cluster]

Kills hit the search itself or one of its workers, with SIGKILL, at any moment from the start on. A search that was
killed goes on with another number of workers, and with --cluster in turns on Ray. What trials left is compared to the
byte, times aside, whenever a search has come to its end; the first difference ends the program.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

CONFIG = "configs/qwen3_ties.yaml"
SETTINGS = ("study.parallel=4", "prompts.limit=8", "generation.max_new_tokens=24", "study.trials=8",
            "search_space=ties", "study.final={top: 2, share: 0.5}")  # fmt: skip
LONGEST = 12.0  # seconds between two kills


def content(run: Path) -> dict[str, Any]:
    """What trials left in a run folder, and the ranking, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("trials/*/*")):
        name = str(path.relative_to(run))
        if path.name == "result.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif path.is_file():
            found[name] = path.read_bytes()
    rows = json.loads((run / "leaderboard.json").read_text())
    found["leaderboard"] = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    return found


def start(run: Path, workers: int, more: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A search in a run folder, begun or gone on with."""
    settings = [word for item in (*SETTINGS, f"runtime.workers={workers}", *more) for word in ("--set", item)]
    command = [sys.executable, "-m", "nex_merge", "search", CONFIG, "--out", str(run), *settings]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def killed(run: Path, kills: int, draw: random.Random, cluster: bool = False) -> tuple[int, int]:
    """Bring a search to its end with up to so many kills. Returns how many there were, and how often it was begun.

    Raises RuntimeError if it fails by itself, or leaves a process.
    """
    done = begun = 0
    while True:
        more = ["runtime.cluster=ray"] if cluster and begun % 2 else []
        process, begun = start(run, draw.choice((1, 2, 3)), more), begun + 1
        began, bridge = {process.pid}, None
        while done < kills:
            try:
                process.wait(draw.uniform(0, LONGEST))
                break
            except subprocess.TimeoutExpired:
                pass
            below = psutil.Process(process.pid).children(recursive=True)
            began |= {child.pid for child in below}
            workers = [child.pid for child in below if _is_worker(child, process.pid)]
            victim, done = draw.choice([process.pid, *workers]), done + 1
            # What connects to Ray is a child of the search, too; without it the search ends, and can be gone on with.
            bridge = victim if more and victim in _children(process.pid) else bridge
            try:
                psutil.Process(victim).kill()
            except psutil.NoSuchProcess:
                done -= 1  # it has ended by itself
            if victim == process.pid:
                break
        _, said = process.communicate()
        _none_left(began - {process.pid})
        if process.returncode == 0:
            return done, begun
        if process.returncode != -9 and not (bridge is not None and process.returncode == 1):
            raise RuntimeError(f"{run}: exit code {process.returncode}: {said.decode(errors='replace')[-2000:]}")


def _children(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def _is_worker(process: psutil.Process, search: int) -> bool:
    """Whether it is a child of the search, or does trials for it on Ray."""
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return process.ppid() == search or "ray::Actor" in " ".join(process.cmdline())
    return False


def _none_left(pids: set[int]) -> None:
    until = time.monotonic() + 5
    while left := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        if time.monotonic() > until:
            raise RuntimeError(f"processes are left: {left}")
        time.sleep(0.05)


def soak(root: Path, kills: int, seed: int = 0, cluster: bool = False) -> dict[str, int]:
    """Searches until there were so many kills. Raises RuntimeError at the first that differs."""
    alone = root / "alone"
    if start(alone, 1).wait():
        raise RuntimeError("the search that was left alone failed")
    expected, draw = content(alone), random.Random(seed)
    found = {"kills": 0, "searches": 0, "processes": 0}
    while found["kills"] < kills:
        run = root / f"run-{found['searches']}"
        done, begun = killed(run, kills - found["kills"], draw, cluster)
        found = {"kills": found["kills"] + done, "searches": found["searches"] + 1,
                 "processes": found["processes"] + begun}  # fmt: skip
        now = content(run)
        if different := sorted(key for key in expected.keys() | now.keys() if expected.get(key) != now.get(key)):
            raise RuntimeError(f"{run}: differs in {', '.join(different[:5])} (seed {seed}, {found})")
        shutil.rmtree(run)
        print(f"equal: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "--cluster"]
    kills, seed = (int(words[i]) if len(words) > i else default for i, default in enumerate((500, 0)))
    with tempfile.TemporaryDirectory(prefix="nex-merge-soak-") as name:
        began = time.monotonic()
        found = soak(Path(name), kills, seed, "--cluster" in sys.argv)
        print(f"seed {seed}: {found['kills']} kills over {found['searches']} searches begun {found['processes']} times:"
              f" all equal; {(time.monotonic() - began) / 60:.0f} min")  # fmt: skip


if __name__ == "__main__":
    main()
