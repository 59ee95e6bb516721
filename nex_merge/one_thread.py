"""Products of matrices on one thread: split over threads, sums are rounded otherwise, and digits tell of a machine.

The number of threads of the process is as before afterwards, so that nothing is changed for a user's own code.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")

_turn = threading.RLock()


@cache
def _controller() -> "ThreadpoolController":
    import numpy  # noqa: F401  only libraries that are loaded are found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Products of matrices in the block are computed on one thread. Takes microseconds.

    Of several Python threads, one is in such a block at a time: the limit is the process's, and the first to leave
    would lift it for the others.
    """
    with _turn, _controller().limit(limits=1):
        yield


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose products of matrices are computed on one thread; not for generators, which work later."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with one_thread():
            return function(*args, **kwargs)

    return limited
