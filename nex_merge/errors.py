"""Exceptions. Their messages have the shape `prompts.limit: expected a positive integer, got 'many'`."""


class NexMergeError(Exception):
    """Base class of all expected failures. The command line exits with `exit_code`."""

    exit_code = 1


class InputError(NexMergeError):
    """The input (a file, a key, a value, a folder) is invalid."""

    exit_code = 2


class RunError(NexMergeError):
    """A run failed although its input was valid."""


class TrialError(NexMergeError):
    """One variant could not be merged or scored. The search records the reason and continues."""
