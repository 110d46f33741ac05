"""Durations as people write them: `"500ms"`, `"5s"`, `"2h"`, or a plain number of seconds."""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated

from pydantic import BeforeValidator

from llb_core.validation import UNITS, show

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Return the seconds, to the millisecond, of `"500ms"`, `"5s"`, `"2h"`, or a plain number."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match:
            return round(float(match[1]) * UNITS[match[2]], 3)
    elif isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
        return round(float(value), 3)
    raise ValueError(f'{show(value)} is not a duration, like "500ms", "5s", "1m" or "2h"')


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # A whole number of some 300 digits and more.
        return False


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""The type of an option that is a duration: seconds, in a provider's model of its options."""
