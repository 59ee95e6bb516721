"""The reading of one checkpoint's answer to one prompt, without a run. Composes generation, capture and nex."""

from collections.abc import Mapping
from typing import Any

from nex_merge.activations.capture import capture
from nex_merge.engines.checkpoint import load_checkpoint
from nex_merge.errors import InputError
from nex_merge.generation import generate
from nex_merge.inspect.reading import Reading, read
from nex_merge.inspect.source import Chosen, settings_line
from nex_merge.nex.calibration import analyse
from nex_merge.records import Prompt
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PhasesConfig,
    PromptsConfig,
    RuntimeConfig,
    Strict,
    merge_mappings,
    parse,
)
from nex_merge.setup.families import defaults_of, read_family
from nex_merge.setup.prompts import encode_prompts
from nex_merge.study.trial import check_context


class ChatConfig(Strict):
    """How a prompt given by itself becomes tokens; see PromptsConfig."""

    system: str | None = None
    chat_template: bool = True
    thinking: bool = True


class AnswerConfig(Strict):
    """What --set can change when a checkpoint answers."""

    prompts: ChatConfig = ChatConfig()
    generation: GenerationConfig = GenerationConfig()
    activations: ActivationsConfig = ActivationsConfig()
    nex: PhasesConfig = PhasesConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def settle(model: str, family: str | None, settings: Mapping[str, Any]) -> tuple[AnswerConfig, str | None]:
    """The settings a checkpoint answers with, and the family whose defaults they begin with.

    That is `family`, or else the one among the known families that the checkpoint is of, if any. Raises InputError.
    """
    if family is None:
        defaults, name = defaults_of(model)
    else:
        config, name = read_family(family)
        defaults = config.defaults
    return parse(AnswerConfig, merge_mappings(defaults, settings), "--set"), name


def choose_answer(model: str, prompt: str, family: str | None, settings: Mapping[str, Any], number: int) -> Chosen:
    """A checkpoint's answer to a prompt, its `number`-th sample. Raises InputError for what is at fault."""
    config, of = settle(model, family, settings)
    count = config.generation.samples
    if not 0 <= number < count:
        raise InputError(f"response {number}: found {count} samples, from 0; --set generation.samples gives more")
    return Chosen(answers(model, prompt, config)[number], model, count, _settings_line(config, of))


def answers(model: str, prompt: str, config: AnswerConfig) -> list[Reading]:
    """The readings of a checkpoint's answers to a prompt, one a sample. Raises InputError for what is at fault."""
    _, loaded, tokenizer = load_checkpoint(model, config.runtime)
    asked = Prompt(({"role": "user", "content": prompt},), raw=prompt)
    ids = encode_prompts([asked], tokenizer, PromptsConfig(file="", **config.prompts.model_dump()))
    check_context(ids, config.generation.max_new_tokens, loaded.config)
    responses = generate(loaded, tokenizer, ids, config.generation)
    cache, _ = capture(loaded, responses, config.activations)
    analyses = analyse(cache, config.nex.rho, config.nex.min_run)
    return [read(response, cache, i, analyses[i], None, tokenizer) for i, response in enumerate(responses)]


def _settings_line(config: AnswerConfig, family: str | None) -> str:
    generation = config.generation
    choice = "greedy" if generation.temperature == 0 else f"temperature {generation.temperature:g}"
    origin = "no family's defaults" if family is None else f"defaults of family {family}"
    return (
        f"{settings_line(config.activations, config.nex)}; {choice}, at most {generation.max_new_tokens} tokens "
        f"({origin})"
    )
