"""An engine without a model: answers follow from the recipe, in ten lines."""

import hashlib

import numpy as np

from nex_merge.engines.contracts import Captured, Engine
from nex_merge.records import Response, SparseGroups, SparseRows, TokenStats


class FakeEngine(Engine):
    """Says of every prompt how long it is, shifted by a number that the recipe's hash gives; 3 rows of 2 neurons."""

    def __init__(self):
        self.loaded, self.drafts, self.answered, self.captured = [], [], 0, 0

    def load(self, recipe):
        self.loaded.append(recipe)
        return hashlib.sha256(repr(sorted(recipe.config.items())).encode()).hexdigest()

    def encode(self, prompts, config, max_new_tokens):
        return [[10 + len(prompt.raw or "")] for prompt in prompts]

    def answer(self, prompts, config, drafts=(), notify=lambda tokens: None, only=None):
        self.answered, self.drafts = self.answered + 1, [*self.drafts, len(drafts)]
        shift = len(self.loaded)
        wanted = range(len(prompts)) if only is None else sorted(only)
        notify(6 * len(wanted) * config.samples)
        return [
            Response(i, k, tuple(prompts[i]), (shift, *range(20, 25)), f"{prompts[i][0] + shift}", False)
            for i in wanted
            for k in range(config.samples)
        ]

    def capture(self, responses, config, notify=lambda done: None):
        self.captured += 1
        count, step = len(responses), config.slice_tokens
        notify(count)
        rows = -(-6 // step)
        keys = np.arange(2 * rows * count, dtype=np.uint32) % 50
        masses = np.ones(len(keys), np.float16)
        base = SparseGroups(np.arange(0, len(keys) + 1, 2 * rows), keys, masses)
        grouped = SparseGroups(np.arange(0, len(keys) + 1, 2), keys, masses)
        lengths = np.minimum(step, 6 - step * np.arange(rows))
        tokens = np.concatenate([[0], np.cumsum(np.tile(lengths, count))])
        cache = SparseRows(np.arange(0, rows * count + 1, rows), tokens, grouped, base)
        return Captured(cache, [TokenStats(0.5, 0.1, 2.0, -0.4)] * count, 64)

    def logits(self, token_ids, last=0):
        return np.eye(64, dtype=np.float32)[list(token_ids)[-last:]]
