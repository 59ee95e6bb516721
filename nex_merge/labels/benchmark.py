"""Accuracy of a run's variants on labelled prompts, with greedy decoding. It is never used by the search.

Variants are merged again, generate responses, and are graded. Variants already measured on the same data are skipped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from nex_merge import interrupts
from nex_merge.answers.conclusions import READING
from nex_merge.engines.observe import ObserveSettings, observe
from nex_merge.errors import InputError
from nex_merge.labels.items import Item, judge
from nex_merge.runs import files
from nex_merge.runs.custody import measuring
from nex_merge.runs.files import trial_name
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.rows import Row
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import PromptsConfig


def choose_trials(run: RunFolder, top: int | None, ids: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The trials to measure: the best `top`, those in `ids`, or by default all ranked ones."""
    if top is not None and ids:
        raise InputError("benchmark: expected either --top or --trials, got both")
    if ids:
        results = [run.find(trial) for trial in ids]
        for result in results:
            if result.state == "failed":
                name = trial_name(result.trial)
                raise InputError(f"--trials: {name} failed ({result.reason}); it cannot be measured")
        return [result.trial for result in results]
    return [row.trial for row in rows if row.rank is not None][:top]


def benchmark(
    run: RunFolder, items: Sequence[Item], name: str, chosen: Sequence[str], note: Callable[[str], None]
) -> None:
    """Measure the chosen trials on the items and store each accuracy with its 95 % Wilson interval.

    Raises RunError while another command measures or attaches the accuracy of this run.
    """
    with measuring(run.path):
        _benchmark(run, items, name, chosen, note)


def _benchmark(
    run: RunFolder, items: Sequence[Item], name: str, chosen: Sequence[str], note: Callable[[str], None]
) -> None:
    from scipy.stats import binomtest

    remerger = Remerger(run)
    config, engine = remerger.config, remerger.engine
    prompts = config.prompts if name != "builtin" else PromptsConfig(file="")
    generation = config.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    settings = ObserveSettings(generation, activations=None, phases=config.nex)
    encoded = engine.encode([item.prompt for item in items], prompts, generation.max_new_tokens)
    identity = json.dumps([encoded, [item.answer for item in items], generation.max_new_tokens, name, READING])
    source = f"{name} {hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    for done, trial in enumerate(chosen, 1):
        accuracy = files.read_accuracy(run.path, trial)
        if accuracy is None or accuracy.get("source") != source:
            remerger.load(run.find(trial))
            responses = observe(engine, encoded, settings).responses
            accuracy = _accuracy(items, judge(items, responses, prompts.thinking))
            interval = binomtest(accuracy["right"], accuracy["n"]).proportion_ci(method="wilson")
            accuracy |= {"accuracy_low": float(interval.low), "accuracy_high": float(interval.high), "source": source}
            interrupts.check()
            files.write_accuracy(run.path, trial, accuracy)
        note(
            f"[{done}/{len(chosen)}] {trial_name(trial)}: {accuracy['right']} of {accuracy['n']} right, "
            f"{accuracy['accuracy']:.3f} [{accuracy['accuracy_low']:.3f}, {accuracy['accuracy_high']:.3f}]"
        )


def _accuracy(items: Sequence[Item], right: Sequence[bool]) -> dict[str, Any]:
    accuracy: dict[str, Any] = {"accuracy": sum(right) / len(right), "right": sum(right), "n": len(right)}
    # Which ones: how much of their noise variants have in common shows in this alone.
    accuracy["right_by_problem"] = "".join("01"[r] for r in right)
    for kind in sorted({item.kind for item in items if item.kind}):
        right_of_kind = [r for r, item in zip(right, items, strict=True) if item.kind == kind]
        accuracy[kind] = sum(right_of_kind) / len(right_of_kind)
    return accuracy
