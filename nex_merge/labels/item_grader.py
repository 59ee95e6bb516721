"""Accuracy on labelled prompts of a file, or a family's built-in problems: by our own greedy decoding."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from nex_merge.answers.conclusions import READING
from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.labels.items import Item, judge
from nex_merge.labels.statistics import wilson
from nex_merge.runs.remerge import Remerger
from nex_merge.setup.config import PromptsConfig


class ItemGrader:
    """Grades responses to labelled prompts. `name`: what they are called in the source; 'builtin': a family's own."""

    def __init__(self, items: Sequence[Item], name: str) -> None:
        self._items, self._name = items, name

    def prepare(self, remerger: Remerger) -> str:
        config, self._engine = remerger.config, remerger.engine
        prompts = config.prompts if self._name != "builtin" else PromptsConfig(file="")
        generation = config.generation.model_copy(update={"temperature": 0.0, "samples": 1})
        self._thinking = prompts.thinking
        self._settings = ObserveSettings(generation, activations=None, phases=config.nex)
        asked = [item.prompt for item in self._items]
        self._encoded = self._engine.encode(asked, prompts, generation.max_new_tokens)
        answers = [item.answer for item in self._items]
        identity = json.dumps([self._encoded, answers, generation.max_new_tokens, self._name, READING])
        return f"{self._name} {hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def grade(self) -> dict[str, Any]:
        responses = observe(self._engine, self._encoded, self._settings).responses
        right = judge(self._items, responses, self._thinking)
        accuracy: dict[str, Any] = {"accuracy": sum(right) / len(right), "right": sum(right), "n": len(right)}
        # Which ones: how much of their noise variants have in common shows in this alone.
        accuracy["right_by_problem"] = "".join("01"[r] for r in right)
        for kind in sorted({item.kind for item in self._items if item.kind}):
            of_kind = [r for r, item in zip(right, self._items, strict=True) if item.kind == kind]
            accuracy[kind] = sum(of_kind) / len(of_kind)
        low, high = wilson(accuracy["accuracy"], accuracy["n"])
        return accuracy | {"accuracy_low": low, "accuracy_high": high}
