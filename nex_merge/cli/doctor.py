"""`nex-merge doctor`: what a bug report needs to know of a machine and an installation, without secrets."""

import importlib.metadata
import os
import platform
import re
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from nex_merge.cli.app import HELP, ShortFormat, app, example
from nex_merge.inert import json_text, one_line
from nex_merge.terminal import echo

LIBRARIES = ("torch", "transformers", "mergekit", "optuna", "tokenizers", "safetensors", "numpy", "pydantic", "typer")
# Those that change what a search does; none holds a secret.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "UV_TORCH_BACKEND")
REACHED = 1.0  # seconds in which a cluster has to answer
_RAY = Path("/tmp/ray/ray_current_cluster")  # where a node of a cluster keeps its address


@app.command(rich_help_panel=HELP, epilog=example("doctor"))
def doctor(
    form: Annotated[ShortFormat, typer.Option("--format", help="output format")] = ShortFormat.table,
) -> None:
    """Show versions, hardware and extras, to be pasted into a bug report. Holds no secrets and no name of a user."""
    found = {name: _without_home(value) for name, value in facts().items()}
    if form is ShortFormat.json:
        echo(json_text(found))
        return
    width = max(map(len, found)) + 2
    for name, value in found.items():
        lines = value if isinstance(value, list) else [value]
        for i, line in enumerate(lines or ["none"]):
            echo(f"{name if i == 0 else '':{width}}{line}")


def facts() -> dict[str, str | list[str]]:
    """What there is, by what it is called; several of a kind as a list."""
    given = dict(os.environ)  # before the libraries add to it
    return {
        "nex-merge": f"{importlib.metadata.version('nex-merge')} in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()} ({platform.python_implementation()}) in {sys.prefix}",
        "system": platform.platform(),
        "cpu": _cpus(),
        "memory": _memory(),
        "gpu": list(_gpus()),
        "libraries": [f"{name} {_version(name) or 'is missing'}" for name in LIBRARIES],
        "extras": [f"{name}: {state}" for name, state in _extras()],
        "hub cache": _hub_cache(),
        "ray cluster": _cluster(),
        "variables": [f"{name}={one_line(given[name])}" for name in VARIABLES if name in given],
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpus() -> str:
    from nex_merge.workers.places import cores

    return f"{cores()} of {os.cpu_count()} cores to be used, {platform.machine()}"


def _memory() -> str:
    import psutil
    from rich.filesize import decimal

    memory = psutil.virtual_memory()
    return f"{decimal(memory.total)}, {decimal(memory.available)} of it free"


def _gpus() -> Iterator[str]:
    """Every GPU that torch sees, or why it sees none."""
    try:
        import torch
        from rich.filesize import decimal

        count = torch.cuda.device_count()
        for i in range(count):
            properties = torch.cuda.get_device_properties(i)
            yield f"cuda:{i} {properties.name}, {decimal(properties.total_memory)}"
        if not count:
            yield f"none (torch is built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU alone'})"
    except Exception as error:  # a broken installation is what this command is for
        yield f"unknown: torch fails with {type(error).__name__}: {one_line(str(error))}"


def _extras() -> Iterator[tuple[str, str]]:
    """Every extra of the package: installed, or what of it is missing."""
    metadata = importlib.metadata.metadata("nex-merge")
    for extra in metadata.get_all("Provides-Extra") or ():
        needed = [
            re.split(r"[\s<>=!~\[;]", line)[0]
            for line in metadata.get_all("Requires-Dist") or ()
            if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", line)
        ]
        missing = [name for name in needed if _version(name) is None]
        yield extra, f"missing {', '.join(missing)}" if missing else "installed"


def _hub_cache() -> str:
    from nex_merge.checkpoints.hub import cache_folder

    folder = cache_folder()
    return f"{folder} ({'exists' if folder.is_dir() else 'does not exist'})"


def _cluster() -> str:
    """Whether this machine is a node of a Ray cluster, which `runtime.cluster: auto` would join. Names no address."""
    if find_spec("ray") is None:
        return "Ray is not installed"
    try:
        address = os.environ.get("RAY_ADDRESS") or _RAY.read_text(encoding="utf-8").strip()
    except OSError:
        return "none found"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
    except (OSError, ValueError):
        return "found, and does not answer"
    return "found, and answers"


def _without_home(value: Any) -> Any:
    """Texts with `~` for the home folder, whose name is often its owner's."""
    if isinstance(value, list):
        return [_without_home(item) for item in value]
    home = re.escape(str(Path.home()).rstrip("/"))
    return re.sub(rf"{home}(?=/|\s|$)", "~", value) if home else value
