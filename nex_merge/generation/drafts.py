"""What a response will probably say next: what followed the same tokens in another answer to its prompt.

Merges of one family say much of what base and parents say. One forward pass checks a whole draft, and keeps of it what
it would have chosen token by token, so that only the number of passes changes (arXiv 2304.04487).
"""

from collections.abc import Sequence

# How many tokens have to be the same, and how many are taken over at a time: results/studies/speed.md.
CONTEXT = 2
LONGEST = 15
_BREAK = -1


class Draft:
    """One response's references, and its own text as it grows."""

    def __init__(self, prompt: Sequence[int], references: Sequence[Sequence[int]]) -> None:
        self._text: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # context -> where in the text it was last followed by something
        self._known = 0  # tokens of the response in the text
        self._at: int | None = None  # where in the text the last draft began
        self._last: list[int] = []
        self._right, self._tried = 4, 5  # of the tokens drafted so far; at first, what most turn out to be
        for reference in references:
            self._extend([*prompt[-CONTEXT:], *reference, _BREAK])
        self._extend(prompt[-CONTEXT:])

    def ahead(self, said: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may come after what was said; none where nothing tells.

        While the response goes on as the text does, so does the draft; else it looks for the same context anew.
        """
        new = list(said[self._known :])
        same = next((i for i, (a, b) in enumerate(zip(new, self._last, strict=False)) if a != b), None)
        checked = min(len(new), len(self._last))
        self._right += checked if same is None else same
        self._tried += checked if same is None else same + 1
        self._extend(new)
        self._known = len(said)
        if self._at is not None and self._text[self._at : self._at + len(new)] == new:
            self._at += len(new)
        else:
            self._at = None
        most = min(most, LONGEST)
        self._last = self._from(self._at, most)
        if not self._last:
            self._at = self._after.get(tuple(self._text[-CONTEXT:]))
            self._last = self._from(self._at, most)
        return self._last

    @property
    def chance(self) -> float:
        """Of a drafted token to be right, as far as it has been seen."""
        return self._right / self._tried

    def _from(self, start: int | None, most: int) -> list[int]:
        if start is None or most < 1:
            return []
        found = self._text[start : start + most]
        return found[: found.index(_BREAK)] if _BREAK in found else found

    def _extend(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if token != _BREAK and len(self._text) >= CONTEXT:
                self._after[tuple(self._text[-CONTEXT:])] = len(self._text)
            self._text.append(token)
