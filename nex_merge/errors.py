"""Exceptions. Their messages have the shape `prompts.limit: expected a positive integer, got 'many'`."""

import errno

from nex_merge.passwords import masked

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError


class NexMergeError(Exception):
    """Base class of all expected failures. The command line exits with `exit_code`. No message has a password."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class InputError(NexMergeError):
    """The input (a file, a key, a value, a folder) is invalid."""

    exit_code = 2


class RunError(NexMergeError):
    """A run failed although its input was valid."""


class InUse(RunError):
    """Another search holds the run folder or drives its study."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}. {advice}")
        self.what = masked(what)


class TrialError(NexMergeError):
    """One variant could not be merged or scored. The search records the reason and continues."""
