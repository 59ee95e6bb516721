"""Pools with copies, whose truth is known, beside those of the study of ranking."""

from collections.abc import Iterator

import numpy as np
from evidence import public, worlds
from evidence.pools import Pool

PROMPTS = worlds.PROMPTS


def near(seed: int, variants: int, copies: int, accuracy: float, fidelity: float) -> Pool:
    """`copies` of `variants` repeat a model right on `accuracy`, but for 1 - fidelity; the others 0.4 to 0.8."""
    rng = np.random.default_rng([7, seed, variants, copies, int(100 * accuracy), int(100 * fidelity)])
    accuracies = rng.uniform(0.4, 0.8, variants)
    answers = worlds.draw_answers(rng, accuracies, 0.0)
    _copy(rng, answers, rng.choice(variants, copies, replace=False), accuracy, fidelity, accuracies)
    return _pool(answers, accuracies)


def clusters(seed: int, count: int, size: int, others: int) -> Pool:
    """Clusters of copies (0.8) of models of 0.3 to 0.8, and independent ones."""
    rng = np.random.default_rng([8, seed, count, size])
    accuracies = rng.uniform(0.3, 0.8, count * size + others)
    answers = worlds.draw_answers(rng, accuracies, 0.0)
    for i in range(count):
        _copy(rng, answers, np.arange(i * size, (i + 1) * size), rng.uniform(0.3, 0.8), 0.8, accuracies)
    return _pool(answers, accuracies)


def relatives(seed: int, variants: int) -> Pool:
    """A few variants, mostly wrong (0.05 to 0.45), two of which share 0.7 of their answers."""
    rng = np.random.default_rng([9, seed, variants])
    accuracies = rng.uniform(0.05, 0.45, variants)
    answers = worlds.draw_answers(rng, accuracies, 0.1)
    one, other = rng.choice(variants, 2, replace=False)
    answers[other] = np.where(rng.random(PROMPTS) < 0.7, answers[one], answers[other])
    accuracies[other] = 0.7 * accuracies[one] + 0.3 * accuracies[other]
    return _pool(answers, accuracies)


def landscape(seed: int, merges: int, prompts: int, spread: float, quality: float) -> Pool:
    """Base, two parents that know half of the prompts each, and merges whose answers vary evenly with their weights.

    Merges with like weights give like answers, right and wrong ones. `spread`: standard deviation of the two weights
    around a centre. `quality` scales everybody's skills.
    """
    rng = np.random.default_rng([11, seed, merges, prompts, int(100 * spread), int(100 * quality)])
    centre = rng.uniform(0.2, 1.0, 2)
    weights = np.clip(centre + spread * rng.normal(size=(merges, 2)), 0, 1.4)
    weights = np.vstack([[0, 0], [1, 0], [0, 1], weights])
    over = np.clip(weights.sum(axis=1) - 1.2, 0, None)
    first = np.clip(0.35 + 0.6 * weights[:, 0] ** 0.5 - 0.5 * over - 0.15 * weights[:, 1], 0.02, 0.97)
    second = np.clip(0.05 + 0.9 * weights[:, 1] ** 0.5 - 0.5 * over - 0.15 * weights[:, 0], 0.02, 0.97)
    skill = quality * np.where(np.arange(prompts) < prompts // 2, first[:, None], second[:, None])
    hard = rng.uniform(size=prompts)
    right = skill + 0.08 * rng.normal(size=skill.shape) > hard
    slopes = rng.normal(size=(prompts, worlds.OTHERS, 3))
    position = np.c_[weights, np.full(len(weights), 0.7)]
    field = np.einsum("pkd,vd->vpk", slopes, position) + 0.25 * rng.gumbel(size=(*skill.shape, worlds.OTHERS))
    return _pool(np.where(right, 0, 1 + field.argmax(axis=-1)), skill.mean(axis=1))


def everything(draws: int) -> Iterator[tuple[str, str, list[Pool]]]:
    """Kind, name, and draws of every pool."""
    for world in worlds.worlds():
        pools = [worlds.draw(world, seed) for seed in range(draws)]
        if world["copies"]:
            yield "copies in 24", f"{world['copies']} of {world['copied']}", pools
        else:
            kind = "scattered mistakes" if world["holds"] else "shared mistakes"
            yield kind, f"{world['low']} to {world['high']}, share {world['share']}", pools
    for variants in (12, 24):
        for copies in (variants // 2, 2 * variants // 3):
            for accuracy in (0.2, 0.3, 0.45):
                for fidelity in (0.8, 0.87, 0.93):
                    pools = [near(seed, variants, copies, accuracy, fidelity) for seed in range(draws)]
                    yield "near copies", f"{copies} of {variants} copy {fidelity} of {accuracy}", pools
    for copies, accuracy in ((20, 0.3), (20, 0.6), (22, 0.3), (22, 0.6)):
        pools = [near(seed, 24, copies, accuracy, 0.87) for seed in range(draws)]
        yield "nearly all copies", f"{copies} of 24 copy 0.87 of {accuracy}", pools
    yield "clusters", "3 of 6, 6 others", [clusters(seed, 3, 6, 6) for seed in range(draws)]
    yield "clusters", "6 of 4", [clusters(seed, 6, 4, 0) for seed in range(draws)]
    for variants in (6, 7, 8):
        yield "two relatives, mostly wrong", f"of {variants}", [relatives(seed, variants) for seed in range(2 * draws)]
    for merges, prompts in ((12, 24), (12, 64), (37, 64), (97, 64)):
        for spread in (0.4, 0.15):
            for quality in (1.0, 0.7):
                pools = [landscape(seed, merges, prompts, spread, quality) for seed in range(draws)]
                yield "landscape", f"{merges} merges, {prompts} prompts, spread {spread}, quality {quality}", pools
    for benchmark in public.BENCHMARKS:
        pool = public.load(benchmark)
        for name, members in public.groups(pool).items():
            for prompts in (32, 64):
                yield "public", f"{benchmark} {name}, {prompts}", list(public.drawn(pool, members, prompts, draws))
        for size in public.SIZES:
            yield "public", f"{benchmark} {size} at random", list(public.small(pool, size, 64, draws))
        for how in public.POISONS:
            yield "poisoned", f"{benchmark}: {how}", list(public.poisoned(pool, how, draws))


def _copy(
    rng: np.random.Generator, answers: np.ndarray, chosen: np.ndarray, accuracy: float, fidelity: float,
    accuracies: np.ndarray,
) -> None:  # fmt: skip
    copied = worlds.draw_answers(rng, np.array([accuracy]), 0.0)[0]
    fresh = worlds.draw_answers(rng, np.full(len(chosen), accuracy), 0.0)
    answers[chosen] = np.where(rng.random(fresh.shape) < fidelity, copied, fresh)
    accuracies[chosen] = accuracy


def _pool(answers: np.ndarray, accuracies: np.ndarray) -> Pool:
    keys = [{p: [worlds.RIGHT if k == 0 else f"wrong {k}"] for p, k in enumerate(row)} for row in answers.tolist()]
    truths = dict.fromkeys(range(answers.shape[1]), worlds.RIGHT)
    return Pool([f"{i}" for i in range(len(answers))], keys, truths, accuracies)
