"""The intermediate results of NEX up to the score, and the reliability of a run's scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from nex_merge.records.activations import SparseGroups


@dataclass(frozen=True)
class Novelty:
    """Steps 0 to 2 of NEX for one response. t counts its K retained rows."""

    kept_rows: np.ndarray  # int64 [K]: row numbers within the response
    slopes: np.ndarray  # float32 [K]: new neurons per token
    observations: np.ndarray  # float64 [K]: detrended, standardized
    zero_spread: bool  # MAD 0 or not finite: phases fall back to z > 0
    row_ptr: np.ndarray  # int64 [K+1]: entries of retained row t
    keys: np.ndarray  # uint32 [E]: keys of the retained rows, in order
    masses: np.ndarray  # float32 [E]: finite and non-negative
    is_new: np.ndarray  # bool [E]: first occurrence of its key in this response


@dataclass(frozen=True)
class Phases:
    """Step 3 of NEX for one response."""

    explore: np.ndarray  # bool [K]
    fallback: str | None  # why z > 0 was used instead of the HMM, or None


@dataclass(frozen=True)
class Cycle:
    """A maximal explore run and the exploit run after it, in retained rows, both ends included."""

    first_explore: int
    last_explore: int
    first_exploit: int
    last_exploit: int
    strength: float
    consolidation: float
    reuse: float | None  # None: undefined
    effective: float  # scale of the effective credit, 0 if none
    redundant: float  # scale of the redundant credit, 0 if none


@dataclass(frozen=True)
class Credit:
    """Effective and redundant mass per neuron. Additive over responses."""

    keys: np.ndarray  # uint32 [n], ascending
    effective: np.ndarray  # float32 [n]
    redundant: np.ndarray  # float32 [n]


@dataclass(frozen=True)
class Credits:
    """Sparse credit per response of one model. The weights of any calibration come from sums over responses."""

    ptr: np.ndarray  # int64 [R+1]: entries of response i are [ptr[i], ptr[i+1])
    keys: np.ndarray  # uint32 [E], ascending and unique within a response
    effective: np.ndarray  # float32 [E]
    redundant: np.ndarray  # float32 [E]

    def of(self, response: int) -> Credit:
        entries = slice(int(self.ptr[response]), int(self.ptr[response + 1]))
        return Credit(self.keys[entries], self.effective[entries], self.redundant[entries])

    @property
    def responses(self) -> int:
        return len(self.ptr) - 1


@dataclass(frozen=True)
class Evidence:
    """Everything per response that a model's score is computed from, except the neuron weights."""

    prompts: np.ndarray  # int64 [R]: the prompt that each response answers
    base: SparseGroups  # one group per response: its neurons and their masses
    credits: Credits


@dataclass(frozen=True)
class ResponseAnalysis:
    """Everything NEX computes for one response without neuron weights. None: the response is too short."""

    novelty: Novelty | None
    phases: Phases | None
    cycles: tuple[Cycle, ...]
    credit: Credit


@dataclass(frozen=True)
class NeuronWeights:
    """Weights w in [-1, 1] of the neurons with credit; all other neurons have weight 0."""

    keys: np.ndarray  # uint32 [n], ascending
    weights: np.ndarray  # float32 [n]


@dataclass(frozen=True)
class NexScore:
    """A model's NEX score, with the figures behind it."""

    nex: float | None  # mean Good-Mass Fraction; None: no response has retained mass
    log_gap: float | None
    calibration: str  # self | crossfit | parents | pool: whose credit the weights come from
    response_scores: tuple[float | None, ...]
    responses: int
    scored: int  # responses with a defined score
    cycles: int
    credited: int  # responses that earned credit
    explore_share: float | None  # explore rows / retained rows
    fallbacks: Mapping[str, int]  # how often each fallback replaced the HMM
    weighted_mass: float | None = None  # share of the activation mass on neurons with a weight
    saturation: float | None = None  # share of that mass on |w| > 0.99: neurons with one kind of credit only


class Action(Enum):
    """What follows from a piece of advice, as far as a command does it."""

    NONE = "none"
    AUDIT = "label a few answers"
    MORE_MERGES = "search on"
    WITHOUT_RACING = "search without racing"
    HIGHER_LIMIT = "raise generation.max_new_tokens"
    MORE_PROMPTS = "ask more prompts"
    OTHER_PROMPTS = "ask other prompts"
    SHOW_OPTIONS = "show the options of the prompts"
    BENCHMARK = "measure accuracy"


@dataclass(frozen=True)
class Advice:
    """What would improve a verdict."""

    text: str  # completes "what would help: ..."
    action: Action = Action.NONE
    lead: str = ""  # what stands before the command instead of the text; "": the text


@dataclass(frozen=True)
class Verdict:
    """Whether a measure supports a ranking of a pool's variants."""

    level: str  # sound | weak | insufficient
    reasons: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()  # how to improve it
    figures: Mapping[str, float | None] = field(default_factory=dict)  # what it rests on, by name


@dataclass(frozen=True)
class Reliability:
    """Whether the scores of a run support a ranking.

    The first fields are those of NEX, as version 0.1.0 has them (medians over variants); `verdicts` has every measure.
    """

    verdict: str  # sound | weak | insufficient
    reasons: tuple[str, ...]
    advice: tuple[Advice, ...]  # how to improve it
    variants: int
    prompts: int
    split_half: float | None  # reliability of the ranking over halves of the prompts; None: too few variants
    cycles_per_response: float
    credited: float  # share of responses that earned credit
    weighted_mass: float | None  # share of the activation mass on neurons with a weight
    saturation: float | None  # share of that mass on |w| > 0.99
    beats_parent: float | None  # confidence that the best merge by NEX beats base and every parent
    follows_length: float | None  # Spearman of NEX and mean tokens over variants; None: too few or all equal
    split_halves: Mapping[str, float | None] = field(default_factory=dict)  # `split_half` of every measure
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)  # by measure
    match: str | None = None  # how conclusions were read
    complete: int | None = None  # complete variants of the pool, captured or not; None: an older version kept none

    def of(self, measure: str) -> Verdict | None:
        """The verdict on a measure; None where an older version wrote none."""
        return self.verdicts.get(measure)
