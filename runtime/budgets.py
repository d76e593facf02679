"""What each stage may take, and when it takes longer too often. Pure.

A budget is declared by the robot file (stages of a control tick) or by the bundle (stages of the policy), or
it follows from the rates and from what was measured at start. Overruns are counted since the start and in a
window of 10 s; too many of them there are the condition `over_budget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import Histogram

LEAST_OVERRUNS = 3
"""Fewer in a window are no condition, however large their share."""
HEADROOM = 1.5
"""A derived budget over what was measured, or is expected, at worst."""
CONTROL_SHARES = {"bus_read": 0.5, "step": 0.1, "bus_write": 0.2, "tick": 0.8, "joint_age": 0.5}
"""Derived budgets of a control tick, in control periods."""
WAKE_LATE_MS = 0.5
"""A tick that wakes later has missed its slot."""
POLICY_SHARE = 0.25
"""Derived budgets of the policy, in steps of the action; of what was measured to take longer, `HEADROOM`."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Of one process."""

    limits_ns: Mapping[str, int] = field(default_factory=dict)
    """Stage -> what it may take; stages that are missing have no budget."""
    max_fraction: float = 1.0
    """A larger share of overruns in a window is the condition `over_budget`."""


def control_budgets_ms(
    robot_ms: Mapping[Any, float], bundle_ms: Mapping[Any, float], period_s: float, first_use_s: float | None
) -> dict[str, float]:
    """Of the stages that control measures. `first_use_s`: when a chunk must be used at the latest
    (`schedulability.latest_first_use_s`); None for a sequential policy, whose arm holds until it is there."""
    derived = {stage: share * period_s * 1e3 for stage, share in CONTROL_SHARES.items()}
    derived["wake_late"] = WAKE_LATE_MS
    if first_use_s is not None:
        # No schedule that is ok takes longer.
        derived["camera_to_wire"] = first_use_s * 1e3
    bundle_ms = {stage: value for stage, value in bundle_ms.items() if stage == "camera_to_wire"}
    return {**derived, **robot_ms, **bundle_ms}


def policy_budgets_ms(
    bundle_ms: Mapping[Any, float], dt_s: float, session_run_ms: float, frame_ms: float
) -> dict[str, float]:
    """Of the stages that the policy process measures. `session_run_ms`: p99 measured at start; `frame_ms`:
    the oldest picture that inference is expected to start with."""
    share_ms = POLICY_SHARE * dt_s * 1e3
    derived = {
        "frame_age": max(share_ms, HEADROOM * frame_ms),
        "preprocess": share_ms,
        "session_run": max(share_ms, HEADROOM * session_run_ms),
        "postprocess": share_ms,
    }
    bundle_ms = {stage: value for stage, value in bundle_ms.items() if stage in derived}
    return {**derived, **bundle_ms}


def limits_ns(budgets_ms: Mapping[str, float]) -> dict[str, int]:
    return {stage: round(value * 1e6) for stage, value in budgets_ms.items()}


def overrun(histogram: Histogram, max_fraction: float) -> str:
    """Why a stage is above its budget too often in its window; empty while it is not."""
    over, count = histogram.window_over, histogram.window_count
    if over < LEAST_OVERRUNS or over <= max_fraction * count:
        return ""
    return (
        f"{histogram.stage}: {over} of {count} in the last 10 s took longer than the budget of "
        f"{histogram.budget_ns / 1e6:g} ms; {max_fraction:.0%} are tolerated"
    )
