"""The command line. Commands import heavy modules only when they run.

Results go to stdout, progress and logs to stderr. Exit codes: 0 success, 1 the run failed, 2 invalid input, 130
interrupted.
"""

import os
import sys

import typer
from typer.exceptions import TyperException

from nex_merge.cli.app import app
from nex_merge.cli.errors import drop_output, replace_unencodable, usage_message
from nex_merge.errors import NexMergeError

# Importing these registers their commands, in the order of --help.
# isort: off
from nex_merge.cli import search, labels, audit, report, consensus, score, select, phases, neurons, catalogue  # noqa: F401
# isort: on

INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> None:
    """Entry point. Expected failures end with one message and an exit code, without a traceback."""
    # Hide progress bars and notices of libraries, unless the user has set these variables.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # OpenMP's threads spin while they wait for one another, which stalls whoever shares the cores: with two processes
    # on two cores, each was many times slower than alone. Read when torch is loaded, so it has to be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    replace_unencodable()
    try:
        code = app(prog_name="nex-merge", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except NexMergeError as error:
        typer.echo(f"nex-merge: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        drop_output()
        sys.exit(1)
    except OSError as error:
        drop_output()
        typer.echo(f"nex-merge: {_described(error)}", err=True)
        sys.exit(1)
    except TyperException as error:
        typer.echo(f"nex-merge: {usage_message(error)}", err=True)
        sys.exit(2)
    if code == INTERRUPTED:
        typer.echo(
            "nex-merge: interrupted; what is done is kept, and the same search, audit or benchmark command resumes",
            err=True,
        )
    sys.exit(code or 0)


def _described(error: OSError) -> str:
    """What the system refused, with the file if it names one; without one, it was the output."""
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename is not None else f"cannot write the output: {reason}"
