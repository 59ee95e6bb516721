"""The protocol `Engine`, and `observe`, which makes an `Observation` of the model's responses to prompts.

An engine holds one resident model. `transformers.py` has the only implementation; tests use a small fake.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nex_merge.nex.calibration import analyse, count_phases, stack_credits
from nex_merge.records import Evidence, MergeRecipe, Observation, Prompt, Response, SparseRows, TokenStats
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig, PromptsConfig

# Called with the current stage (merge, generate, capture, score) and its progress in tokens or responses.
Notify = Callable[[str, int], None]


def quiet(stage: str, amount: int) -> None:
    """A `Notify` that does nothing."""


@dataclass(frozen=True)
class Captured:
    """The activations of a model while it read R responses."""

    rows: SparseRows
    stats: Sequence[TokenStats]  # R
    neurons: int  # number of neurons in the model: layers * units


class Engine(Protocol):
    """One resident model."""

    def load(self, recipe: MergeRecipe) -> str:
        """Merge a recipe into the resident model. Returns the SHA-256 of its tensors.

        Raises TrialError if the recipe can't be merged or gives tensors that are not finite.
        """
        ...

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        """Token ids of the prompts. Raises InputError if one leaves no room for `max_new_tokens` in the context."""
        ...

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
        only: Collection[int] | None = None,
    ) -> list[Response]:
        """One response per prompt and sample, ordered by prompt, then sample.

        `drafts`: other models' responses to the same prompts, for speculative decoding; they change no token. `notify`
        is called with the number of tokens of each step. `only`: answer these of the prompts, with the tokens that they
        get among all of them. Raises TrialError if logits are not finite.
        """
        ...

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        """Read responses, of this model or another, and capture the activations."""
        ...

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """The logits after every token, float32 [tokens, vocabulary]."""
        ...


@dataclass(frozen=True)
class ObserveSettings:
    """How responses are generated and analysed."""

    generation: GenerationConfig
    activations: ActivationsConfig | None  # None: responses only, nothing is captured
    phases: PhasesConfig


def observe(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    settings: ObserveSettings,
    drafts: Sequence[Response] = (),
    responses: Sequence[Response] | None = None,
    notify: Notify = quiet,
) -> Observation:
    """Generate responses to the prompts (token ids) with the resident model, capture its activations, analyse them.

    `responses`: read these instead of generating. Raises TrialError as `Engine.answer` does.
    """
    seconds: dict[str, float] = {}
    # 1. Generate responses.
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
    # 2. Read the responses and capture activations.
    with timed("capture", seconds, notify):
        captured = engine.capture(responses, settings.activations, lambda done: notify("capture", done))
    # 3. Phases, and credit by response: it is additive, so any calibration is a sum.
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
    """Announce a stage and record its duration in seconds."""
    notify(stage, 0)
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
