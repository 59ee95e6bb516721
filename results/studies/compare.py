"""How often a blind comparison is wrong, and how many looks it takes: simulated, and with labels in the judge's place.

    python results/studies/compare.py              # compare.csv; four minutes on one core
    python results/studies/compare.py FOLDER...    # the same, and runs that kin.py made, judged by their labels

`simulated`: two variants answer 64 or 256 prompts and differ on a share of them, on average; a quarter of these are
ties. The true difference is the share of all prompts that there could be on which a judge prefers the first, minus the
second's; a run's prompts are a sample of these. Tests, all two-sided at 5 %:

- `product`: nex_merge.sequential, the mixture Beta(2, 2) under the exact bound for the number of prompts;
- `jeffreys`, `uniform`, `beta5`: other mixtures, under their exact bounds;
- `ville`, `ville jeffreys`: Beta(2, 2) and Beta(1/2, 1/2) under the bound for any number of prompts, 20;
- `these prompts`: Beta(2, 2) against all populations of the run's own prompts in which the first is not preferred more
  often, drawn without replacement (Waudby-Smith and Ramdas, 2020), certain once all are looked at;
- `peeking`: a plain sign test after every look, until it is below 5 %;
- `all looks`: one sign test at the end.

`labelled`: the pick against base, and against the better member. Right beats wrong; two right answers are both good,
two wrong ones neither. The order is drawn anew 1,000 times.
"""

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from kin import _stands_in, questions
from scipy.stats import binomtest

from nex_merge.compare.pairs import open_comparison
from nex_merge.runs.run import RunFolder
from nex_merge.sequential import ERROR, majorities, stand

HERE = Path(__file__).parent
DRAWS, ORDERS = 2000, 1000
DIFFERENCES, SHARES, PROMPTS, TIES = (0.0, 0.05, 0.1, 0.2, 0.3), (0.2, 0.5), (64, 256), 0.25
FIELDS = (
    "part", "prompts", "share_differing", "difference", "test", "draws", "wrong", "right", "open", "looks",
    "looks_if_settled", "run", "pair", "differing", "first_right", "second_right",
)  # fmt: skip
Needed = tuple[int, ...]  # by looks that decide: how many have to prefer the same to settle it


@cache
def evidence(decided: int, shape: float) -> np.ndarray:
    """Logarithm of the mixture's likelihood ratio by how many prefer the first, float64 [decided + 1]."""
    parts = np.array([math.lgamma(a + shape) for a in range(decided + 1)])
    constant = math.lgamma(2 * shape) - 2 * math.lgamma(shape) - math.lgamma(decided + 2 * shape)
    return constant + decided * math.log(2) + parts + parts[::-1]


def under(prompts: int, bound: float, shape: float) -> Needed:
    """The majorities at which the evidence reaches a bound."""
    found = []
    for decided in range(prompts + 1):
        enough = [a for a in range((decided + 1) // 2, decided + 1) if evidence(decided, shape)[a] >= bound - 1e-9]
        found.append(enough[0] if enough else decided + 1)
    return tuple(found)


def crossed(needed: Needed) -> float:
    """The probability that majorities are reached where neither is better."""
    left, reached = {0: 1.0}, 0.0
    for decided in range(1, len(needed)):
        moved: dict[int, float] = {}
        for a, mass in left.items():
            for after in (a, a + 1):
                moved[after] = moved.get(after, 0.0) + mass / 2
        done = [a for a in moved if max(a, decided - a) >= needed[decided]]
        reached += sum(moved.pop(a) for a in done)
        left = moved
    return reached


@cache
def exact(prompts: int, shape: float) -> Needed:
    """The majorities under the lowest bound that keeps the error for this number of prompts."""
    bounds = sorted({round(float(value), 9) for d in range(prompts + 1) for value in evidence(d, shape)})
    low, high = 0, len(bounds)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if crossed(under(prompts, bounds[middle], shape)) <= ERROR else (middle + 1, high)
    return under(prompts, bounds[low] if low < len(bounds) else math.inf, shape)


@cache
def ville(prompts: int, shape: float) -> Needed:
    return under(prompts, -math.log(ERROR), shape)


@cache
def peeking(prompts: int) -> Needed:
    """The majorities at which a plain sign test is below 5 %."""
    found = []
    for d in range(prompts + 1):
        enough = [a for a in range((d + 1) // 2, d + 1) if d and binomtest(a, d).pvalue <= ERROR]
        found.append(enough[0] if enough else d + 1)
    return tuple(found)


def at_the_end(outcomes: Sequence[int]) -> tuple[int, int]:
    first, decided = sum(o > 0 for o in outcomes), sum(o != 0 for o in outcomes)
    is_told = decided > 0 and binomtest(first, decided).pvalue <= ERROR
    return (1 if 2 * first > decided else -1) if is_told else 0, len(outcomes)


def sequential(outcomes: Sequence[int], needed: Needed) -> tuple[int, int]:
    """(1, -1 or 0 for not settled, looks): stops where it is settled, or can't be settled any more."""
    first = second = 0
    for look, outcome in enumerate(outcomes, 1):
        first, second = first + (outcome > 0), second + (outcome < 0)
        d, most, left = first + second, max(first, second), len(outcomes) - look
        if most >= needed[d]:
            return (1 if first > second else -1), look
        if all(most + k < needed[d + k] for k in range(1, left + 1)):
            return 0, look
    return 0, len(outcomes)


def of_these(outcomes: Sequence[int]) -> tuple[int, int]:
    """The same where the claim is on these prompts alone: the null has the likelihood of a draw without replacement."""
    first = second = ties = 0
    for look, outcome in enumerate(outcomes, 1):
        first, second, ties = first + (outcome > 0), second + (outcome < 0), ties + (outcome == 0)
        if outcome and first != second:
            most, least = max(first, second), min(first, second)
            null = _likeliest(most, least, len(outcomes) - ties)
            mixture = evidence(most + least, 2.0)[most] - (most + least) * math.log(2)
            if mixture - null >= -math.log(ERROR):
                return (1 if first > second else -1), look
    return 0, len(outcomes)


@cache
def _likeliest(most: int, least: int, deciding: int) -> float:
    """The largest log-likelihood of a sequence under a population of which at most half prefers the one that leads."""
    best = -math.inf
    for size in range(most + least, deciding + 1):
        for_it = size // 2
        if for_it >= most and size - for_it >= least:
            found = math.lgamma(for_it + 1) - math.lgamma(for_it - most + 1)
            found += math.lgamma(size - for_it + 1) - math.lgamma(size - for_it - least + 1)
            best = max(best, found - math.lgamma(size + 1) + math.lgamma(size - most - least + 1))
    return best


TESTS: dict[str, Callable[[Sequence[int]], tuple[int, int]]] = {
    "product": lambda o: sequential(o, majorities(len(o))),
    "jeffreys": lambda o: sequential(o, exact(len(o), 0.5)),
    "uniform": lambda o: sequential(o, exact(len(o), 1.0)),
    "beta5": lambda o: sequential(o, exact(len(o), 5.0)),
    "ville": lambda o: sequential(o, ville(len(o), 2.0)),
    "ville jeffreys": lambda o: sequential(o, ville(len(o), 0.5)),
    "these prompts": of_these,
    "peeking": lambda o: sequential(o, peeking(len(o))),
    "all looks": at_the_end,
}


def simulated() -> Iterator[dict[str, object]]:
    for prompts in PROMPTS:
        for share in SHARES:
            for difference in DIFFERENCES:
                p = 0.5 + difference / (2 * share * (1 - TIES))
                if p > 1:  # they don't differ on as many prompts
                    continue
                rng = np.random.default_rng([prompts, int(100 * share), int(100 * difference)])
                drawn = [_outcomes(rng, int(rng.binomial(prompts, share)), p) for _ in range(DRAWS)]
                for name, test in TESTS.items():
                    setting = {"part": "simulated", "prompts": prompts, "share_differing": share}
                    yield (
                        setting
                        | {"difference": difference, "test": name}
                        | _told([test(one) for one in drawn], difference)
                    )


def _outcomes(rng: np.random.Generator, count: int, p: float) -> list[int]:
    signs = np.where(rng.random(count) < p, 1, -1)
    return np.where(rng.random(count) < TIES, 0, signs).tolist()


def _told(found: Sequence[tuple[int, int]], difference: float) -> dict[str, object]:
    said, looks = np.array([one for one, _ in found]), np.array([count for _, count in found])
    better = int(np.sign(difference))
    wrong = said == -better if better else said != 0
    settled = looks[said != 0]
    return {
        "draws": len(found), "wrong": f"{wrong.mean():.4f}",
        "right": f"{(said == better).mean():.4f}" if better else "", "open": f"{(said == 0).mean():.4f}",
        "looks": f"{looks.mean():.1f}", "looks_if_settled": f"{settled.mean():.1f}" if len(settled) else "",
    }  # fmt: skip


def labelled(folder: Path) -> Iterator[dict[str, object]]:
    """The pick against base, then against the best member by consensus: right beats wrong."""
    run, answers = RunFolder(folder), [answer for _, answer in questions()]
    default = open_comparison(run).comparison.between
    for pair in dict.fromkeys([(default[0], "base"), default]):
        opened = open_comparison(run, pair)
        order = opened.comparison.order
        right = np.array([[_stands_in(answers[p], one.text) for one in opened.answers[p]] for p in order])
        signs = right[:, 0].astype(int) - right[:, 1]
        state = stand(signs.tolist(), len(order))
        about = {"part": "labelled", "run": folder.name, "pair": " against ".join(pair), "differing": len(order),
                 "prompts": opened.comparison.prompts, "first_right": int(right[:, 0].sum()),
                 "second_right": int(right[:, 1].sum())}  # fmt: skip
        print(f"{folder.name}, {about['pair']}: in the order drawn, {state}")
        rng = np.random.default_rng(0)
        for name in ("product", "ville", "all looks"):
            found = [TESTS[name](rng.permutation(signs).tolist()) for _ in range(ORDERS)]
            yield about | {"test": name} | _told(found, float(signs.sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    rows = list(simulated()) + [row for folder in parser.parse_args().folders for row in labelled(folder)]
    with open(HERE / "compare.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
