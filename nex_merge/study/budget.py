"""Budgets of a search: hours that its trials took, and tokens that they generated, interrupted runs included."""

from collections.abc import Sequence

from nex_merge.records import TrialResult
from nex_merge.runs.run import RunFolder
from nex_merge.setup.study_config import StudyConfig
from nex_merge.wording import counted


def reached(run: RunFolder, study: StudyConfig, known: Sequence[TrialResult]) -> str | None:
    """The budget that finished trials have used up, and how to go on.

    `known`: those that the next trial knows. None while there is some left, or no trial.
    """
    results = run.results()
    merges = sum(result.kind == "merge" for result in results)
    if merges >= study.trials and len(results) - merges >= run.baselines:
        return None
    how_far = f"{merges} of {counted(study.trials, 'merge')} {'is' if merges == 1 else 'are'} finished"
    spent = sum(sum(result.seconds.values()) for result in known) / 3600
    if study.timeout is not None and spent >= study.timeout:
        return _ended("timeout", f"trials took {spent:.3g} of {study.timeout:g} hours", how_far)
    # Results of older versions don't say how many tokens there are: their responses are counted, if anyone asks.
    if study.max_tokens is not None:
        tokens = sum(run.tokens(result) for result in known)
        if tokens >= study.max_tokens:
            return _ended("max_tokens", f"trials generated {tokens:,} of {counted(study.max_tokens, 'token')}", how_far)
    return None


def described(study: StudyConfig) -> str:
    """The budgets in words; empty if there are none."""
    hours = [] if study.timeout is None else [f"{study.timeout:g} hours that trials took"]
    tokens = [] if study.max_tokens is None else [f"{study.max_tokens:,} generated tokens"]
    return ", or ".join([*hours, *tokens])


def _ended(name: str, spent: str, how_far: str) -> str:
    return (
        f"study.{name}: {spent}, so no further trial is started; {how_far}. To go on, run the same command with a "
        f"larger budget (--set study.{name}=N) or none (--set study.{name}=null)"
    )
