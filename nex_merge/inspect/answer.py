"""`nex-merge phases --model`: a checkpoint answers one prompt, without a run."""

from collections.abc import Mapping
from typing import Any

from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.engines.transformers import CheckpointEngine
from nex_merge.errors import InputError
from nex_merge.inspect.reading import Reading, read
from nex_merge.inspect.source import ResponseView, describe_settings
from nex_merge.records import Prompt
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PhasesConfig,
    PromptsConfig,
    RuntimeConfig,
    merge_mappings,
    parse,
)
from nex_merge.setup.families import defaults_of, read_family
from nex_merge.setup.strict import Strict
from nex_merge.wording import counted


class ChatConfig(Strict):
    """How a single prompt is encoded; see PromptsConfig."""

    system: str | None = None
    chat_template: bool = True
    thinking: bool = True


class AnswerConfig(Strict):
    """What --set can change when a checkpoint answers a prompt."""

    prompts: ChatConfig = ChatConfig()
    generation: GenerationConfig = GenerationConfig()
    activations: ActivationsConfig = ActivationsConfig()
    nex: PhasesConfig = PhasesConfig()
    runtime: RuntimeConfig = RuntimeConfig()


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


def view_answer(model: str, prompt: str, family: str | None, settings: Mapping[str, Any], number: int) -> ResponseView:
    """Sample `number` of a checkpoint's answer to a prompt. Raises InputError if the input is invalid."""
    config, name = resolve_settings(model, family, settings)
    samples = config.generation.samples
    if not 0 <= number < samples:
        raise InputError(
            f"--response: expected 0 to {samples - 1}, got {number}; --set generation.samples=N generates more samples"
        )
    return ResponseView(answer(model, prompt, config)[number], model, samples, _describe(config, name))


def answer(model: str, prompt: str, config: AnswerConfig) -> list[Reading]:
    """A checkpoint's answers to a prompt, one reading per sample. Raises InputError if the input is invalid."""
    engine = CheckpointEngine(model, config.runtime)
    prompts = PromptsConfig(file="", **config.prompts.model_dump())
    message = Prompt(({"role": "user", "content": prompt},), raw=prompt)
    ids = engine.encode([message], prompts, config.generation.max_new_tokens)
    observed = observe(engine, ids, ObserveSettings(config.generation, config.activations, config.nex))
    assert observed.rows is not None and observed.analyses is not None
    return [
        read(response, observed.rows, i, observed.analyses[i], None, engine.resident.tokenizer)
        for i, response in enumerate(observed.responses)
    ]


def _describe(config: AnswerConfig, family: str | None) -> str:
    generation = config.generation
    decoding = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    origin = "no family defaults" if family is None else f"defaults of family {family}"
    return (
        f"{describe_settings(config.activations, config.nex)}; {decoding}, at most "
        f"{counted(generation.max_new_tokens, 'token')} "
        f"({origin})"
    )
