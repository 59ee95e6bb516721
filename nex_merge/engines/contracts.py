"""What an engine is: weights that are resident under a recipe, what answers prompts, and what reads responses.

Three contracts, so that one part can be replaced: another library that answers, with the same weights and the same
reading of activations. Implementations: of weights in `resident.py` and `family.py`, of the two others in
`transformers.py`; tests/engines/ has the suite that every implementation passes.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nex_merge.records import MergeRecipe, Prompt, Response, SparseRows, TokenStats
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PromptsConfig

if TYPE_CHECKING:
    from nex_merge.engines.family import FamilyResident


@dataclass(frozen=True)
class Captured:
    """The activations of a model while it read R responses."""

    rows: SparseRows
    stats: Sequence[TokenStats]  # R
    neurons: int  # number of neurons in the model: layers * units


class Resident(Protocol):
    """The weights of a family under a recipe, or of a single checkpoint, in memory.

    `family_weights`: the weights with all that a rehearsal needs; None: nothing is rehearsed.
    """

    family_weights: "FamilyResident | None" = None

    def tell_time(self, now: datetime) -> None:
        """What chat templates are told is now, from here on, so that they make the same of a prompt every time."""

    def load(self, recipe: MergeRecipe) -> str:
        """Merge a recipe into the resident model. Returns the SHA-256 of its tensors.

        Raises TrialError if the recipe can't be merged or gives tensors that are not finite.
        """
        ...

    def begin(self, recipe: MergeRecipe) -> Callable[[], str]:
        """Merge a recipe as `load` does; its SHA-256 is had from what is returned, and may be taken meanwhile."""
        sha256 = self.load(recipe)
        return lambda: sha256

    def prepare(self, recipe: MergeRecipe) -> None:
        """Do what can be done ahead for a recipe that is probably loaded next, beside other work; changes no result."""

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        """Token ids of the prompts. Raises InputError if one leaves no room for `max_new_tokens` in the context."""
        ...

    def logits(self, token_ids: Sequence[int], last: int = 0) -> np.ndarray:
        """The logits after each of the `last` tokens, 0: after all of them; float32 [tokens, vocabulary]."""
        ...


class Answers(Protocol):
    """Prompts -> responses of the resident weights."""

    def loaded(self) -> None:
        """The resident weights are others now: whatever was kept of the earlier ones is void."""

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


class Reads(Protocol):
    """Responses -> sparse activations of the resident weights."""

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        """Read responses, of this model or another, and capture the activations. `notify` is told how many are done."""
        ...


class Engine(Resident, Answers, Reads, Protocol):
    """One of each, as trials use them. An engine of one's own inherits from this, or is `Composed` of parts."""

    def identity(self) -> str:
        """Which implementation it is: what was shown for one is not shown for another."""
        return type(self).__qualname__


class Composed(Engine):
    """An engine made of three parts. The one that answers is told after every load."""

    def __init__(self, resident: Resident, answers: Answers, reads: Reads) -> None:
        self.resident, self.answers, self.reads = resident, answers, reads
        self.family_weights = resident.family_weights

    def identity(self) -> str:
        return " ".join(type(part).__qualname__ for part in (self.resident, self.answers, self.reads))

    def tell_time(self, now: datetime) -> None:
        self.resident.tell_time(now)

    def load(self, recipe: MergeRecipe) -> str:
        return self.begin(recipe)()

    def begin(self, recipe: MergeRecipe) -> Callable[[], str]:
        sha256 = self.resident.begin(recipe)
        self.answers.loaded()
        return sha256

    def prepare(self, recipe: MergeRecipe) -> None:
        self.resident.prepare(recipe)

    def encode(self, prompts: Sequence[Prompt], config: PromptsConfig, max_new_tokens: int) -> list[list[int]]:
        return self.resident.encode(prompts, config, max_new_tokens)

    def logits(self, token_ids: Sequence[int], last: int = 0) -> np.ndarray:
        return self.resident.logits(token_ids, last)

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
        drafts: Sequence[Response] = (),
        notify: Callable[[int], None] = lambda tokens: None,
        only: Collection[int] | None = None,
    ) -> list[Response]:
        return self.answers.answer(prompts, config, drafts, notify, only)

    def capture(
        self,
        responses: Sequence[Response],
        config: ActivationsConfig,
        notify: Callable[[int], None] = lambda done: None,
    ) -> Captured:
        return self.reads.capture(responses, config, notify)
