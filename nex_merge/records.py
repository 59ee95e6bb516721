"""The frozen records that pass between stages. Read this first. NumPy only; no behaviour beyond trivial views.

Symbols: R responses, T rows of all responses, E entries, G groups. A *neuron* is one unit of one gated MLP, its key
`layer << 16 | unit` (uint32). A *row* is a run of consecutive generated tokens. *Mass* is summed positive score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RESERVED_LAYER = 255


@dataclass(frozen=True)
class Prompt:
    """One unlabelled prompt as the chat messages it stands for; `raw` text bypasses the chat template."""

    messages: tuple[Mapping[str, str], ...]
    raw: str | None = None


@dataclass(frozen=True)
class Response:
    """What one model generated for one prompt."""

    prompt: int  # index of the prompt
    sample: int  # 0 .. samples-1
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]  # generated tokens, the end token included if it was emitted
    text: str
    truncated: bool  # stopped by max_new_tokens, not by an end token


@dataclass(frozen=True)
class TokenStats:
    """Means over the generated tokens of one response, from the capture pass. Natural logarithms.

    p is the next-token distribution over V tokens.
    """

    entropy: float  # mean of H(p), nats
    entropy_spread: float  # standard deviation of H(p) over the tokens, nats
    self_certainty: float  # mean of KL(uniform || p) = -log V - mean_j log p_j, nats (arXiv 2502.18581)
    logprob: float  # mean log-probability of the emitted tokens


@dataclass(frozen=True)
class TextMeasures:
    """What the responses look like as text: means over responses, each between 0 and 1."""

    truncated: float  # cut by max_new_tokens
    distinct_ratio: float  # distinct token 4-grams / all of them
    repeated: float  # share of a response's tokens in its longest run of one block said four times or more
    empty: float  # nothing but blanks
    non_text: float  # share of characters that no text has


@dataclass(frozen=True)
class Rivals:
    """The simple label-free scores that come from the same responses and the same pass; means over responses."""

    mean_tokens: float
    entropy: float  # nats
    entropy_spread: float  # standard deviation over a response's tokens, nats
    self_certainty: float  # nats
    perplexity: float  # exp of the mean negative log-probability
    utilization: float  # distinct neurons of a response / all neurons of the model
    novelty: float | None  # new neurons per token, mean over a response's rows; None: no response is long enough


# What a variant can be ranked by, and which way: +1, more is better. NEX as defined; the rest as they are usually read.
SCORES: Mapping[str, int] = {
    "nex": 1, "mean_tokens": -1, "entropy": -1, "entropy_spread": -1, "self_certainty": 1, "perplexity": -1,
    "utilization": -1, "novelty": -1, "explore_share": -1, "cycles_per_response": 1,
}  # fmt: skip


@dataclass(frozen=True)
class SparseGroups:
    """Sparse maps neuron -> mass, one per group. Keys are ascending and unique within a group."""

    ptr: np.ndarray  # int64 [G+1]: entries of group g are [ptr[g], ptr[g+1])
    keys: np.ndarray  # uint32 [E]
    masses: np.ndarray  # float16 [E]

    def group(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(keys uint32 [n], masses float32 [n]) of one group."""
        low, high = self.ptr[index], self.ptr[index + 1]
        return np.asarray(self.keys[low:high]), np.asarray(self.masses[low:high]).astype(np.float32)


@dataclass(frozen=True)
class SparseRows:
    """The activation cache of one model over its responses."""

    sample_row_ptr: np.ndarray  # int64 [R+1]: rows of response i are [p[i], p[i+1])
    token_row_ptr: np.ndarray  # int64 [T+1]: tokens of row t are p[t+1] - p[t]
    rows: SparseGroups  # one group per row
    base: SparseGroups  # one group per response: its rows summed

    @property
    def responses(self) -> int:
        return len(self.sample_row_ptr) - 1


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
    fallback: str | None  # why z > 0 stood in for the HMM, or None


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
    """The credit of every response of one model: sparse, one group per response. Any calibration is a sum of these."""

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
    """What a model's score is made of, response by response: whose weights they are scored under is open."""

    prompts: np.ndarray  # int64 [R]: the prompt that each response answers
    base: SparseGroups  # one group per response: its neurons and their masses
    credits: Credits


@dataclass(frozen=True)
class ResponseAnalysis:
    """Everything NEX finds in one response before weights are known; None where the response is too short."""

    novelty: Novelty | None
    phases: Phases | None
    cycles: tuple[Cycle, ...]
    credit: Credit


@dataclass(frozen=True)
class NeuronWeights:
    """w in [-1, 1] of the neurons with credit; every other neuron has 0."""

    keys: np.ndarray  # uint32 [n], ascending
    weights: np.ndarray  # float32 [n]


@dataclass(frozen=True)
class NexScore:
    """A model's score with what it rests on."""

    nex: float | None  # mean Good-Mass Fraction; None: no response has retained mass
    log_gap: float | None
    low: float | None  # 95 % bootstrap interval over prompts; weights from the responses themselves are drawn anew
    high: float | None
    calibration: str  # whose credit the weights come from
    response_scores: tuple[float | None, ...]
    responses: int
    scored: int  # responses with a defined score
    cycles: int
    credited: int  # responses that earned credit
    explore_share: float | None  # explore rows / retained rows
    fallbacks: Mapping[str, int]  # how often each fallback stood in for the HMM
    weighted_mass: float | None = None  # share of the activation mass on neurons with a weight
    saturation: float | None = None  # share of that mass on weights beyond 0.99, as only one kind of credit gives
    beats_parent: float | None = None  # probability that it beats the best parent, over resampled prompts


@dataclass(frozen=True)
class Reliability:
    """Whether the scores of a run can carry a ranking, and the figures that say so; medians over the variants."""

    verdict: str  # sound | weak | insufficient
    reasons: tuple[str, ...]
    advice: tuple[str, ...]  # what would make it better
    variants: int
    prompts: int
    split_half: float | None  # reliability of the ranking over halves of the prompts; None: too few variants
    cycles_per_response: float
    credited: float  # share of responses that earned credit
    weighted_mass: float | None  # share of the activation mass on neurons with a weight
    saturation: float | None  # share of that mass on weights beyond 0.99
    beats_parent: float | None  # probability that the best merge beats the best parent, over resampled prompts
    follows_length: float | None  # Spearman of NEX and mean tokens over the variants; None: too few, or no differences


@dataclass(frozen=True)
class MergeRecipe:
    """One variant: a complete mergekit configuration and the seed that its stochastic parts take."""

    kind: str  # base | parent | merge
    method: str
    config: Mapping[str, Any]  # as `mergekit-yaml` takes it
    seed: int
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what was searched, by name


@dataclass(frozen=True)
class TrialResult:
    """One row of the leaderboard. A failed trial has a reason and no score."""

    trial: str  # base, a parent's name, or the study's trial number in four digits
    kind: str
    name: str  # base, the parent's name, or the method
    method: str
    seed: int
    state: str  # complete | collapsed | failed | duplicate
    reason: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    score: NexScore | None = None
    text: TextMeasures | None = None
    rivals: Rivals | None = None
    violation: float | None = None  # above 0: collapsed, or beyond the token budget; told to the sampler
    weights_sha256: str | None = None  # of the merged tensors that were scored
    seconds: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    accuracy_low: float | None = None  # 95 % binomial interval
    accuracy_high: float | None = None
    accuracy_source: str | None = None
    same_as: str | None = None  # of a duplicate: the earlier trial with the same recipe

    def value(self, name: str) -> float | None:
        """One of SCORES, None where it is not known."""
        if name == "nex":
            return self.score.nex if self.score is not None else None
        if name == "explore_share":
            return self.score.explore_share if self.score is not None else None
        if name == "cycles_per_response":
            return self.score.cycles / max(self.score.responses, 1) if self.score is not None else None
        return getattr(self.rivals, name) if self.rivals is not None else None


@dataclass(frozen=True)
class Live:
    """What a search is at, told while it runs. Times are seconds since the epoch."""

    done: int  # trials, base and parents among them
    total: int
    trial: str
    method: str
    stage: str  # merge | generate | capture | score
    amount: int  # tokens generated, or responses captured, of this stage
    stage_began: float
    trial_began: float
    told: float
    host: str
    process: int


def concatenate_groups(parts: Sequence[SparseGroups]) -> SparseGroups:
    """The groups of all parts, in order."""
    offsets = np.cumsum([0, *(part.ptr[-1] for part in parts)])
    ptr = [np.zeros(1, np.int64), *(part.ptr[1:] + offset for part, offset in zip(parts, offsets, strict=False))]
    return SparseGroups(
        np.concatenate(ptr),
        np.concatenate([np.zeros(0, np.uint32), *(part.keys for part in parts)]),
        np.concatenate([np.zeros(0, np.float16), *(part.masses for part in parts)]),
    )


@dataclass(frozen=True)
class MethodParameter:
    """One parameter of a merge method, as mergekit's registry declares it."""

    name: str
    type: str  # float | int | bool
    per_model: bool  # each model takes its own value; otherwise one value for all
    required: bool
    default: Any


@dataclass(frozen=True)
class MethodSpec:
    """What a merge method takes. `pairs`: exactly two models, so that which two is searched as well."""

    name: str
    title: str
    parameters: Mapping[str, MethodParameter]
    names_base: bool  # the family's base is the recipe's base_model
    pairs: bool
    ordered: bool  # a pair the other way round is another recipe
    min_models: int  # fewest models besides the base
    stochastic: bool  # draws random masks


@dataclass(frozen=True)
class Dimension:
    """The values one parameter may take: a fixed value, choices, or a range from low to high."""

    type: str  # float | int | bool | str
    fixed: Any = None
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    @property
    def searched(self) -> bool:
        return self.choices is not None or self.low is not None


@dataclass(frozen=True)
class SearchSpace:
    """What is searched: methods, and the dimensions of their parameters, shared or narrower for one model."""

    methods: tuple[MethodSpec, ...]
    parameters: Mapping[str, Dimension]
    models: Mapping[str, Mapping[str, Dimension]]
    layer_groups: int
    filters: tuple[str, ...]

    def dimension(self, parameter: str, model: str | None) -> Dimension | None:
        """The dimension of a parameter, of one model's own value where `model` is given."""
        own = self.models.get(model, {}) if model is not None else {}
        return own.get(parameter, self.parameters.get(parameter))
