"""What is known of one model's answers, and of a pool of variants. Symbols: R responses to P prompts.

An `Observation` is made by `engines.observe` while the model is in memory, or read from a run folder afterwards; a
`Variant` adds whose it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nex_merge.records.activations import SparseRows
from nex_merge.records.answers import Response, TextFigures, TokenStats
from nex_merge.records.scores import Evidence, NexScore, ResponseAnalysis


@dataclass(frozen=True)
class PhaseCounts:
    """What NEX finds in each of R responses, in numbers. A response too short for phases has 0 rows with a phase."""

    cycles: np.ndarray  # int64 [R]
    credited: np.ndarray  # bool [R]: whether its neurons earned any credit
    explore: np.ndarray  # int64 [R]: rows that explore
    phased: np.ndarray  # int64 [R]: rows with a phase
    novelty: np.ndarray  # float64 [R]: new neurons per token, mean over those rows; NaN where there are none


@dataclass(frozen=True)
class Observation:
    """One model's responses to the prompts, and what its neurons did meanwhile.

    `stats`, `evidence` and `phases` are None where activations were not captured. A run folder gives back all but
    `rows` and `analyses`, which are large and quickly made again.
    """

    responses: Sequence[Response]  # R of them, ordered by prompt, then sample
    stats: Sequence[TokenStats] | None = None  # one per response
    evidence: Evidence | None = None
    phases: PhaseCounts | None = None
    text: TextFigures | None = None  # None: not looked at yet
    neurons: int | None = None  # of the model: layers times units
    rows: SparseRows | None = None
    analyses: Sequence[ResponseAnalysis] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage: generate, capture, score


@dataclass(frozen=True)
class Estimate:
    """A measure's value for one variant, and how far it can be trusted."""

    value: float | None  # None: undefined for these responses
    low: float | None = None  # 95 % bootstrap interval over prompts; None: one prompt, or the measure has none
    high: float | None = None
    beats_parent: float | None = None  # confidence that it beats the best parent, see measures.estimates
    beats_equal: float | None = None  # and the merge with equal weights


@dataclass(frozen=True)
class Variant:
    """One member of a pool: base, a parent, or a merge that answered."""

    trial: str
    kind: str  # base | parent | merge
    complete: bool  # False: collapsed
    observation: Observation
    is_reference: bool = False  # the merge with equal weights
    score: NexScore | None = None  # as last computed; phases and cycles in it are those of `observation`
    recorded: Mapping[str, float | None] = field(default_factory=dict)  # values by measure, as the trial wrote them

    @property
    def number(self) -> int | None:
        """Of a merge, the study's trial number."""
        return int(self.trial) if self.kind == "merge" else None
