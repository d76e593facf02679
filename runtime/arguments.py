"""Types for argparse: numbers within bounds, refused with a sentence that says what is expected."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Whole numbers of `low` .. `high` (both included; None: no upper bound)."""
    expected = f"a whole number from {low}" + (" on" if high is None else f" to {high}")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def number(
    low: float, high: float = math.inf, *, unit: str = "", low_excluded: bool = False
) -> Callable[[str], float]:
    """Finite numbers of `low` .. `high`, both included but for `low_excluded`."""
    low_text = f"above {low:g}" if low_excluded else f"from {low:g}"
    high_text = f" up to {high:g}" if math.isfinite(high) else "" if low_excluded else " on"
    expected = f"a number {low_text}{high_text}{f', in {unit}' if unit else ''}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # A NaN compares as outside.
        inside = (low < value if low_excluded else low <= value) and value <= high and math.isfinite(value)
        if not inside:
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def own_core(text: str) -> int:
    """The number of a CPU core that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    if not text.isdecimal() or int(text) not in cores:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of this process's cores: {cores}")
    return int(text)


def seed_number(text: str) -> int:
    """A seed: a whole number that fits 32 bits."""
    return whole_number(0, 2**32 - 1)(text)
