"""What all trials of a search have in common, and how its prompts are shared between the search and its final."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nex_merge.errors import InputError
from nex_merge.measures.constraints import Constraint
from nex_merge.measures.estimates import Objective
from nex_merge.resampling import FEWEST_PROMPTS
from nex_merge.setup.config import RunConfig
from nex_merge.setup.study_config import StudyConfig


@dataclass(frozen=True)
class Terms:
    """What all trials of a search, or of its final, have in common."""

    config: RunConfig
    members: Sequence[str]  # base and parents in the family's order
    prompt_ids: Sequence[Sequence[int]]  # all prompts of the run
    asked: Sequence[int]  # the prompts that trials answer
    objective: Objective
    constraints: Sequence[Constraint]
    reference: Mapping[str, Any] | None = None  # the study parameters of equal weights; None: no recipe has them


def split_prompts(study: StudyConfig, prompts: int) -> tuple[list[int], list[int]]:
    """The prompts of the search and those of the final, drawn by the study's seed; none for the final without one.

    Raises InputError if there are too few for either.
    """
    if study.final is None:
        return list(range(prompts)), []
    count = round(study.final.share * prompts)
    if min(count, prompts - count) < FEWEST_PROMPTS:
        raise InputError(
            f"study.final: expected at least {FEWEST_PROMPTS} prompts each for the search and the final, got "
            f"{prompts - count} and {count} (study.final.share {study.final.share:g} of {prompts}). Use more prompts, "
            "another share, or study.final: null"
        )
    drawn = np.random.default_rng([study.seed, prompts, count]).permutation(prompts).tolist()
    return sorted(drawn[count:]), sorted(drawn[:count])


def check_crossfit(config: RunConfig, prompts: int) -> None:
    """Raise InputError if there are too few prompts for crossfit."""
    if config.nex.calibration == "crossfit" and prompts < 2:
        raise InputError(
            "nex.calibration: crossfit scores prompts under weights from other prompts and needs at least 2, got 1; "
            "use self"
        )
