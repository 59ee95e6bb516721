"""The command line. Commands import heavy modules only when they run.

Results go to stdout, progress and logs to stderr. Exit codes: 0 success, 1 the run failed, 2 invalid input, 130
interrupted, 143 ended by SIGTERM.
"""

import logging
import os
import sys
import traceback
from types import TracebackType

from nex_merge import interrupts

if os.path.basename(sys.argv[0]) == "nex-merge":  # the program itself: what follows takes a while to import
    interrupts.install()

from typer.exceptions import TyperException

from nex_merge.cli.app import app, say
from nex_merge.cli.errors import drop_output, replace_unencodable, usage_message
from nex_merge.errors import DISK_FULL, NexMergeError
from nex_merge.inert import Formatter
from nex_merge.terminal import echo

# Importing these registers their commands, in the order of --help.
# isort: off
from nex_merge.cli import init, search, labels, audit, compare, report, dashboard, consensus  # noqa: F401
from nex_merge.cli import score, select, phases, neurons  # noqa: F401
from nex_merge.cli import clean, catalogue, doctor  # noqa: F401
# isort: on

INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> None:
    """Entry point. Expected failures end with one message and an exit code, without a traceback."""
    interrupts.install()
    try:
        interrupts.begin()
        code = _run()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        interrupts.end()
    except BaseException as error:
        # Whatever became of an interrupt on its way, it is one.
        if not (interrupts.arrived() or isinstance(error, KeyboardInterrupt)):
            raise
        code = _end_interrupted()
    sys.exit(code)


def _run() -> int:
    """Run the command. Returns the exit code."""
    # Hide progress bars and notices of libraries, unless the user has set these variables.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # OpenMP's threads spin while they wait for one another, which stalls whoever shares the cores: with two processes
    # on two cores, each was many times slower than alone. Read when torch is loaded, so it has to be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    replace_unencodable()
    if logging.lastResort is not None:  # what shows warnings of the libraries and our own
        logging.lastResort.setFormatter(Formatter())
    sys.excepthook = _show_traceback
    try:
        code = app(prog_name="nex-merge", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code or 0
    except NexMergeError as error:
        return _failed(str(error), error.exit_code)
    except BrokenPipeError:
        drop_output()
        return 1
    except OSError as error:
        drop_output()
        return _failed(_described(error), 1)
    except TyperException as error:
        return _failed(usage_message(error), 2)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours: the traceback, whose message may quote anything."""
    echo("".join(traceback.format_exception(kind, error, trace)), err=True, nl=False)


def _failed(message: str, code: int) -> int:
    # The cause would be another one than what was done to it.
    if not interrupts.arrived():
        say(f"nex-merge: {message}")
    return code


def _end_interrupted() -> int:
    code = interrupts.finish()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # a reader that the same Ctrl-C ended
        drop_output()
    return code


def _described(error: OSError) -> str:
    """What the system refused, with the file if it names one; without one, it was the output."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in DISK_FULL and error.filename is not None:
        place = os.path.dirname(error.filename) or "."
        return (
            f"{place}: the disk is full ({os.path.basename(error.filename)}). Free some space; the same command goes on"
        )
    return f"{error.filename}: {reason}" if error.filename is not None else f"cannot write the output: {reason}"
