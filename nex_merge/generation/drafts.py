"""Drafts for speculative decoding: the continuation of the same context in another answer to the same prompt.

Merges of one family repeat much of what the baselines (base and parents) answered. One forward pass verifies a whole
draft and accepts as much of it as token-by-token decoding would have chosen, so that only the number of passes changes
(arXiv 2304.04487).
"""

from collections.abc import Sequence

# Tokens of context that must match, and maximum length of a draft; chosen in results/studies/speed.md.
CONTEXT = 2
LONGEST = 15
_BREAK = -1


class Draft:
    """The source of one response's drafts: its references, and the response itself as it grows."""

    def __init__(self, prompt: Sequence[int], references: Sequence[Sequence[int]]) -> None:
        self._text: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # context -> index in the text of what last followed it
        self._known = 0  # number of the response's tokens that are in the text
        self._at: int | None = None  # index in the text at which the last draft began
        self._last: list[int] = []
        self._accepted, self._drafted = 4, 5  # tokens so far; the start is a typical acceptance rate
        for reference in references:
            self._extend([*prompt[-CONTEXT:], *reference, _BREAK])
        self._extend(prompt[-CONTEXT:])

    def propose(self, response: Sequence[int], max_length: int) -> list[int]:
        """A draft of at most `max_length` tokens to follow the response so far; empty if no context matches.

        While the response follows the text that it was drafted from, so does the next draft; otherwise the context is
        looked up again.
        """
        new = list(response[self._known :])
        same = next((i for i, (a, b) in enumerate(zip(new, self._last, strict=False)) if a != b), None)
        checked = min(len(new), len(self._last))
        self._accepted += checked if same is None else same
        self._drafted += checked if same is None else same + 1
        self._extend(new)
        self._known = len(response)
        if self._at is not None and self._text[self._at : self._at + len(new)] == new:
            self._at += len(new)
        else:
            self._at = None
        max_length = min(max_length, LONGEST)
        self._last = self._from(self._at, max_length)
        if not self._last:
            self._at = self._after.get(tuple(self._text[-CONTEXT:]))
            self._last = self._from(self._at, max_length)
        return self._last

    @property
    def acceptance(self) -> float:
        """Acceptance rate so far: the share of drafted tokens that were chosen, up to each draft's first wrong one."""
        return self._accepted / self._drafted

    def _from(self, start: int | None, max_length: int) -> list[int]:
        if start is None or max_length < 1:
            return []
        found = self._text[start : start + max_length]
        return found[: found.index(_BREAK)] if _BREAK in found else found

    def _extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if token != _BREAK and len(self._text) >= CONTEXT:
                self._after[tuple(self._text[-CONTEXT:])] = len(self._text)
            self._text.append(token)
