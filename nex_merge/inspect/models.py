"""A checkpoint by itself that answers prompts: where it is, its settings, and what is observed of its responses."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from nex_merge.engines.contracts import Engine
from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.errors import InputError
from nex_merge.records import Observation, Prompt
from nex_merge.setup.config import (
    ActivationsConfig,
    GenerationConfig,
    PhasesConfig,
    PromptsConfig,
    RuntimeConfig,
    merge_mappings,
    nearest,
    parse,
)
from nex_merge.setup.families import Location, locate, open_family, read_family
from nex_merge.setup.strict import Strict


class ModelConfig(Strict):
    """How a checkpoint is asked, answers and is captured: what --set can change."""

    prompts: PromptsConfig
    generation: GenerationConfig = GenerationConfig()
    activations: ActivationsConfig = ActivationsConfig()
    runtime: RuntimeConfig = RuntimeConfig()


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


def configure(*parts: Mapping[str, Any], source: str = "--set") -> ModelConfig:
    """The settings in all parts, of which later ones win. Raises InputError, naming `source`, if one is invalid."""
    return parse(ModelConfig, reduce(merge_mappings, parts), source)


def find_model(name: str, family: str | None, option: str) -> Path:
    """The folder of a checkpoint: a folder, a hub id or a member of the family. Raises InputError naming `option`."""
    if family is not None and not Path(name).exists() and "/" not in name:
        config, known = read_family(family)
        members = {"base": config.base, **config.models}
        if name not in members:
            raise InputError(
                f"{option}: unknown member {name!r} of family {known}.{nearest(name, list(members), 'members')}"
            )
        if members[name].adapter is not None:
            from nex_merge.merging import merge_adapters

            opened = open_family(family, None)
            merge_adapters(opened.adapters, opened.folders)
            return opened.folders[name]
        return locate(members[name], f"family {known}: {name}")
    return locate(Location(path=name), option)


def respond(engine: Engine, prompts: Sequence[Prompt], asked: PromptsConfig, settings: ObserveSettings) -> Observation:
    """What a model responds to prompts, which are encoded as `asked` says, and what is observed of it.

    Raises InputError if a prompt leaves no room for its response, TrialError as `observe` does.
    """
    ids = engine.encode(prompts, asked, settings.generation.max_new_tokens)
    return observe(engine, ids, settings)
