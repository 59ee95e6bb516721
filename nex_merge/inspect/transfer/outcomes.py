"""Outcomes of models on labelled problems, and their differences with intervals. NumPy only.

Symbols: P problems, S seeds, B resamples. A resample draws problems and, independently, seeds with replacement. All
quantities use the same resamples, so that differences are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nex_merge.one_thread import on_one_thread
from nex_merge.resampling import interval, resamples

RESAMPLES = 1000
_SEED_OF_SEEDS = 1  # seeds are resampled independently of problems


@dataclass(frozen=True)
class Outcome:
    """The responses of one model to the problems."""

    right: np.ndarray  # bool [P]
    tokens: np.ndarray  # int64 [P]
    entropy: np.ndarray  # float64 [P]: mean over the tokens of a response, nats
    truncated: np.ndarray  # bool [P]: cut by max_new_tokens
    nex: float | None  # calibration self; None: undefined
    nex_drawn: np.ndarray  # float64 [B]: on resamples of the problems; NaN: undefined


@dataclass(frozen=True)
class Quantity:
    """A number with its value on every resample."""

    value: float | None  # None: undefined
    drawn: np.ndarray  # float64 [B]

    def __sub__(self, other: "Quantity") -> "Quantity":
        known = self.value is not None and other.value is not None
        return Quantity(self.value - other.value if known else None, self.drawn - other.drawn)  # pyright: ignore

    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % percentile interval; (None, None) if undefined."""
        return interval(self.drawn, self.drawn.size) if self.value is not None else (None, None)


def problem_counts(problems: int) -> np.ndarray:
    """The number of times each resample contains each problem, int64 [B, P]; B is 0 for a single problem."""
    return resamples(np.arange(problems), RESAMPLES if problems > 1 else 0)


@on_one_thread
def quantities(outcomes: Sequence[Outcome], kinds: Sequence[str]) -> dict[str, Quantity]:
    """Accuracy (overall, and by kind of problem if there are several), NEX, tokens, entropy and truncation.

    `outcomes`: one per seed, averaged. `kinds`: the kind of every problem, "" if it has none.
    """
    problems = len(outcomes[0].right)
    drawn_problems = problem_counts(problems).astype(np.float64)
    drawn_seeds = resamples(np.arange(len(outcomes)), len(drawn_problems), _SEED_OF_SEEDS) / len(outcomes)

    def mean(values: np.ndarray, of: np.ndarray) -> Quantity:
        by_seed = drawn_seeds @ values[:, of]
        sizes = drawn_problems[:, of].sum(1)
        with np.errstate(invalid="ignore"):
            return Quantity(float(values[:, of].mean()), (by_seed * drawn_problems[:, of]).sum(1) / sizes)

    right = np.stack([outcome.right for outcome in outcomes]).astype(np.float64)
    everything, named = np.ones(problems, bool), sorted({kind for kind in kinds if kind})
    found = {"accuracy": mean(right, everything)}
    for kind in named if len(named) > 1 else ():
        found[f"accuracy {kind}"] = mean(right, np.array([name == kind for name in kinds]))
    known = [outcome.nex for outcome in outcomes if outcome.nex is not None]
    drawn_nex = np.stack([outcome.nex_drawn for outcome in outcomes], axis=1)
    found["nex"] = Quantity(
        float(np.mean(known)) if len(known) == len(outcomes) else None, (drawn_seeds * drawn_nex).sum(1)
    )
    for name in ("tokens", "entropy", "truncated"):
        values = np.stack([getattr(outcome, name) for outcome in outcomes])
        found[name] = mean(values.astype(np.float64), everything)
    return found


def differences(first: Mapping[str, Quantity], second: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """First minus second, by measure."""
    return {name: first[name] - second[name] for name in first}
