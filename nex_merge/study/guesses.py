"""First guesses that people bring (`study.guesses`): whether each is a merge of the search space."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nex_merge.errors import InputError
from nex_merge.records import SearchSpace
from nex_merge.setup.strict import is_number
from nex_merge.study.proposal import propose


def check_guesses(space: SearchSpace, models: Sequence[str], guesses: Sequence[Mapping[str, Any]]) -> None:
    """Raise InputError unless every guess gives a merge of the space all its study parameters, and no others."""
    references = {name: name for name in ("base", *models)}
    for place, guess in enumerate(guesses):
        where = f"study.guesses.{place}"
        recipe = propose(space, references, "float32", _Given(guess, where), 0)
        if unknown := [name for name in guess if name not in recipe.parameters]:
            known = ", ".join(recipe.parameters) or "no values that are searched"
            raise InputError(f"{where}: unknown parameter {unknown[0]!r} of the search space; this merge has {known}")


class _Given:
    """A suggester that knows one merge, and looks whether the space has it."""

    def __init__(self, guess: Mapping[str, Any], where: str) -> None:
        self._guess, self._where = guess, where

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._number(name, low, high, step)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._number(name, low, high, step)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        value = self._value(name)
        if value not in choices:
            raise InputError(f"{self._where}: {name}: expected {' or '.join(map(str, choices))}, got {value!r}")
        return value

    def _number(self, name: str, low: float, high: float, step: float | None) -> Any:
        value = self._value(name)
        steps = 0.0 if step is None or not is_number(value) else (value - low) / step
        if not is_number(value) or not low <= value <= high or not math.isclose(steps, round(steps), abs_tol=1e-6):
            grid = "" if step is None else f" in steps of {step:g}"
            raise InputError(f"{self._where}: {name}: expected a number from {low:g} to {high:g}{grid}, got {value!r}")
        return value

    def _value(self, name: str) -> Any:
        if name not in self._guess:
            raise InputError(f"{self._where}: {name}: missing; a guess has a value for all that the space searches")
        return self._guess[name]
