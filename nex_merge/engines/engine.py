"""What a search asks of a model, and `observe`: the one way from prompts to what is known of the answers.

An engine holds one resident model. transformers is the one implementation; tests use a fake of ten lines.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nex_merge.nex.calibration import analyse, count_phases, stack_credits
from nex_merge.records import Evidence, MergeRecipe, Observation, Prompt, Response, SparseRows, TokenStats
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig, PromptsConfig

# Called with the stage at work (merge, generate, capture, score) and how far it is (tokens, responses).
Notify = Callable[[str, int], None]


def quiet(stage: str, amount: int) -> None:
    """A `Notify` that does nothing."""


@dataclass(frozen=True)
class Captured:
    """What a model's neurons did while it read R responses."""

    rows: SparseRows
    stats: Sequence[TokenStats]  # R
    neurons: int  # of the model: layers times units


class Engine(Protocol):
    """One resident model that answers prompts."""

    def load(self, recipe: MergeRecipe) -> str:
        """Make the model a variant; the SHA-256 of its tensors.

        Raises TrialError where the recipe can't be merged or gives tensors that are not finite.
        """
        ...

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        """Token ids of the prompts. Raises InputError where one leaves no room for `max_new_tokens` in the context."""
        ...

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
    ) -> list[Response]:
        """One response per prompt and sample, ordered by prompt, then sample.

        `drafts`: other models' responses to the same prompts, which may speed this up and change no token. `notify` is
        called with the number of tokens of each step. Raises TrialError where logits are not finite.
        """
        ...

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        """Read responses, the model's own or others, and keep what its neurons do."""
        ...

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """The logits after every token, float32 [tokens, vocabulary]."""
        ...


@dataclass(frozen=True)
class ObserveSettings:
    """How answers are made and looked at."""

    generation: GenerationConfig
    activations: ActivationsConfig | None  # None: answers only, nothing is captured
    phases: PhasesConfig


def observe(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    settings: ObserveSettings,
    drafts: Sequence[Response] = (),
    responses: Sequence[Response] | None = None,
    notify: Notify = quiet,
) -> Observation:
    """Answer, capture, analyse: what the engine's present model does with the prompts, as token ids.

    `responses`: given ones, which are read instead of answering. Raises TrialError as `Engine.answer` does.
    """
    seconds: dict[str, float] = {}
    # 1. Answer the prompts.
    if responses is None:
        with timed("generate", seconds, notify):
            total = 0

            def generated(tokens: int) -> None:
                nonlocal total
                total += tokens
                notify("generate", total)

            responses = engine.answer(prompts, settings.generation, drafts, generated)
    if settings.activations is None:
        return Observation(responses, seconds=seconds)
    # 2. Read the responses and keep what the neurons do.
    with timed("capture", seconds, notify):
        captured = engine.capture(responses, settings.activations, lambda done: notify("capture", done))
    # 3. Find the phases, and the credit of every response's neurons: additive, so that any calibration is a sum.
    with timed("score", seconds, notify):
        analyses = analyse(captured.rows, settings.phases.rho, settings.phases.min_run)
        evidence = Evidence(
            np.array([response.prompt for response in responses], np.int64),
            captured.rows.base,
            stack_credits(analyses),
        )
    return Observation(
        responses=responses,
        stats=captured.stats,
        evidence=evidence,
        phases=count_phases(analyses),
        neurons=captured.neurons,
        rows=captured.rows,
        analyses=analyses,
        seconds=seconds,
    )


@contextmanager
def timed(stage: str, seconds: dict[str, float], notify: Notify = quiet) -> Iterator[None]:
    """Announce a stage and note how long it takes, in seconds."""
    notify(stage, 0)
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
