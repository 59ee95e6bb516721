"""One model's responses with everything measured on them, and the variants of a pool.

Symbols: R responses to P prompts. An `Observation` is made by `engines.observe` while the model is in memory, or
read from a run folder later. A `Variant` adds the trial that it belongs to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nex_merge.records.activations import SparseRows
from nex_merge.records.answers import Response, TextFigures, TokenStats
from nex_merge.records.scores import Evidence, NexScore, ResponseAnalysis


@dataclass(frozen=True)
class PhaseCounts:
    """NEX phase statistics of each of R responses. A response too short for phases has `phased` 0."""

    cycles: np.ndarray  # int64 [R]
    credited: np.ndarray  # bool [R]: whether any neuron earned credit
    explore: np.ndarray  # int64 [R]: explore rows
    phased: np.ndarray  # int64 [R]: rows with a phase
    novelty: np.ndarray  # float64 [R]: new neurons per token, mean over rows with a phase; NaN if none


@dataclass(frozen=True, eq=False)
class Observation:
    """One model's responses to the prompts, and the activations captured while it read them.

    Compared by identity, so that what is read from its responses can be kept with it.

    `stats`, `evidence` and `phases` are None if activations were not captured. `rows` and `analyses`, which are large
    and quick to recompute, are None when read from a run folder.
    """

    responses: Sequence[Response]  # R of them, ordered by prompt, then sample
    stats: Sequence[TokenStats] | None = None  # one per response
    evidence: Evidence | None = None
    phases: PhaseCounts | None = None
    text: TextFigures | None = None  # None: not computed yet
    neurons: int | None = None  # number of neurons in the model: layers * units
    rows: SparseRows | None = None
    analyses: Sequence[ResponseAnalysis] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage: generate, capture, score


@dataclass(frozen=True)
class Questions:
    """What is known of the prompts besides their text. Indices of prompts as in `Response.prompt`."""

    options: Mapping[int, int] = field(default_factory=dict)  # how many options a multiple-choice question has
    truths: Mapping[int, str | None] = field(default_factory=dict)  # the right conclusion, from an audit; None: of all
    # that variants conclude, none is right
    match: str | None = None  # how the truths were read; None: there are none


@dataclass(frozen=True)
class Estimate:
    """A measure's value for one variant, with its interval and confidences (see `measures.estimates`)."""

    value: float | None  # None: undefined for these responses
    low: float | None = None  # 95 % bootstrap interval over prompts; None: one prompt, or the measure has none
    high: float | None = None
    # Confidence that it beats base and every parent, and the merge with equal weights, corrected for selection among
    # merges. Under a range of beliefs (`Measure.beliefs`), the lowest; `most` is the highest, None without a range.
    beats_parent: float | None = None
    beats_equal: float | None = None
    beats_parent_most: float | None = None
    beats_equal_most: float | None = None


@dataclass(frozen=True)
class Variant:
    """One member of a pool: the base, a parent or a merge, with its responses."""

    trial: str
    kind: str  # base | parent | merge
    complete: bool  # False: infeasible, collapsed or pruned
    observation: Observation
    is_reference: bool = False  # the merge with equal weights
    score: NexScore | None = None  # as last computed, with the phases and cycles of `observation`
    recorded: Mapping[str, float | None] = field(default_factory=dict)  # values by measure, as written by the trial
    lost_to: str | None = None  # if pruned: the trial that it was unlikely to overtake

    @property
    def number(self) -> int | None:
        """A merge's trial number in the study; None for base and parents."""
        return int(self.trial) if self.kind == "merge" else None
