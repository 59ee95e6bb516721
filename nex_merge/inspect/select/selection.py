"""`nex-merge select`: questions + model -> every selector's pick, and its accuracy. Composes the stages.

Responses are given or drawn, captured once, and chosen among by all selectors. An empty response is no candidate to any
of them: it ranks last, and a random choice that falls on it is wrong.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from transformers import PreTrainedModel

from nex_merge.activations.capture import capture
from nex_merge.engines.checkpoint import load_checkpoint
from nex_merge.generation import generate
from nex_merge.inspect.select.pool import Pool
from nex_merge.inspect.select.questions import Question, SelectConfig, encode_texts
from nex_merge.inspect.select.rules import similarities
from nex_merge.inspect.select.selectors import Candidates, score_sets
from nex_merge.labels.benchmark import concluded
from nex_merge.nex.calibration import analyse, stack_credits
from nex_merge.records import Credits, NeuronWeights, Response, SparseGroups, TokenStats
from nex_merge.setup.config import ActivationsConfig
from nex_merge.setup.prompts import encode_prompts
from nex_merge.study.trial import check_context

Note = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What one pass over R responses gives; an empty response has no neurons, no credit and no statistics."""

    base: SparseGroups  # one group per response
    credits: Credits
    stats: Sequence[TokenStats | None]


@dataclass(frozen=True)
class Selection:
    """All candidates with what selectors score them, and (where answers are known) whether they are right."""

    drawn: bool
    responses: Sequence[Response]  # ordered by prompt, then as given or drawn
    candidates: Candidates
    scores: Mapping[str, Sequence[np.ndarray]]  # selector -> float64 [n] for every prompt
    right: np.ndarray | None  # bool [R]
    seconds: Mapping[str, float]


def select(
    model: str,
    questions: Sequence[Question],
    config: SelectConfig,
    match: str,
    rho: float,
    min_run: int,
    calibration: str,
    weights: NeuronWeights | None,
    note: Note,
) -> Selection:
    """Take the responses given, or draw them where there are none; capture them; score them under every selector.

    `weights`: neuron weights to use instead of a calibration. Raises InputError for what is wrong with the model.
    """
    drawn = not questions[0].texts
    _, loaded, tokenizer = load_checkpoint(model, config.runtime)
    ids = encode_prompts([question.prompt for question in questions], tokenizer, config.prompts)
    seconds: dict[str, float] = {}
    if drawn:
        generation = config.generation
        check_context(ids, generation.max_new_tokens, loaded.config)
        at = f"temperature {generation.temperature:g}"
        note(f"drawing {generation.samples} responses to each of {len(ids)} prompts at {at}")
        with _timed("draw", seconds):
            responses = generate(loaded, tokenizer, ids, generation)
    else:
        responses = encode_texts(questions, ids, tokenizer, getattr(loaded.config, "max_position_embeddings", None))
    note(f"reading {len(responses)} responses, {sum(len(r.token_ids) for r in responses)} tokens")
    measured = measure(loaded, responses, config.activations, rho, min_run, seconds)
    with _timed("choose", seconds):
        conclusions = [conclusion_of(response, match, drawn and config.prompts.thinking) for response in responses]
        candidates = gather(responses, measured, conclusions, calibration, weights)
        scores = {name: [s[0] for s in own] for name, own in score_sets(candidates, candidates.whole()).items()}
    return Selection(drawn, responses, candidates, scores, judge(questions, responses, conclusions), seconds)


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def is_empty(response: Response) -> bool:
    return not response.text.strip() or not response.token_ids


def measure(
    model: PreTrainedModel,
    responses: Sequence[Response],
    activations: ActivationsConfig,
    rho: float,
    min_run: int,
    seconds: dict[str, float],
) -> Measured:
    """Capture the responses and find what their neurons earned; `seconds` is told how long either took."""
    present = np.array([not is_empty(response) for response in responses])
    with _timed("capture", seconds):
        cache, found = capture(model, [r for r, there in zip(responses, present, strict=True) if there], activations)
    with _timed("credit", seconds):
        credits = stack_credits(analyse(cache, rho, min_run))

    def spread(ptr: np.ndarray) -> np.ndarray:
        lengths = np.zeros(len(responses), np.int64)
        lengths[present] = np.diff(ptr)
        return np.concatenate([[0], np.cumsum(lengths)])

    stats = iter(found)
    return Measured(
        SparseGroups(spread(cache.base.ptr), cache.base.keys, cache.base.masses),
        Credits(spread(credits.ptr), credits.keys, credits.effective, credits.redundant),
        [next(stats) if there else None for there in present],
    )


def conclusion_of(response: Response, match: str, thinking: bool) -> str | float | None:
    """What a response concludes; None for one that has not finished thinking. `thinking`: all that is cut has not."""
    unfinished = "<think>" in response.text or (thinking and response.truncated)
    return None if unfinished and "</think>" not in response.text else concluded(match, response.text)


def judge(
    questions: Sequence[Question], responses: Sequence[Response], conclusions: Sequence[str | float | None]
) -> np.ndarray | None:
    """Whether each response is right, bool [R]; None where answers are not known."""
    items = [question.item for question in questions]
    if items[0] is None:
        return None
    return np.array(
        [
            said is not None and (item := items[response.prompt]) is not None and item.is_right(response.text)
            for response, said in zip(responses, conclusions, strict=True)
        ]
    )


def gather(
    responses: Sequence[Response],
    measured: Measured,
    conclusions: Sequence[str | float | None],
    calibration: str = "pool",
    weights: NeuronWeights | None = None,
) -> Candidates:
    """Responses, ordered by prompt, as candidates."""
    prompts = np.array([response.prompt for response in responses])
    numbers: dict[tuple[int, str | float], int] = {}
    said = [
        -1 if value is None else numbers.setdefault((response.prompt, value), len(numbers))
        for response, value in zip(responses, conclusions, strict=True)
    ]
    empty = np.array([is_empty(response) for response in responses])
    stats = measured.stats
    sets = [measured.base.group(i)[0] for i in range(len(responses))]
    bounds = np.searchsorted(prompts, np.arange(prompts[-1] + 2))
    return Candidates(
        prompts=prompts,
        tokens=np.where(empty, np.nan, [len(response.token_ids) for response in responses]),
        entropy=np.array([np.nan if item is None else item.entropy for item in stats]),
        self_certainty=np.array([np.nan if item is None else item.self_certainty for item in stats]),
        neurons=np.where(empty, np.nan, [len(own) for own in sets]),
        conclusions=np.array(said),
        similarity=tuple(similarities(sets[a:b]) for a, b in pairwise(bounds)),
        pool=Pool(measured.base, measured.credits),
        calibration=calibration,
        weights=weights,
    )
