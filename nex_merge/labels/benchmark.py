"""Accuracy of a run's variants on labelled prompts, by greedy answers. Kept beside the trials, never fed to the search.

Composes rebuilding, generation and matching. A variant measured on the same data is not measured again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nex_merge.engines.engine import ObserveSettings, observe
from nex_merge.errors import InputError
from nex_merge.labels.items import Item, judge
from nex_merge.runs import files
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import Run
from nex_merge.setup.config import PromptsConfig


def choose_trials(run: Run, top: int | None, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The trials to measure: the best `top`, those named, or (neither) all that were scored."""
    if top is not None and ids:
        raise InputError("benchmark: give either --top or --trials")
    if ids:
        found = [run.find(trial) for trial in ids]
        for result in found:
            if result.state == "failed":
                raise InputError(f"--trials: trial {result.trial} failed ({result.reason}); it cannot be measured")
        return [result.trial for result in found]
    return [row["trial"] for row in rows if row["rank"] is not None][:top]


def benchmark(run: Run, items: Sequence[Item], name: str, chosen: Sequence[str], note: Callable[[str], None]) -> None:
    """Measure the chosen trials on the items and keep each one's accuracy, with its 95 % Wilson interval."""
    from scipy.stats import binomtest

    remerger = Remerger(run)
    config, engine = remerger.config, remerger.engine
    prompts = config.prompts if name != "builtin" else PromptsConfig(file="")
    generation = config.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    settings = ObserveSettings(generation, activations=None, phases=config.nex)
    encoded = engine.encode([item.prompt for item in items], prompts, generation.max_new_tokens)
    identity = json.dumps([encoded, [item.answer for item in items], generation.max_new_tokens, name])
    source = f"{name} {hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    for done, trial in enumerate(chosen, 1):
        known = files.read_accuracy(run.path, trial)
        if known is None or known.get("source") != source:
            remerger.load(run.find(trial))
            responses = observe(engine, encoded, settings).responses
            known = _accuracy(items, judge(items, responses, prompts.thinking))
            interval = binomtest(known["right"], known["n"]).proportion_ci(method="wilson")
            known |= {"accuracy_low": float(interval.low), "accuracy_high": float(interval.high), "source": source}
            files.write_accuracy(run.path, trial, known)
        note(
            f"[{done}/{len(chosen)}] trial {trial}: {known['right']} of {known['n']} right, {known['accuracy']:.3f} "
            f"[{known['accuracy_low']:.3f}, {known['accuracy_high']:.3f}]"
        )


def _accuracy(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Any]:
    found: dict[str, Any] = {"accuracy": sum(right) / len(right), "right": sum(right), "n": len(right)}
    for kind in sorted({item.kind for item in items if item.kind}):
        own = [r for r, item in zip(right, items, strict=True) if item.kind == kind]
        found[kind] = sum(own) / len(own)
    return found
