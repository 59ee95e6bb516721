"""The log of a search in a file: progress, warnings and what ended it, whatever the terminal shows."""

import logging
import re
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from nex_merge.errors import InputError, NexMergeError
from nex_merge.inert import Formatter, visible

TIMES = "%Y-%m-%d %H:%M:%S"
_TIMED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")  # how every log begins
# Loggers that show their records themselves, and pass them on to the root's handlers at most in CI.
_APART = ("transformers", "optuna")


def check_log(path: Path, run: Path | None) -> None:
    """Raise InputError unless `path` is a new or empty file or an earlier log, outside the `run` of the search.

    In a run folder that is not there yet, a log would be in the search's way.
    """
    from nex_merge.runs.files import check_output_file

    check_output_file(path, "--log-file")
    if run is not None and path.resolve().is_relative_to(run.resolve()):
        raise InputError(f"--log-file: expected a file outside the run folder, which is {run}, got {path}")
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if not _TIMED.match(file.read(20)):
                raise InputError(
                    f"--log-file: expected a new file, or the log of an earlier search, whose lines begin with a time, "
                    f"got {path}; choose another name"
                )


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
        written, apart, shown = logging.StreamHandler(file), logging.StreamHandler(file), logging.StreamHandler()
        shown.setFormatter(Formatter())  # the root shows them by itself only while it has no handlers
        for handler in (written, apart):
            handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", TIMES))
        for handler in (written, shown):
            handler.addFilter(lambda record: record.name.partition(".")[0] not in _APART)
        added = [(None, written), (None, shown), *((name, apart) for name in _APART)]
        for name, handler in added:
            handler.setLevel(logging.WARNING)
            logging.getLogger(name).addHandler(handler)
        try:
            yield file
        except BaseException as error:
            file.write(f"{time.strftime(TIMES)} {visible(_ended(error))}\n")
            raise
        finally:
            for name, handler in added:
                logging.getLogger(name).removeHandler(handler)


def _ended(error: BaseException) -> str:
    """What ended a search, as the command line says it; a fault of ours with its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"nex-merge: {error}" if isinstance(error, NexMergeError) else "".join(traceback.format_exception(error))
