"""The base of all settings."""

import math
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of all settings: immutable, no unknown keys, no type coercion ('5' is not 5), no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float; bools do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
