"""How often a run with equal variants claims that its best merge beats the best parent.

    python results/studies/odds.py        # writes odds.csv; about three minutes

Every variant's true value is the same. Its values on single prompts are a prompt's difficulty, which all share, plus
noise of its own; or right (1) and wrong (0) with the prompt's probability. 1 or 3 parents; 1, 12 or 40 merges; the
best merge is the one with the highest mean on the very prompts that it is judged by. `found` is the other side: how
often the corrected odds exceed 0.95 where one of the merges really is better, by one standard deviation of the noise
over a third of the square root of the number of prompts.
"""

import csv
from itertools import product
from pathlib import Path

import numpy as np

from nex_merge.resampling import odds_against, resamples

RUNS = 2000
LEVEL = 0.95


def draw(rng: np.random.Generator, kind: str, variants: int, prompts: int) -> np.ndarray:
    """Values by variant and prompt, float64 [variants, prompts], with equal expectations."""
    difficulty = rng.normal(size=prompts)
    if kind == "continuous":
        return difficulty + rng.normal(scale=0.5, size=(variants, prompts))
    return (rng.random((variants, prompts)) < 1 / (1 + np.exp(-2 * difficulty))).astype(float)


def claims(
    rng: np.random.Generator, kind: str, parents: int, merges: int, prompts: int, lead: float = 0.0
) -> tuple[bool, bool]:
    """Whether a run claims more than LEVEL: as version 0.1.0 did, and corrected for having been chosen."""
    parts = draw(rng, kind, parents + merges, prompts)
    parts[-1] += lead
    counts = resamples(np.arange(prompts), seed=int(rng.integers(2**31)))
    values, drawn = parts.mean(axis=1), parts @ counts.T / prompts
    parent, merge = int(values[:parents].argmax()), parents + int(values[parents:].argmax())
    ahead, tied = drawn[merge] > drawn[parent], drawn[merge] == drawn[parent]
    plain = float(np.mean(ahead + 0.5 * tied))
    corrected = odds_against(values[parents:], drawn[parents:], values[:parents], drawn[:parents], prompts)
    return (plain or 0.0) > LEVEL, bool(np.nanmax(corrected) > LEVEL)


def main() -> None:
    rows = []
    for kind, prompts, parents, merges in product(("continuous", "binary"), (24, 64), (1, 3), (1, 12, 40)):
        rng = np.random.default_rng([len(kind), prompts, parents, merges])
        equal = np.array([claims(rng, kind, parents, merges, prompts) for _ in range(RUNS)]).mean(axis=0)
        lead = 3 * 0.5 / np.sqrt(prompts)
        better = np.mean([claims(rng, kind, parents, merges, prompts, lead)[1] for _ in range(RUNS // 4)])
        setting = {"values": kind, "prompts": prompts, "parents": parents, "merges": merges, "runs": RUNS}
        found = {"version_0_1_0": f"{equal[0]:.4f}", "corrected": f"{equal[1]:.4f}", "found": f"{better:.3f}"}
        rows.append(setting | found)
        print(rows[-1], flush=True)
    with open(Path(__file__).with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
