"""What can go wrong, with one root. Every message names the thing at fault, what was found and what would do."""


class NexMergeError(Exception):
    """Root of all expected failures. `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(NexMergeError):
    """The user's input (a file, a key, a value, a folder) is at fault."""

    exit_code = 2


class RunError(NexMergeError):
    """A run failed although its input was sound."""


class TrialError(NexMergeError):
    """One variant could not be merged or scored; the search records the reason and goes on."""
