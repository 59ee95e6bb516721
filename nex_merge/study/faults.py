"""How a search ends that something other than a recipe ended: what is done is ranked, and the cause is on disk."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nex_merge import interrupts
from nex_merge.errors import DISK_FULL, NexMergeError, RunError
from nex_merge.runs import files
from nex_merge.runs.leaderboard import write_leaderboard
from nex_merge.runs.run import RunFolder
from nex_merge.study.observers import Observers


@contextmanager
def faults_logged(run: RunFolder, dispatch: Observers, hide: Callable[[str], str]) -> Iterator[None]:
    """End the run if something other than a recipe fails; finished trials are kept and ranked.

    The traceback goes to error.log in the run folder, as `hide` leaves it: without passwords. The trial is not marked
    as failed, which would prevent a retry.
    """
    try:
        yield
    except NexMergeError:
        _rank_what_is_done(run)
        raise
    except Exception as error:  # whatever it is, finished trials are ranked and its traceback is kept
        if interrupts.arrived():  # which it came from
            _rank_what_is_done(run)
            raise
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            _rank_what_is_done(run)
            place = run.path if error.filename is None else Path(error.filename).parent
            raise RunError(f"{place}: the disk is full. Free some space; the same command goes on") from error
        log = run.path / files.ERRORS
        trace = "".join(traceback.format_exception(error))
        with suppress(OSError):  # which would hide the first one
            log.write_text(hide(trace), encoding="utf-8")
        _rank_what_is_done(run)
        first = hide((str(error).strip().splitlines() or [""])[0])
        at = f"{files.trial_name(dispatch.trial)}: " if dispatch.trial else ""
        raise RunError(
            f"{at}{type(error).__name__}: {first} (not the recipe's fault; traceback in {log}). The same command "
            "resumes the search"
        ) from (error if hide(trace) == trace else None)
    except BaseException:  # an interrupt: do nothing slow before exiting
        _rank_what_is_done(run)
        raise


def _rank_what_is_done(run: RunFolder) -> None:
    """Write the leaderboard of the finished trials; errors here must not hide the first one."""
    interrupts.stopped()
    with suppress(NexMergeError, OSError):
        write_leaderboard(run)
