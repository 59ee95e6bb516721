"""`nex-merge select`: questions and a model to the pick of every selector.

Candidates are given responses, or samples from the model. Selectors treat an empty response as no candidate: it ranks
last, and counts as wrong for a random choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from nex_merge.answers.conclusions import Key, conclude, is_unfinished
from nex_merge.engines.contracts import Engine
from nex_merge.engines.observe import ObserveSettings, observe, timed
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.inspect.models import ModelConfig
from nex_merge.inspect.select.question_file import Question, encode_texts
from nex_merge.inspect.select.rules import similarities
from nex_merge.inspect.select.selectors import CandidatePool, Candidates, score_sets
from nex_merge.labels.items import judge
from nex_merge.records import Credits, NeuronWeights, Response, SparseGroups, TokenStats
from nex_merge.setup.config import PhasesConfig
from nex_merge.wording import counted

Log = Callable[[str], None]


@dataclass(frozen=True)
class CandidateEvidence:
    """What was captured from R candidates. An empty one has no neurons, no credit and no statistics."""

    base: SparseGroups  # one group per candidate
    credits: Credits
    stats: Sequence[TokenStats | None]
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage: capture, score


@dataclass(frozen=True)
class Selection:
    """All candidates, their scores under every selector, and whether they are correct if that is known."""

    sampled: bool  # False: the candidates were given
    responses: Sequence[Response]  # ordered by prompt, then sample
    candidates: Candidates
    scores: Mapping[str, Sequence[np.ndarray]]  # by selector: one float64 [n] per prompt
    right: np.ndarray | None  # bool [R]
    seconds: Mapping[str, float]


def select(
    model: str,
    questions: Sequence[Question],
    config: ModelConfig,
    match: str,
    phases: PhasesConfig,
    calibration: str,
    weights: NeuronWeights | None,
    log: Log,
) -> Selection:
    """Score the candidates of every question under every selector.

    Questions without texts are answered by the model first. `weights`: neuron weights to use instead of a calibration.
    Raises InputError if the model can't be used.
    """
    sampled = not questions[0].texts
    engine = CheckpointEngine(model, config.runtime)
    generation, prompts = config.generation, [question.prompt for question in questions]
    seconds: dict[str, float] = {}
    # 1. The candidates.
    if sampled:
        ids = engine.encode(prompts, config.prompts, generation.max_new_tokens)
        log(
            f"sampling {counted(generation.samples, 'response')} to each of {counted(len(ids), 'prompt')} at "
            f"temperature {generation.temperature:g}"
        )
        observed = observe(engine, ids, ObserveSettings(generation, None, phases))
        responses = observed.responses
        seconds |= observed.seconds
    else:
        ids = engine.encode(prompts, config.prompts, 0)
        responses = encode_texts(questions, ids, engine.resident.tokenizer, engine.resident.context)
    # 2. Their neurons.
    tokens = sum(len(response.token_ids) for response in responses)
    log(f"capturing {counted(len(responses), 'response')}, {counted(tokens, 'token')}")
    evidence = observe_candidates(engine, responses, ObserveSettings(generation, config.activations, phases))
    seconds |= evidence.seconds
    # 3. Their scores.
    thinking, right = sampled and config.prompts.thinking, None
    with timed("select", seconds):
        conclusions = [
            None if r.truncated else conclusion_of(r, match, thinking, prompts[r.prompt].options) for r in responses
        ]
        candidates = build_candidates(responses, evidence, conclusions, calibration, weights)
        found = score_sets(candidates, candidates.whole())
    items = [question.item for question in questions if question.item is not None]
    if items:
        right = np.array(judge([items[response.prompt] for response in responses], responses, thinking))
    scores = {name: [by_set[0] for by_set in by_prompt] for name, by_prompt in found.items()}
    return Selection(sampled, responses, candidates, scores, right, seconds)


def is_empty(response: Response) -> bool:
    return not response.text.strip() or not response.token_ids


def observe_candidates(engine: Engine, responses: Sequence[Response], settings: ObserveSettings) -> CandidateEvidence:
    """Capture the candidates that are not empty."""
    present = np.array([not is_empty(response) for response in responses])
    captured = [response for response, there in zip(responses, present, strict=True) if there]
    observed = observe(engine, [], settings, responses=captured)
    assert observed.evidence is not None and observed.stats is not None
    base, credits = observed.evidence.base, observed.evidence.credits

    def spread(ptr: np.ndarray) -> np.ndarray:
        """The pointers of all candidates, of which the empty ones have no entries."""
        lengths = np.zeros(len(responses), np.int64)
        lengths[present] = np.diff(ptr)
        return np.concatenate([[0], np.cumsum(lengths)])

    stats = iter(observed.stats)
    return CandidateEvidence(
        SparseGroups(spread(base.ptr), base.keys, base.masses),
        Credits(spread(credits.ptr), credits.keys, credits.effective, credits.redundant),
        [next(stats) if there else None for there in present],
        observed.seconds,
    )


def conclusion_of(response: Response, match: str, thinking: bool, options: int | None = None) -> Key | None:
    """The conclusion of a response; None if it has none, or its thinking is unfinished (see `is_unfinished`)."""
    unfinished = is_unfinished(response.text, response.truncated, thinking)
    return None if unfinished else conclude(response.text, match, options)


def build_candidates(
    responses: Sequence[Response],
    evidence: CandidateEvidence,
    conclusions: Sequence[Key | None],
    calibration: str = "pool",
    weights: NeuronWeights | None = None,
) -> Candidates:
    """The candidates of responses, which are ordered by prompt."""
    prompts = np.array([response.prompt for response in responses])
    numbers: dict[tuple[int, Key], int] = {}
    numbered = [
        -1 if value is None else numbers.setdefault((response.prompt, value), len(numbers))
        for response, value in zip(responses, conclusions, strict=True)
    ]
    empty, stats = np.array([is_empty(response) for response in responses]), evidence.stats
    neurons = [evidence.base.group(i)[0] for i in range(len(responses))]
    bounds = np.searchsorted(prompts, np.arange(prompts[-1] + 2))
    return Candidates(
        prompts=prompts,
        tokens=np.where(empty, np.nan, [len(response.token_ids) for response in responses]),
        entropy=np.array([np.nan if item is None else item.entropy for item in stats]),
        self_certainty=np.array([np.nan if item is None else item.self_certainty for item in stats]),
        neurons=np.where(empty, np.nan, [len(keys) for keys in neurons]),
        conclusions=np.array(numbered),
        similarity=tuple(similarities(neurons[a:b]) for a, b in pairwise(bounds)),
        pool=CandidatePool(evidence.base, evidence.credits),
        calibration=calibration,
        weights=weights,
    )
