"""The batch of running responses that is decoded in fixed shapes; `buffers` has the passes, and why there are such."""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel

from nex_merge import interrupts
from nex_merge.generation.batches import Batch, draft_all
from nex_merge.generation.buffers import WIDTHS, Buffers
from nex_merge.generation.drafts import Draft
from nex_merge.generation.sampling import Job, append_all, choose_all
from nex_merge.setup.config import GenerationConfig


class FixedBatch:
    """Running responses, a row of the buffers each; the rows in use are the first ones."""

    is_fixed = False

    def __init__(self, model: PreTrainedModel, buffers: Buffers) -> None:
        self._model, self._buffers = model, buffers
        self._rows: list[Job | None] = []  # None: finished

    def running(self) -> list[Job]:
        return [job for job in self._rows if job is not None]

    @torch.inference_mode()
    def joined(self, other: Batch, tokens: Mapping[Job, Sequence[int]]) -> "FixedBatch":
        """With the responses of a batch that has read their prompts. Both lose their finished rows."""
        self._close_up(tokens)
        if other.running():
            jobs, layers = other.taken()
            for source, job in enumerate(jobs):
                self._buffers.take(len(self._rows), layers, source, _kept(job, tokens))
                self._rows.append(job)
        return self

    def step(
        self,
        tokens: dict[Job, list[int]],
        drafts: Mapping[Job, Draft],
        config: GenerationConfig,
        ends: frozenset[int],
    ) -> int:
        """Run one pass and append its tokens to the running responses. Returns the number of tokens."""
        interrupts.check()
        if not self.running():
            return 0
        drafted = draft_all(self._model, self._rows, tokens, drafts, config)
        width = next(width for width in WIDTHS if width > max(map(len, drafted)))
        ids, at = [], []
        for job, draft in zip(self._rows, drafted, strict=True):
            read = [0] if job is None else [tokens[job][-1], *draft]
            ids.append(read + [0] * (width - len(read)))
            at.append(0 if job is None else _kept(job, tokens))
        padding = self._shape_of(len(ids)) - len(ids)
        logits = self._buffers.logits(ids + [[0] * width] * padding, at + [0] * padding)
        chosen = choose_all(self._model, logits, self._rows, drafted, tokens, config)
        return sum(append_all(self._rows, chosen, tokens, config, ends))

    def packed(self, tokens: Mapping[Job, Sequence[int]], refilling: bool) -> "FixedBatch | None":
        """Without finished rows if a pass becomes smaller by it; None if all have finished."""
        running = self.running()
        if running and not refilling and self._shape_of(len(running)) < self._shape_of(len(self._rows)):
            self._close_up(tokens)
        return self if running else None

    def _shape_of(self, rows: int) -> int:
        """Rows of a pass: all of the buffers', or a half, a quarter and so on of them."""
        found = self._buffers.rows
        while (half := -(-found // 2)) >= rows and half < found:
            found = half
        return found

    @torch.inference_mode()
    def _close_up(self, tokens: Mapping[Job, Sequence[int]]) -> None:
        kept: list[Job | None] = []
        for row, job in enumerate(self._rows):
            if job is None:
                continue
            if row != len(kept):
                self._buffers.move(row, len(kept), _kept(job, tokens))
            kept.append(job)
        self._rows = kept


def _kept(job: Job, tokens: Mapping[Job, Sequence[int]]) -> int:
    """Of how many tokens keys and values are kept: all but the newest, which is read next."""
    return len(job.ids) + len(tokens[job]) - 1
