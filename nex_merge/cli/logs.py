"""The log of a search in a file: progress, warnings and what ended it, whatever the terminal shows."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from nex_merge.errors import NexMergeError
from nex_merge.inert import Formatter, visible

TIMES = "%Y-%m-%d %H:%M:%S"
# Loggers that pass nothing on to the root's handlers.
_APART = ("transformers", "optuna")


@contextmanager
def logged(path: Path | None) -> Iterator[TextIO | None]:
    """The file, opened to be added to, which until the end gets warnings, too, and the error that ends the block.

    Warnings are still shown on stderr. None: no file, and nothing changes.
    """
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="replace", buffering=1) as file:
        written, shown = logging.StreamHandler(file), logging.StreamHandler(sys.stderr)
        written.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", TIMES))
        shown.setFormatter(Formatter())  # the root shows them by itself only while it has no handlers
        for handler in (written, shown):
            handler.setLevel(logging.WARNING)
            logging.getLogger().addHandler(handler)
        for name in _APART:
            logging.getLogger(name).addHandler(written)
        try:
            yield file
        except BaseException as error:
            file.write(f"{time.strftime(TIMES)} {visible(_ended(error))}\n")
            raise
        finally:
            for name in (None, *_APART):
                logging.getLogger(name).removeHandler(written)
            logging.getLogger().removeHandler(shown)


def _ended(error: BaseException) -> str:
    """What ended a search, as the command line says it; a fault of ours with its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"nex-merge: {error}" if isinstance(error, NexMergeError) else "".join(traceback.format_exception(error))
