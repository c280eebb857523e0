"""Checks of hyperparameters: a ``ValueError`` names the one, what it got and what it needs."""

import math
from collections.abc import Callable
from typing import Any


def require_number(name: str, value: object) -> None:
    """``value`` must be a finite number."""
    _require(name, value, "a finite number", lambda number: True)


def require_positive(name: str, value: object) -> None:
    """``value`` must be a finite number above zero."""
    _require(name, value, "a finite number above 0", lambda number: number > 0)


def require_weight(name: str, value: object) -> None:
    """``value`` must be a finite number that is not negative."""
    _require(name, value, "a finite number, 0 or more", lambda number: number >= 0)


def _require(name: str, value: Any, what: str, holds: Callable[[float], bool]) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and holds(value)):
        raise ValueError(f"{name} must be {what}, got {value!r}")
