"""Where workers work: devices and threads of this machine."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nex_merge.errors import InputError
from nex_merge.setup.config import RuntimeConfig
from nex_merge.wording import counted


@dataclass(frozen=True)
class Place:
    """What one worker has for itself."""

    device: str  # cpu, or cuda:N as this process numbers them
    threads: int

    def environment(self) -> Mapping[str, str]:
        """What a process needs to know before it imports torch."""
        found = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.device.startswith("cuda"):
            number = int(self.device.partition(":")[2])
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            found["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number] if visible else str(number)
        return found

    @property
    def device_inside(self) -> str:
        """The device as the worker itself numbers it."""
        return self.device.partition(":")[0]


def places(runtime: RuntimeConfig, parallel: int) -> list[Place]:
    """The workers' places, one each, by `runtime.workers` and `runtime.devices`; with a cluster, that of this process.

    `parallel`: `study.parallel`, which more workers would have no use for. Raises InputError if there are more, or this
    machine lacks a device.
    """
    devices = _devices(runtime)
    if runtime.workers == "auto" or (runtime.cluster is not None and runtime.workers is None):
        count = min(parallel, 1 if runtime.cluster is not None else count_of(runtime, devices))
    else:
        count = count_of(runtime, devices)
    if count > parallel:
        raise InputError(
            f"runtime.workers: expected at most {parallel}, got {count}: study.parallel says how many trials may be "
            f"under way at once, and it is part of the search, which a machine must not change. Use at most "
            f"{counted(parallel, 'worker')}, or a new search with a larger study.parallel"
        )
    if runtime.cluster is not None:
        return [Place(devices[0], cores())]
    return [Place(devices[i % len(devices)], max(1, cores() // count)) for i in range(count)]


def count_of(runtime: RuntimeConfig, devices: Sequence[str] | None = None) -> int:
    """How many workers `runtime.workers` asks for. `devices`: if they are at hand.

    Raises InputError if a cluster would have to be asked.
    """
    if isinstance(runtime.workers, int):
        return runtime.workers
    if runtime.cluster is not None:
        raise InputError(
            "runtime.workers: expected a number with runtime.cluster, whose size is not known yet, or study.parallel, "
            f"got {runtime.workers!r}"
        )
    if runtime.workers is None and runtime.devices == "auto":
        return 1
    devices = devices or _devices(runtime)
    return cores() if runtime.workers == "auto" and set(devices) == {"cpu"} else len(devices)


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(runtime: RuntimeConfig) -> list[str]:
    import torch

    number = torch.cuda.device_count()
    if runtime.devices == "auto":
        single = runtime.device if runtime.device != "auto" else None
        return [_numbered(single)] if single else [f"cuda:{i}" for i in range(number)] or ["cpu"]
    if len({device.partition(":")[0] for device in runtime.devices}) > 1:
        raise InputError(
            "runtime.devices: expected devices of one kind, as results differ between kinds, got "
            f"{', '.join(runtime.devices)}"
        )
    for device in runtime.devices:
        if device != "cpu" and int(device.partition(":")[2] or 0) >= number:
            raise InputError(
                f"runtime.devices: expected devices of this machine, got {device!r}; it has "
                f"{counted(number, 'CUDA device')}"
            )
    return [_numbered(device) for device in runtime.devices]


def _numbered(device: str) -> str:
    return f"{device}:0" if device == "cuda" else device
