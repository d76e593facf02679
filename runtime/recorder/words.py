"""Numbers, durations and times of day as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

_DIGITS = {"rad": 3, "rad/s": 3, "%": 1, "%/s": 1, "V": 1, "C": 0, "": 0}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def number(value: float, unit: str) -> str:
    """A value with its unit, in the digits that mean something."""
    digits = (1 if abs(value) < 10 else 0) if unit == "ms" else _DIGITS.get(unit, 2)
    # Adding 0 takes the sign off a negative zero.
    text = f"{round(value, digits) + 0.0:.{digits}f}"
    return f"{text} {unit}" if unit else text


def duration(duration_ns: float) -> str:
    """Milliseconds up to ten seconds, then seconds."""
    return number(duration_ns / 1e6, "ms") if abs(duration_ns) < 1e10 else f"{duration_ns / 1e9:.1f} s"


def time_of_day(run: Mapping[str, Any], at_ns: int) -> str:
    """A CLOCK_MONOTONIC stamp as UTC, by the difference in run.json; without it, seconds since the boot."""
    shift_ns = run.get("utc_less_monotonic_ns")
    if not isinstance(shift_ns, int):
        return f"{at_ns / 1e9:.3f} s since the computer's start"
    moment = _EPOCH + timedelta(microseconds=(at_ns + shift_ns) // 1000)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"
