"""`observe`, the only place that goes from responses to activations and what NEX makes of them; it can answer, too."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nex_merge.engines.contracts import Engine
from nex_merge.nex.calibration import analyse, count_phases, evidence_of
from nex_merge.records import Observation, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig

# Called with the current stage (merge, generate, capture, score) and its progress in tokens or responses.
Notify = Callable[[str, int], None]


def quiet(stage: str, amount: int) -> None:
    """A `Notify` that does nothing."""


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
    responses: Sequence[Response] | None = None,
    notify: Notify = quiet,
) -> Observation:
    """Generate responses to the prompts (token ids) with the resident model, capture its activations, analyse them.

    `responses`: read these instead of generating. Raises TrialError as `Answers.answer` does.
    """
    seconds: dict[str, float] = {}
    # 1. Generate responses.
    if responses is None:
        responses = answered(engine, prompts, settings.generation, seconds, notify)
    if settings.activations is None:
        return Observation(responses, seconds=seconds)
    # 2. Read the responses and capture activations.
    with timed("capture", seconds, notify):
        captured = engine.capture(responses, settings.activations, lambda done: notify("capture", done))
    # 3. Phases, and credit by response: it is additive, so any calibration is a sum.
    with timed("score", seconds, notify):
        analyses = analyse(captured.rows, settings.phases.rho, settings.phases.min_run)
        evidence = evidence_of(responses, captured.rows.base, analyses)
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


def answered(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    generation: GenerationConfig,
    seconds: dict[str, float],
    notify: Notify,
    drafts: Sequence[Response] = (),
    before: Sequence[Response] = (),
    only: Collection[int] | None = None,
) -> list[Response]:
    """The responses `before`, and those of the resident model, which are timed; arguments as of `Answers.answer`."""
    total = sum(len(response.token_ids) for response in before)

    def generated(tokens: int) -> None:
        nonlocal total
        total += tokens
        notify("generate", total)

    with timed("generate", seconds, notify, total):
        return [*before, *engine.answer(prompts, generation, drafts, generated, only)]


@contextmanager
def timed(stage: str, seconds: dict[str, float], notify: Notify = quiet, amount: int = 0) -> Iterator[None]:
    """Announce a stage, with how far it is already, and record its duration in seconds."""
    notify(stage, amount)
    began = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - began
