"""The engine on transformers: a family's resident model, or a single checkpoint's, that answers and is read."""

from collections.abc import Callable, Collection, Sequence

from torch.nn.attention import SDPBackend, sdpa_kernel

from nex_merge.activations.capture import capture, gated_mlps
from nex_merge.engines.contracts import Captured, Composed
from nex_merge.engines.family import FamilyResident
from nex_merge.engines.resident import CheckpointResident, ModelResident
from nex_merge.generation import generate
from nex_merge.records import Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, RuntimeConfig
from nex_merge.setup.families import Family

# Attention without cuDNN's kernels. torch prefers those in half precision where a GPU has them, and they are planned
# anew for every length, while lengths change with every pass; results/studies/speed.md has what that cost.
ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class ModelAnswers:
    """Responses by our own decoding, which keeps nothing of the weights: they may be others whenever it is asked."""

    def __init__(self, resident: ModelResident) -> None:
        self._resident = resident

    def loaded(self) -> None:
        pass

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
        only: Collection[int] | None = None,
    ) -> list[Response]:
        with sdpa_kernel(ATTENTION):
            return generate(self._resident.model, self._resident.tokenizer, prompts, config, notify, drafts, only)


class ModelReads:
    """Activations by hooks on the gated MLPs."""

    def __init__(self, resident: ModelResident) -> None:
        self._resident = resident

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        with sdpa_kernel(ATTENTION):
            rows, stats = capture(self._resident.model, responses, config, notify)
        neurons = sum(projection.in_features for projection in gated_mlps(self._resident.model))
        return Captured(rows, stats, neurons)


class TransformersEngine(Composed):
    """A resident model that answers and is read by transformers."""

    def __init__(self, resident: ModelResident) -> None:
        super().__init__(resident, ModelAnswers(resident), ModelReads(resident))


class CheckpointEngine(TransformersEngine):
    """One checkpoint, for the commands that look at a single model."""

    resident: CheckpointResident

    def __init__(self, model: str, runtime: RuntimeConfig, source: str = "--model") -> None:
        """`model`: a folder or a hub id. Raises InputError, naming `source`, where it can't be had or captured."""
        super().__init__(CheckpointResident(model, runtime, source))


class FamilyEngine(TransformersEngine):
    """A family's resident model, which every variant overwrites."""

    resident: FamilyResident

    def __init__(self, family: Family, runtime: RuntimeConfig) -> None:
        """Raises InputError for whatever is wrong with the family or the device."""
        super().__init__(FamilyResident(family, runtime))
