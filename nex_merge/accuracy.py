"""Accuracy of a run's variants on the held-out problems that qwen3-tiny's generator makes. Never fed to the search."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from nex_merge import trials
from nex_merge.config import PromptsConfig
from nex_merge.errors import InputError
from nex_merge.families.qwen3_tiny.problems import KINDS, Problem, make_problems
from nex_merge.generation import generate
from nex_merge.prompts import encode_prompts
from nex_merge.rebuild import Rebuilder
from nex_merge.records import Prompt

# The search's prompts come from seed 1, so none of them is among these.
HELD_OUT_SEED = 2
FAMILY = "qwen3-tiny"


def held_out(count: int) -> list[Problem]:
    """`count` problems of each kind that no training batch and no search prompt was drawn from."""
    return [problem for kind in KINDS for problem in make_problems(kind, count, HELD_OUT_SEED)]


def measure_builtin(run: Path, count: int, note: Callable[[str], None]) -> None:
    """Measure exact-match accuracy of every complete trial by greedy answers, and keep it beside the trials.

    Trials already measured on the same problems are not measured again. Raises InputError for other families.
    """
    results = [result for result in trials.read_results(run) if result.state == "complete"]
    rebuilder = Rebuilder(run)
    if rebuilder.family.name != FAMILY:
        raise InputError(
            f"--accuracy builtin: only family {FAMILY} brings problems, this run's is {rebuilder.family.name}"
        )
    problems = held_out(count)
    name = hashlib.sha256("\n".join(problem.prompt for problem in problems).encode()).hexdigest()[:16]
    source = f"builtin {name}"
    prompts = [Prompt(({"role": "user", "content": problem.prompt},), problem.prompt) for problem in problems]
    encoded = encode_prompts(prompts, rebuilder.tokenizer, PromptsConfig(file=source))
    settings = rebuilder.config.generation.model_copy(update={"temperature": 0.0, "samples": 1})
    for done, result in enumerate(results, 1):
        known = trials.read_accuracy(run, result.trial)
        if known is not None and known.get("source") == source:
            continue
        rebuilder.load(result)
        responses = generate(rebuilder.merger.model, rebuilder.tokenizer, encoded, settings)
        right = [problem.is_right(response.text) for problem, response in zip(problems, responses, strict=True)]
        by_kind = {
            kind: sum(r for r, p in zip(right, problems, strict=True) if p.kind == kind) / count for kind in KINDS
        }
        accuracy = sum(right) / len(right)
        trials.write_accuracy(run, result.trial, {"accuracy": accuracy, "source": source, "n": len(right), **by_kind})
        note(f"[{done}/{len(results)}] trial {result.trial}: {accuracy:.3f} of {len(right)} held-out problems")
