"""Answers by vLLM beside those by transformers, on qwen3-tiny: equal responses, and seconds, on this machine.

    python -m benchmarks.by_vllm [PROMPTS]

Prints a line for each comparison. Needs an environment with vLLM (docs/vllm.md).
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.trial import FixedTrial

from nex_merge.engines.transformers import ModelAnswers
from nex_merge.engines.vllm_engine import VllmEngine
from nex_merge.merging import method_specs
from nex_merge.records import Response
from nex_merge.setup.config import GenerationConfig, RuntimeConfig
from nex_merge.setup.resolve import resolve_config
from nex_merge.setup.search_space import load_space
from nex_merge.study.proposal import passthrough, propose

TOKENS = 128
GREEDY = GenerationConfig(max_new_tokens=TOKENS)
SAMPLED = GREEDY.model_copy(update={"temperature": 0.8, "top_p": 0.95, "seed": 3})
NARROW = GREEDY.model_copy(update={"batch_tokens": 1024})  # four responses at once
WEIGHTS = (0.2, 0.5, 0.8)


def timed(answer: Callable[..., list[Response]], *given: Any) -> tuple[list[Response], float]:
    began = time.perf_counter()
    return answer(*given), time.perf_counter() - began


def equal(one: Sequence[Response], other: Sequence[Response]) -> int:
    return sum(a.token_ids == b.token_ids for a, b in zip(one, other, strict=True))


def probe(engine: VllmEngine, text: Sequence[int]) -> float:
    """How far vLLM's logits are from the resident model's, as a share of the largest."""
    model: Any = engine.answers._model
    own = engine.logits(text)
    return float(abs(model.next_logits(text) - own[np.arange(len(text) - 1), text[1:]]).max() / abs(own).max())


def compare(dtype: str, prompts: int) -> None:
    plan = resolve_config(
        {
            "family": "qwen3-tiny", "models": ["pairs", "signs"], "search_space": "ties",
            "prompts": {"file": "configs/prompts/qwen3_tiny.jsonl", "limit": prompts}, "output": "results/by_vllm",
        }
    )  # fmt: skip
    family, runtime = plan.family, RuntimeConfig(engine="vllm", device="cpu", dtype=dtype)  # pyright: ignore[reportArgumentType]
    engine, narrow = VllmEngine(family, runtime), VllmEngine(family, runtime)
    ours = ModelAnswers(engine.resident)
    ids = engine.encode(plan.prompts, plan.config.prompts, TOKENS)
    space = load_space("ties", method_specs(), family.models)
    drafts: list[Response] = []
    for name in family.models:
        engine.load(passthrough("parent", name, family.references[name], "bfloat16"))
        drafts += ours.answer(ids, GREEDY)
    merges = [propose(space, family.references, "bfloat16", FixedTrial(_parameters(weight)), 7) for weight in WEIGHTS]
    at_once: list[list[Response]] = []
    for what, config, given in (("greedy", GREEDY, ()), ("greedy, drafts", GREEDY, drafts), ("sampled", SAMPLED, ())):
        same, seconds, off = 0, [0.0, 0.0], []
        for merge in merges:
            engine.load(merge)
            expected, by_ours = timed(ours.answer, ids, config, given)
            engine.answer(ids[:1], config)  # weights are handed over, and vLLM is built
            found, by_vllm = timed(engine.answer, ids, config, given)
            same, seconds = same + equal(expected, found), [seconds[0] + by_ours, seconds[1] + by_vllm]
            off.append(probe(engine, ids[0]))
            at_once += [found] if what == "greedy" else []
        print(
            f"{dtype}, {what}: {same} of {len(merges) * len(ids)} responses equal; transformers {seconds[0]:.1f} s, "
            f"vLLM {seconds[1]:.1f} s; logits off by {max(off):.1g} of the largest",
            flush=True,
        )
    same = 0
    for merge, found in zip(merges, at_once, strict=True):
        narrow.load(merge)
        same += equal(narrow.answer(ids, NARROW), found)
    print(f"{dtype}, greedy, four at once: {same} of {len(merges) * len(ids)} equal to all at once", flush=True)


def _parameters(weight: float) -> dict[str, float]:
    return {"weight.pairs": weight, "density.pairs": 1.0, "weight.signs": 1 - weight, "density.signs": 1.0}


if __name__ == "__main__":
    for kind in ("float32", "bfloat16"):
        compare(kind, int(sys.argv[1]) if sys.argv[1:] else 64)
