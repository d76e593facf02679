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


def difference(a: tuple[int, int], b: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's 95 % interval of the difference of two shares, `a` - `b`, each (successes, trials).

    R. G. Newcombe, Statistics in Medicine 17 (1998), method 10: from the two Wilson intervals.
    """
    (low_a, high_a), (low_b, high_b) = wilson(*a), wilson(*b)
    share_a, share_b = (successes / trials if trials else math.nan for successes, trials in (a, b))
    apart = share_a - share_b
    return (
        apart - math.hypot(share_a - low_a, high_b - share_b),
        apart + math.hypot(high_a - share_a, share_b - low_b),
    )


def exact_upper(events: int, trials: int, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a share; 1 without trials. With no event in n trials it is
    1 - (1 - confidence)^(1/n), the "rule of three".

    C. J. Clopper and E. S. Pearson, Biometrika 26 (1934): the share at which so few events have the
    probability 1 - `confidence`. Found by bisection, the sum in logarithms.
    """
    if trials <= 0 or events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(events: int, trials: int, share: float) -> float:
    """Probability of at most `events` in `trials`, each with probability `share`."""
    if share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    return math.fsum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(share)
            + (trials - k) * math.log1p(-share)
        )
        for k in range(events + 1)
    )


def upper_rate(count: int, hours: float) -> float:
    """The exact upper 95 % bound of a rate per hour (Poisson): 3 in an hour without any."""
    low, high = 0.0, 20.0 + 4.0 * count
    for _ in range(100):
        mean = (low + high) / 2
        term = total = math.exp(-mean)
        for k in range(1, count + 1):
            term *= mean / k
            total += term
        low, high = (mean, high) if total > 0.05 else (low, mean)
    return high / hours
