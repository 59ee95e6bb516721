"""The labelled rival of a label-free search: CMA-ES on the accuracy of the same prompts, as mergekit-evolve does it.

It begins at equal weights, in the same space, and knows the right answer to every prompt.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ranking.families import FAMILIES
from ranking.measure import opened

from nex_merge.errors import TrialError
from nex_merge.generation import generate
from nex_merge.merging import method_specs
from nex_merge.records import MergeRecipe, Prompt, Response
from nex_merge.setup.config import GenerationConfig, PromptsConfig
from nex_merge.setup.rendering import encode_prompts
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import equal_weights, passthrough, propose

MAX_TOKENS = 640


class Rival:
    """A family whose merges are graded on the prompts of the searches; base and experts' answers are the drafts."""

    def __init__(self, family: str) -> None:
        self._folders, self._merger, self._tokenizer, self._problems, _ = opened(family, 1)
        texts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in self._problems]
        self._ids = encode_prompts(texts, self._tokenizer, PromptsConfig(file=""))
        self._models = list(FAMILIES[family][1])
        self._space = load_space("ties", method_specs(), self._models)
        self._drafts: list[Response] = []
        for name, folder in self._folders.items():
            self._drafts += self._answer(passthrough("base" if name == "base" else "parent", name, folder, "bfloat16"))

    def search(self, seed: int, trials: int, kept: Path) -> tuple[dict[str, Any], int]:
        """Parameters of the best of so many trials, and the tokens that all of them generated; kept in a JSON file."""
        if kept.exists():
            found = json.loads(kept.read_text(encoding="utf-8"))
            return found["parameters"], found["tokens"]
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        start = equal_weights(self._space, self._models)
        study = optuna.create_study(
            sampler=optuna.samplers.CmaEsSampler(x0=start, seed=seed, warn_independent_sampling=False),
            direction="maximize",
        )
        study.enqueue_trial(start)
        tokens = []

        def accuracy(trial: optuna.Trial) -> float:
            responses = self._answer(self.recipe(trial))
            tokens.append(sum(len(response.token_ids) for response in responses))
            return float(np.mean([p.is_right(r.text) for p, r in zip(self._problems, responses, strict=True)]))

        study.optimize(accuracy, trials, catch=(TrialError,))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(
            json.dumps({"parameters": study.best_params, "value": study.best_value, "tokens": sum(tokens)}),
            encoding="utf-8",
        )
        return study.best_params, sum(tokens)

    def recipe(self, suggester: Any) -> MergeRecipe:
        return propose(self._space, self._folders, "bfloat16", suggester, 0)

    def _answer(self, recipe: MergeRecipe) -> list[Response]:
        self._merger.load(recipe)
        settings = GenerationConfig(max_new_tokens=MAX_TOKENS, batch_tokens=200_000)
        return generate(self._merger.model, self._tokenizer, self._ids, settings, references=self._drafts)
