"""What a trial knows of the trials before it: the same however a search was interrupted, and whoever does its work.

Everything that one trial takes from others asks here: proposals, drafts, duplicates, pools, shared weights, races.
"""

from collections.abc import Iterable

from nex_merge.records import TrialResult


def horizon(number: int) -> int:
    """Merges numbered below this are known to the merge with a number: those that were told when it was proposed."""
    return number


def knows(trial: str, result: TrialResult) -> bool:
    """Whether a trial knows a result: base and the parents know one another, merges those and what `horizon` says."""
    if result.kind != "merge":
        return result.trial != trial
    return trial.isdigit() and int(result.trial) < horizon(int(trial))


def known(trial: str, results: Iterable[TrialResult]) -> list[TrialResult]:
    """The results that a trial knows, in their order."""
    return [result for result in results if knows(trial, result)]
