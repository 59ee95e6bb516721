"""Independent pieces of work on the CPU, side by side: one single-threaded worker per core.

torch splits every operation over its threads, which then wait for each other at the end of each one. That leaves cores
idle when operations are short or another process wants a core. With one piece of work per thread, results also do not
depend on the number of cores.
"""

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from nex_merge import interrupts

Input = TypeVar("Input")
Result = TypeVar("Result")


def use_one_core() -> None:
    """Limit torch to one core in the calling thread, and in threads that first use torch afterwards."""
    torch.set_num_threads(1)


def cores() -> int:
    """Number of workers of `on_cores`: torch's number of threads."""
    return torch.get_num_threads()


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "cores", use_one_core)


def on_cores(work: Callable[[Input], Result], items: Iterable[Input]) -> Generator[Result, None, None]:
    """Run `work` on every item and yield the results in order. Raises what `work` raises.

    Closing the generator cancels items that have not started. `work` must not call `on_cores` itself: all workers
    could end up waiting for each other.
    """

    def unless_interrupted(item: Input) -> Result:
        interrupts.check()  # Python does not exit before its threads have done what they were given
        return work(item)

    yield from _workers().map(unless_interrupted, items)


def work_off(work: Callable[[Input], object], items: Sequence[Input]) -> None:
    """Run many short pieces of `work`, one for every item, begun in order. Raises what `work` raises, as `on_cores`.

    A thread takes the next item as soon as it is done with one. To hand out each by `on_cores` took 5 to 10 % of the
    CPU time of TIES and DARE merges on two cores, in the one thread that does so, however many cores there are.
    """
    waiting = iter(items)  # each item goes to one thread, as a step of a list's iterator is never interrupted

    def until_none_is_left(_: int) -> None:
        for item in waiting:
            interrupts.check()
            work(item)

    for _ in on_cores(until_none_is_left, range(min(cores(), len(items)))):
        pass
