"""What a trial knows of the trials before it: the same however a search was interrupted, and whoever does its work.

Everything that one trial takes from others asks here: proposals, drafts, duplicates, pools, shared weights, races,
budgets.
"""

from collections.abc import Iterable

from nex_merge.records import TrialResult


def horizon(number: int, parallel: int) -> int:
    """Merges numbered below this are known to the merge with a number: those that were told when it was proposed.

    `parallel`: `study.parallel`, the trials that may be under way at once. They are proposed one for each that is told,
    in order, so that this is no matter of who does them and how fast.
    """
    return max(0, number - parallel + 1)


def knows(trial: str, result: TrialResult, parallel: int) -> bool:
    """Whether a trial knows a result: base and the parents know one another, merges those and what `horizon` says."""
    if result.kind != "merge":
        return result.trial != trial
    return trial.isdigit() and int(result.trial) < horizon(int(trial), parallel)


def known(trial: str, results: Iterable[TrialResult], parallel: int) -> list[TrialResult]:
    """The results that a trial knows, in their order."""
    return [result for result in results if knows(trial, result, parallel)]
