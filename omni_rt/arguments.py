"""What callers hand over, checked: a wrong kind of value is named at once, not found later inside a stage."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_rt.errors import InputError


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number that is at least `least`; raise InputError for anything else."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise InputError(f"{name} is {value!r}, expected a whole number{bound}")
    return int(value)


def text(name: str, value: Any) -> str:
    """Return a string; raise InputError for anything else."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {type(value).__name__}, expected a string")
    return value


def optional(name: str, value: Any, *kinds: type) -> Any:
    """Return None or a value of one of the kinds; raise InputError for anything else."""
    if value is not None and not isinstance(value, kinds):
        expected = " or ".join("a string" if kind is str else f"a {kind.__name__}" for kind in kinds)
        raise InputError(f"{name} is {type(value).__name__}, expected {expected}")
    return value
