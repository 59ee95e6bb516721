"""`perform`, the work of a trial, as a function of values that can be sent to another process.

A trial is planned and kept by the driver (`study/trial.py`), which knows run folder and study. A trial that races is
several jobs on one engine: one that loads, one for every block of prompts, one that reads what was answered.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nex_merge.engines.contracts import Engine
from nex_merge.engines.observe import Notify, ObserveSettings, answered, observe, quiet, timed
from nex_merge.records import MergeRecipe, Observation, Response

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """All that the work of a trial takes."""

    trial: str
    recipe: MergeRecipe
    prompts: Sequence[Sequence[int]]  # token ids of all prompts of the run
    settings: ObserveSettings  # without activations, nothing is captured
    asked: Sequence[int]  # the prompts to be answered now
    drafts: Sequence[Response] = ()  # what other variants answered, for speculative decoding
    answered: Sequence[Response] = ()  # what this one has answered before
    # Of the weights that the job before this one has loaded into the same engine; None: the recipe is merged.
    weights_sha256: str | None = None
    # Of the trial that probably comes after this one on the same engine.
    next_recipe: MergeRecipe | None = None


@dataclass(frozen=True)
class Answered:
    """What a job gave."""

    trial: str
    observation: Observation  # of all responses so far
    weights_sha256: str  # of the merged tensors
    seconds: Mapping[str, float]  # by stage: merge, generate, capture, score


# The jobs of a trial: each is done by the same engine, and what it gave is sent back in before the next.
Work = Generator[Job, Answered, T]


def done_here(work: Work[T], engine: Engine, notify: Notify = quiet) -> T:
    """What a trial's work gives, with all of its jobs done by an engine of this process. Raises what they raise."""
    try:
        job = next(work)
        while True:
            try:
                answered = perform(job, engine, notify)
            except Exception as error:  # which what surrounds the jobs may explain
                job = work.throw(error)
            else:
                job = work.send(answered)
    except StopIteration as end:
        return end.value


def perform(job: Job, engine: Engine, notify: Notify = quiet) -> Answered:
    """Merge the recipe, answer the prompts, read the responses; `notify` is told how far it is.

    Raises TrialError if the recipe can't be merged, gives tensors that are not finite, or logits that are not.
    """
    seconds: dict[str, float] = {}
    sha256, hashed = job.weights_sha256, None
    if sha256 is None:
        with timed("merge", seconds, notify):
            hashed = engine.begin(job.recipe)
    if job.next_recipe is not None:
        engine.prepare(job.next_recipe)
    responses = list(job.answered)
    if job.asked:
        responses = answered(
            engine, job.prompts, job.settings.generation, seconds, notify, job.drafts, responses, job.asked
        )
        responses.sort(key=lambda response: (response.prompt, response.sample))
    observation = observe(engine, job.prompts, job.settings, responses=responses, notify=notify)
    if hashed is not None:
        began = time.perf_counter()
        sha256 = hashed()
        seconds["merge"] += time.perf_counter() - began
    assert sha256 is not None, "of this job's load or an earlier one's"
    return Answered(job.trial, observation, sha256, {**seconds, **observation.seconds})
