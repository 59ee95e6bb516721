"""A checkpoint by itself that answers prompts: its settings, and what is observed of its responses."""

from collections.abc import Sequence

from nex_merge.engines.engine import Engine, ObserveSettings, observe
from nex_merge.records import Observation, Prompt
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig, PromptsConfig, RuntimeConfig
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


def respond(engine: Engine, prompts: Sequence[Prompt], asked: PromptsConfig, settings: ObserveSettings) -> Observation:
    """What a model responds to prompts, which are encoded as `asked` says, and what is observed of it.

    Raises InputError if a prompt leaves no room for its response, TrialError as `observe` does.
    """
    ids = engine.encode(prompts, asked, settings.generation.max_new_tokens)
    return observe(engine, ids, settings)
