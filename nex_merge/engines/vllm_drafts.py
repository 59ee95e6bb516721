"""Drafts inside vLLM, which makes a `Drafter` by its name: what other variants answered to the same prompt.

The interface that vLLM has for proposers of one's own (method `custom_class`) is experimental there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nex_merge.generation.drafts import Draft

# Tokens that vLLM checks in one step at most. It has room for as many in every step of every response.
LONGEST = 8
PROPOSER = f"{__name__}.Drafter"

Ids = tuple[int, ...]


class Sources:
    """What drafts are taken from, by prompt; one for the process, as vLLM makes its proposer itself."""

    def __init__(self) -> None:
        self._texts: Mapping[Ids, Sequence[Sequence[int]]] = {}
        self._drafts: dict[Ids, Draft] = {}
        self._lengths: list[int] = []

    def replace(self, texts: Mapping[Ids, Sequence[Sequence[int]]]) -> None:
        """Take other sources: token ids of responses by those of their prompt."""
        self._texts, self._drafts = texts, {}
        self._lengths = sorted({len(prompt) for prompt in texts}, reverse=True)

    def propose(self, ids: Sequence[int]) -> list[int]:
        """A draft to follow these token ids, of a prompt and the response to it so far; empty if there is none."""
        prompt = next((known for size in self._lengths if (known := tuple(ids[:size])) in self._texts), None)
        if prompt is None:
            return []
        if prompt not in self._drafts:
            self._drafts[prompt] = Draft(prompt, self._texts[prompt])
        return list(self._drafts[prompt].propose(ids[len(prompt) :], LONGEST))


SOURCES = Sources()


class Drafter:
    """vLLM's proposer."""

    def __init__(self, vllm_config: Any) -> None:
        pass

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """There is no model of its own to load."""

    def propose(
        self, sampled_token_ids: Sequence[Sequence[int]], num_tokens_no_spec: Any, token_ids_cpu: Any, **kwargs: Any
    ) -> list[list[int]]:
        """A draft for every row of the batch; rows without a new token, which still read their prompt, get none.

        `num_tokens_no_spec`: int [rows], the tokens of each row; `token_ids_cpu`: int [rows, longest], prompt and
        response.
        """
        return [
            SOURCES.propose(token_ids_cpu[row, : num_tokens_no_spec[row]].tolist()) if len(new) else []
            for row, new in enumerate(sampled_token_ids)
        ]
