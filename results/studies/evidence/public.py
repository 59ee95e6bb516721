"""Public models' final answers to 400 problems each: which pools, and pools poisoned on purpose.

Source: the published outputs of ZeroEval (yuchenlin/ZeroEval, Apache-2.0).
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evidence.pools import Pool
from nex_merge import conclude

ANSWERS = Path(__file__).parents[1] / "answers"
BENCHMARKS = {"gsm8k": "number", "cruxeval": "text"}
MAKERS = {"llama": "llama", "qwen": "qwen", "claude": "claude", "gemini": "gemini", "gpt": "gpt", "yi-": "yi"}
FEWEST_OF_A_MAKER = 5
SIZES = (4, 6, 8, 12)
PROMPTS = (16, 32, 64)
DRAWS = 30


def load(benchmark: str) -> Pool:
    """All models of a benchmark on all problems that have an answer."""
    with open(ANSWERS / f"answers_{benchmark}.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["gold"]]
    names = [name for name in rows[0] if name not in ("item", "gold")]
    match = BENCHMARKS[benchmark]
    truths = {p: conclude(row["gold"], match) for p, row in enumerate(rows)}
    conclusions = [{p: [conclude(row[name], match)] for p, row in enumerate(rows)} for name in names]
    accuracy = np.array([np.mean([keys[0] == truths[p] for p, keys in item.items()]) for item in conclusions])
    return Pool(names, conclusions, truths, accuracy)


def groups(pool: Pool) -> dict[str, list[int]]:
    """Pools of the table: all, the weakest, middle and strongest 12 by accuracy, and those of one maker."""
    order = [int(i) for i in np.argsort(pool.accuracy, kind="stable")]
    middle = len(order) // 2
    found = {"all": order, "weakest 12": order[:12], "middle 12": order[middle - 6 : middle + 6],
             "strongest 12": order[-12:]}  # fmt: skip
    for part, maker in MAKERS.items():
        members = [i for i in order if pool.names[i].lower().replace("meta-", "").startswith(part) or
                   (part == "gpt" and "gpt" in pool.names[i].lower())]  # fmt: skip
        if len(members) >= FEWEST_OF_A_MAKER:
            found[maker] = members
    return found


def drawn(pool: Pool, members: list[int], prompts: int, count: int = DRAWS) -> Iterator[Pool]:
    """Random draws of the prompts."""
    rng = np.random.default_rng([prompts, len(members)])
    for _ in range(count):
        yield pool.of(members, [int(p) for p in rng.choice(len(pool.truths), prompts, replace=False)])


def small(pool: Pool, size: int, prompts: int, count: int = DRAWS) -> Iterator[Pool]:
    """Random pools of a few models."""
    rng = np.random.default_rng([prompts, size, 1])
    for _ in range(count):
        members = [int(i) for i in rng.choice(len(pool.names), size, replace=False)]
        yield pool.of(members, [int(p) for p in rng.choice(len(pool.truths), prompts, replace=False)])


def poisoned(pool: Pool, how: str, count: int = DRAWS) -> Iterator[Pool]:
    """Twelve random models on 64 prompts, spoilt: 12 near copies of the worst of them, or a format that most break.

    copies: each repeats the worst model's answers but for 7 %, which are another model's. no conclusion: 8 of the 12
    conclude nothing on a random third of the prompts, each on its own. one wrong format: the same 8 conclude one and
    the same wrong thing on a third of the prompts, as a reader would take a broken format.
    """
    rng = np.random.default_rng([3, len(how)])
    for _ in range(count):
        members = [int(i) for i in rng.choice(len(pool.names), 12, replace=False)]
        part = pool.of(members, [int(p) for p in rng.choice(len(pool.truths), 64, replace=False)])
        yield _SPOIL[how](part, rng)


def _copies(pool: Pool, rng: np.random.Generator) -> Pool:
    worst = int(np.argmin(pool.accuracy))
    added = []
    for _ in range(12):
        other = pool.conclusions[int(rng.integers(12))]
        added.append({p: other[p] if rng.random() < 0.07 else keys for p, keys in pool.conclusions[worst].items()})
    return _with(pool, [*pool.conclusions, *added], [*pool.names, *("copy" for _ in added)])


def _no_conclusion(pool: Pool, rng: np.random.Generator) -> Pool:
    spoilt = [
        {p: [None] if i < 8 and rng.random() < 1 / 3 else keys for p, keys in item.items()}
        for i, item in enumerate(pool.conclusions)
    ]
    return _with(pool, spoilt, pool.names)


def _one_format(pool: Pool, rng: np.random.Generator) -> Pool:
    broken = set(rng.choice(64, 21, replace=False).tolist())
    spoilt = [
        {p: ["broken"] if i < 8 and p in broken else keys for p, keys in item.items()}
        for i, item in enumerate(pool.conclusions)
    ]
    return _with(pool, spoilt, pool.names)


def _with(pool: Pool, conclusions: list[Any], names: Any) -> Pool:
    """A pool with other conclusions; accuracy is what these give on the prompts."""
    changed = Pool(list(names), conclusions, pool.truths, np.zeros(len(conclusions)))
    return Pool(changed.names, changed.conclusions, changed.truths, changed.labelled)


_SPOIL = {"near copies of the worst": _copies, "no conclusion": _no_conclusion, "one wrong format": _one_format}
POISONS = tuple(_SPOIL)
