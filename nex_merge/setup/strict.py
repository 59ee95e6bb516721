"""The base of all settings."""

import math
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict, field_validator

# The largest integer of any setting.
MOST = 10**15


class Strict(BaseModel):
    """Base of all settings: immutable, no unknown keys, no type coercion ('5' is not 5), no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        """Refuses integers that no search can count to, and that libraries can't hold."""
        if isinstance(value, int) and abs(value) > MOST:
            raise ValueError(f"an integer of at most {len(str(MOST)) - 1} digits")
        return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float; bools do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf
