"""Bounds on measures that a merge has to keep (`study.constraints`), and how far it is beyond them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nex_merge.errors import InputError
from nex_merge.measures.registry import MEASURES
from nex_merge.records import Estimate
from nex_merge.setup.config import nearest
from nex_merge.setup.study_config import StudyConfig, split_bound

# The violation of a measure without a value: as if it were off by all of its bound.
UNDEFINED = 1.0


@dataclass(frozen=True)
class Constraint:
    """A bound on a measure."""

    measure: str
    sign: int  # +1: at most the bound; -1: at least
    bound: float

    def violation(self, value: float | None) -> float:
        """How far a value is beyond the bound, as a share of the bound (of 0: as it is); above 0, it is violated."""
        if value is None:
            return UNDEFINED
        excess = self.sign * (value - self.bound)
        return excess / abs(self.bound) if self.bound else excess

    def reason(self, value: float | None) -> str:
        """Why a value violates it."""
        relation, got = ">=" if self.sign < 0 else "<=", "no value" if value is None else f"{value:.6g}"
        return f"study.constraints.{self.measure}: expected {relation} {self.bound:g}, got {got}"


def constraints_of(study: StudyConfig) -> tuple[Constraint, ...]:
    """The constraints of a study. Raises InputError if one names no measure, or no value of it can keep the bound."""
    found = []
    for name, text in study.constraints.items():
        if name not in MEASURES:
            raise InputError(f"study.constraints: unknown measure {name!r}.{nearest(name, list(MEASURES))}")
        sign, bound = split_bound(text)
        highest = MEASURES[name].highest
        if (sign == ">=" and bound > highest) or (sign == "<=" and bound < 0):
            between = "never below 0" if math.isinf(highest) else f"between 0 and {highest:g}"
            raise InputError(
                f"study.constraints.{name}: no merge can keep {text!r}, as {name} is {between}. Use a bound that "
                "it can keep"
            )
        found.append(Constraint(name, 1 if sign == "<=" else -1, bound))
    return tuple(found)


def violations(
    constraints: Sequence[Constraint], estimates: Mapping[str, Estimate]
) -> tuple[dict[str, float], list[str]]:
    """How far a variant's estimates are beyond each constraint, by measure, and a reason for each that is violated."""
    values = {item.measure: estimates[item.measure].value for item in constraints}
    found = {item.measure: item.violation(values[item.measure]) for item in constraints}
    return found, [item.reason(values[item.measure]) for item in constraints if found[item.measure] > 0]
