"""The search space: merge methods and the values of their parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MethodParameter:
    """One parameter of a merge method, as mergekit's registry declares it."""

    name: str
    type: str  # float | int | bool
    per_model: bool  # each model takes its own value; otherwise one value for all
    required: bool
    default: Any


@dataclass(frozen=True)
class MethodSpec:
    """A merge method. `pairs`: it takes exactly two models, so the pair is searched as well."""

    name: str
    title: str
    parameters: Mapping[str, MethodParameter]
    names_base: bool  # the family's base is the recipe's base_model
    pairs: bool
    ordered: bool  # the order of a pair matters
    min_models: int  # minimum number of models besides the base
    stochastic: bool  # draws random masks


@dataclass(frozen=True)
class Dimension:
    """The values one parameter may take: a fixed value, choices, or a range from low to high."""

    type: str  # float | int | bool | str
    fixed: Any = None
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    @property
    def searched(self) -> bool:
        return self.choices is not None or self.low is not None


@dataclass(frozen=True)
class SearchSpace:
    """Methods and the dimensions of their parameters, shared by all models or narrowed for one."""

    methods: tuple[MethodSpec, ...]
    parameters: Mapping[str, Dimension]
    models: Mapping[str, Mapping[str, Dimension]]
    layer_groups: int
    filters: tuple[str, ...]

    def dimension(self, parameter: str, model: str | None) -> Dimension | None:
        """The dimension of a parameter; with `model`, that model's own if it has one."""
        narrowed = self.models.get(model, {}) if model is not None else {}
        return narrowed.get(parameter, self.parameters.get(parameter))
