"""One response to look at, for `nex-merge phases`: of a trial of a run, or a checkpoint's answer to a prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nex_merge.engines.observe import ObserveSettings
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.errors import InputError
from nex_merge.inspect.models import AnswerConfig, respond
from nex_merge.inspect.reading import Reading, read, read_trial
from nex_merge.records import Prompt
from nex_merge.runs.files import trial_name
from nex_merge.runs.leaderboard import first_trial, shown_in
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import ActivationsConfig, PhasesConfig, PromptsConfig, merge_mappings, parse
from nex_merge.setup.families import defaults_of, read_family
from nex_merge.wording import counted


@dataclass(frozen=True)
class ResponseView:
    """One response to display."""

    reading: Reading
    title: str
    count: int  # responses available from the same source
    settings: str
    trial: str | None = None  # None: not of a run


def find_responses(run: RunFolder, trial: str | None) -> tuple[RunFolder, str, str]:
    """(the run with the responses that the leaderboard shows, trial id, title); None: the first of the leaderboard."""
    found = first_trial(run) if trial is None else run.find(trial).trial
    stage = shown_in(run, found)
    first = " (first of the leaderboard)" if trial is None else ""
    return stage, found, f"{stage.path}: {trial_name(found)}{first}"


def view_response(run: RunFolder, trial: str | None, number: int) -> ResponseView:
    """A response of a trial (None: the first of the leaderboard). Raises InputError if there is no such response."""
    run, trial, title = find_responses(run, trial)
    (reading,) = read_trial(run, trial, [number])
    settings = _describe(run.config.activations, run.scoring())
    return ResponseView(reading, title, len(run.responses(trial)), settings, trial)


def view_answer(model: str, prompt: str, family: str | None, settings: Mapping[str, Any], number: int) -> ResponseView:
    """Sample `number` of a checkpoint's answer to a prompt. Raises InputError if the input is invalid."""
    config, name = resolve_settings(model, family, settings)
    generation = config.generation
    if not 0 <= number < generation.samples:
        raise InputError(
            f"--response: expected 0 to {generation.samples - 1}, got {number}; --set generation.samples=N generates "
            "more samples"
        )
    reading = answer(model, prompt, config)[number]
    decoding = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    most = counted(generation.max_new_tokens, "token")
    origin = "no family defaults" if name is None else f"defaults of family {name}"
    described = f"{_describe(config.activations, config.nex)}; {decoding}, at most {most} ({origin})"
    return ResponseView(reading, model, generation.samples, described)


def resolve_settings(model: str, family: str | None, settings: Mapping[str, Any]) -> tuple[AnswerConfig, str | None]:
    """The settings for a checkpoint, and the name of the family whose defaults they start from.

    `family`: None for the known family that the checkpoint belongs to, if any. Raises InputError if a setting is
    invalid or the family unknown.
    """
    if family is None:
        defaults, name = defaults_of(model)
    else:
        config, name = read_family(family)
        defaults = config.defaults
    return parse(AnswerConfig, merge_mappings(defaults, settings), "--set"), name


def answer(model: str, prompt: str, config: AnswerConfig) -> list[Reading]:
    """A checkpoint's answers to a prompt, one reading per sample. Raises InputError if the input is invalid."""
    engine = CheckpointEngine(model, config.runtime)
    message = Prompt(({"role": "user", "content": prompt},), raw=prompt)
    settings = ObserveSettings(config.generation, config.activations, config.nex)
    observed = respond(engine, [message], PromptsConfig(file="", **config.prompts.model_dump()), settings)
    assert observed.rows is not None and observed.analyses is not None
    return [
        read(response, observed.rows, i, observed.analyses[i], None, engine.resident.tokenizer)
        for i, response in enumerate(observed.responses)
    ]


def _describe(activations: ActivationsConfig, phases: PhasesConfig) -> str:
    """The settings that phases depend on, in one line."""
    return (
        f"rows of {counted(activations.slice_tokens, 'token')}, {counted(activations.top_k, 'highest score')} per row "
        f"({activations.score}); rho {phases.rho:g}, min_run {phases.min_run}"
    )
