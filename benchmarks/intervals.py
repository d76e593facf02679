"""Intervals for counted outcomes."""

from __future__ import annotations

import math

Z_95 = 1.959964


def wilson(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share (0..1); (0, 1) without trials. E. B. Wilson, JASA 22 (1927)."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    denominator = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / denominator
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)


def share_text(successes: int, trials: int) -> str:
    """`22/24 = 92 % (95 % interval 74 to 98 %)`"""
    low, high = wilson(successes, trials)
    share = successes / trials if trials else math.nan
    percent = [f"{100 * value:.0f} %" for value in (share, low, high)]
    return f"{successes}/{trials} = {percent[0]} (95 % interval {percent[1]} to {percent[2]})"
