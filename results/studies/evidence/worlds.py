"""Simulated pools whose truth is known: how often does the verdict say what, and how well is the ranking?

V variants answer P prompts, each right as often as its accuracy, drawn evenly from a range. A wrong answer is, with
probability `share`, the one wrong answer that everybody gives to the prompt; else one of 20. In pools with copies, some
variants are near copies of one wrong model, and repeat its answer to a prompt but for 7 % of the cases.
"""

from typing import Any

import numpy as np

from evidence.pools import Pool

VARIANTS, PROMPTS, OTHERS = 30, 64, 20
RANGES = ((0.05, 0.3), (0.1, 0.6), (0.3, 0.9), (0.6, 0.95), (0.45, 0.65))
SHARES = (0.0, 0.3, 0.6, 0.9)
# (near copies among 24 variants, accuracy of the model that they copy)
COPIES = ((6, 0.45), (12, 0.45), (18, 0.45), (12, 0.2), (18, 0.2), (12, 0.8))
COPY_NOISE = 0.07
RIGHT = "right"


def worlds() -> list[dict[str, Any]]:
    """The settings of all simulated pools. `holds`: most variants don't share their mistakes."""
    plain = [
        {"low": low, "high": high, "share": share, "copies": 0, "copied": None, "holds": share <= 0.3}
        for low, high in RANGES
        for share in SHARES
    ]
    return plain + [
        {"low": 0.4, "high": 0.8, "share": 0.0, "copies": count, "copied": accuracy, "holds": count < 12}
        for count, accuracy in COPIES
    ]


def draw(world: dict[str, Any], seed: int) -> Pool:
    """One pool of a world."""
    rng = np.random.default_rng([seed, int(1000 * world["low"]), int(100 * world["share"]), world["copies"]])
    variants = 24 if world["copies"] else VARIANTS
    accuracy = rng.uniform(world["low"], world["high"], variants)
    answers = draw_answers(rng, accuracy, world["share"])
    if world["copies"]:
        copied = draw_answers(rng, np.array([world["copied"]]), 0.0)[0]
        chosen = rng.choice(variants, world["copies"], replace=False)
        fresh = draw_answers(rng, np.full(len(chosen), world["copied"]), 0.0)
        answers[chosen] = np.where(rng.random(fresh.shape) < COPY_NOISE, fresh, copied)
        accuracy[chosen] = world["copied"]
    keys = [{p: [RIGHT if k == 0 else f"wrong {k}"] for p, k in enumerate(row)} for row in answers.tolist()]
    return Pool([f"{i}" for i in range(variants)], keys, {p: RIGHT for p in range(PROMPTS)}, accuracy)


def draw_answers(rng: np.random.Generator, accuracy: np.ndarray, share: float) -> np.ndarray:
    """int64 [V, P]: 0 the right answer, 1 the popular wrong one, from 2 on the others."""
    shape = (len(accuracy), PROMPTS)
    wrong = np.where(rng.random(shape) < share, 1, 2 + rng.integers(OTHERS, size=shape))
    return np.where(rng.random(shape) < accuracy[:, None], 0, wrong)
