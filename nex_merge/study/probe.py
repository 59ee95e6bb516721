"""How long a search takes at most, from ten tokens and one merge that are timed where it will run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nex_merge.engines.contracts import Engine
from nex_merge.records import MergeRecipe, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig

Result = TypeVar("Result")

TOKENS = 10
# Tokens of a prompt that the probe reads: to read prompts whole would take minutes where a model is large.
READ = 16
# Responses that are captured, and their tokens.
CAPTURED, LONG = 4, 256
TIMES = 3


@dataclass(frozen=True)
class Bound:
    """Seconds of one trial at most, by stage."""

    merge: float
    generate: float
    capture: float

    @property
    def seconds(self) -> float:
        return self.merge + self.generate + self.capture


def probe(
    engine: Engine,
    recipe: MergeRecipe,
    prompts: Sequence[Sequence[int]],
    generation: GenerationConfig,
    at_once: int,
    activations: ActivationsConfig | None,
) -> Bound:
    """Time a merge, ten tokens of a batch and a few captures, and reckon with a whole trial. Loads other weights.

    `prompts`: token ids. `at_once`: responses of a batch. `activations`: None if none are captured. The bound takes
    every response to be as long as it may, no draft to be right, and no response to join a running batch. It leaves
    out that passes take longer the more they look back at.
    """
    responses = len(prompts) * generation.samples
    batches = -(-responses // at_once)
    short = [list(ids[-READ:]) for ids in prompts[: max(1, at_once // generation.samples)]]
    read = sum(map(len, short)) * generation.samples

    def answered(tokens: int) -> tuple[float, list[Response]]:
        return _quickest(lambda: engine.answer(short, generation.model_copy(update={"max_new_tokens": tokens})))

    began = time.perf_counter()
    engine.load(recipe)
    merge = time.perf_counter() - began
    one, _ = answered(1)
    ten, found = answered(TOKENS)
    passes = max(len(response.token_ids) for response in found)
    whole = sum(map(len, prompts)) * generation.samples
    # The first pass reads prompts and takes longer; that it counts as one of ten keeps the bound a bound.
    generate = one / read * whole + batches * generation.max_new_tokens * ten / passes
    capture = 0.0
    if activations is not None:
        long = [_lengthened(response, min(generation.max_new_tokens, LONG)) for response in found[:CAPTURED]]
        seconds, _ = _quickest(lambda: engine.capture(long, activations))
        capture = seconds / _tokens(long) * (whole + responses * generation.max_new_tokens)
    return Bound(merge, generate, capture)


def _quickest(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of the quickest of a few times, and its result: others wait for what else runs, or set something up."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        result = work()
        found.append((time.perf_counter() - began, result))
    return min(found, key=lambda timed: timed[0])


def _lengthened(response: Response, tokens: int) -> Response:
    """A response that says the same again and again: a short one takes little longer than none."""
    return replace(response, token_ids=(response.token_ids * tokens)[:tokens])


def _tokens(responses: Sequence[Response]) -> int:
    return sum(len(response.prompt_ids) + len(response.token_ids) for response in responses)
