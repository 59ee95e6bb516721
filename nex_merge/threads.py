"""Threads of one core each, as many as torch has cores: independent pieces of work side by side on the CPU.

Threads that wait for each other inside every operation, which is how torch shares one out, stand still for a good part
of the time: always where operations are short, and whenever anything else wants a core. A result also no longer depends
on how many cores there are.
"""

import functools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def use_one_core() -> None:
    """Make torch's operations in the calling thread take one core (and in threads that torch meets later)."""
    torch.set_num_threads(1)


def cores() -> int:
    """How many pieces of work `on_cores` has under way at a time."""
    return torch.get_num_threads()


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "cores", use_one_core)


def on_cores(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """The results of the work on every item, in the items' order. Raises what the work raises.

    Closed, it drops what has not begun.
    """
    yield from _workers().map(work, items)
