"""Checks of a setpoint by the arm's shape: distances, workspace, speed of the tip. Pure.

A setpoint is accepted only if the way to it and the whole way of braking from it keep all clearances. The
proof is not by dense sampling: from a pose at which everything is farther apart than its clearance by h, no
motion that changes distances by at most h can violate one, and `Body.reach` bounds how much a motion changes
them. So a stretch of the way is proven by one pose in its middle, or else it is halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .body import Body
from .smoother import Motion, Smoother
from .tools import TOLERANCE, Tools, Violation

if TYPE_CHECKING:
    from .config import CoreConfig

HALVINGS = 5
"""A way is halved at most so often."""
FINE_M = 0.0005
"""A stretch that changes distances by less than this to either side is not halved again."""
_SAME_M = 1e-9
"""Distances that differ by less are equal, but for rounding."""
_LATER_S = 1e-6
"""For rounding of the time at which a joint turns."""
_AHEAD_S = 1e-4
"""The stated velocity is judged by where the tip is so much later."""


def check_body(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    """Distances and workspace, from `before` to `after` and along the braking from there.

    Where something is too near already, it may move away, or stay: at every pose that is looked at it must
    be no nearer than at `before`; in between it can be nearer by at most the change of the stretch.
    """
    if tools.body is None:
        return None
    return _Way(tools.body, tools.smoother, before, after, config.dt_ns * 1e-9).judge()


def check_tool_speed(before: Motion, after: Motion, config: CoreConfig, tools: Tools) -> Violation | None:
    """The tip's speed from `before` to `after`, and at the velocity that `after` states."""
    limit, body = config.tool_speed_m_s, tools.body
    if limit is None or body is None:
        return None
    here = body.tip(after.position)
    ahead = [p + v * _AHEAD_S for p, v in zip(after.position, after.velocity, strict=True)]
    step = math.dist(body.tip(before.position), here) / (config.dt_ns * 1e-9)
    stated = math.dist(here, body.tip(ahead)) / _AHEAD_S
    allowed = limit * (1 + TOLERANCE) + TOLERANCE
    if not (step <= allowed and stated <= allowed):
        return Violation("tool_speed", f"the tip at {max(step, stated):.3f} m/s, limit {limit:g} m/s")
    return None


def describe_body(config: CoreConfig, body: Body | None) -> list[str]:
    """For people: one line per guard of this module, and for each that is not armed."""
    if body is None:
        return ["distances, workspace, tool speed: NOT checked (the robot file has no body)"]
    shape, rows = body.config, []
    for kind, to, clearance in (
        ("self_collision", "itself", shape.self_clearance_m),
        ("table_collision", ", ".join(shape.table) or "a table", shape.table_clearance_m),
    ):
        count = sum(pair.kind == kind for pair in body.pairs)
        if clearance is None:
            rows.append(f"distance to {to}: NOT checked")
        else:
            rows.append(
                f"distance to {to}: at least {clearance * 1e3:g} mm ({count} pairs), also while braking"
            )
    if shape.low is None or shape.high is None:
        rows.append("workspace: NOT checked")
    else:
        sides = zip("xyz", shape.low, shape.high, strict=True)
        box = ", ".join(f"{axis} {low * 1e3:g} .. {high * 1e3:g}" for axis, low, high in sides)
        rows.append(f"workspace: {shape.tip} in {box} mm, also while braking")
    speed = config.tool_speed_m_s
    rows.append(
        "tool speed: no limit of its own" if speed is None else f"tool speed: at most {speed * 1e3:g} mm/s"
    )
    return rows


class _Way:
    """From one setpoint to the next (time -dt .. 0), and on along the braking from there."""

    def __init__(self, body: Body, smoother: Smoother, before: Motion, after: Motion, dt_s: float) -> None:
        self._body, self._smoother = body, smoother
        self._before, self._after, self._dt_s = before, after, dt_s
        self._end_s = smoother.braking_s(after)
        self._turns = smoother.turning_back(after)

    def judge(self) -> Violation | None:
        start, end = self._before.position, self._smoother.stopping_position(self._after)
        return self._stretch(-self._dt_s, start, self._end_s, end, HALVINGS)

    def _stretch(
        self, start_s: float, start: Sequence[float], end_s: float, end: Sequence[float], halvings: int
    ) -> Violation | None:
        # In the middle of the distance, not of the time: braking evenly, an arm slows down linearly.
        left, right = self._end_s - start_s, self._end_s - end_s
        middle_s = self._end_s - math.sqrt((left * left + right * right) / 2)
        middle = self._at(middle_s)
        away = self._away(middle, start_s, start, end_s, end)
        if self._body.clear(middle, away):
            return None
        change = self._body.change(away)
        if halvings == 0 or max(change) <= FINE_M:
            return self._refusal(middle, middle_s, change)
        return self._stretch(start_s, start, middle_s, middle, halvings - 1) or self._stretch(
            middle_s, middle, end_s, end, halvings - 1
        )

    def _at(self, time_s: float) -> Sequence[float]:
        if time_s >= 0:
            return self._smoother.braking_at(self._after, time_s)
        share = 1 + time_s / self._dt_s
        return [a + (b - a) * share for a, b in zip(self._before.position, self._after.position, strict=True)]

    def _away(
        self,
        middle: Sequence[float],
        start_s: float,
        start: Sequence[float],
        end_s: float,
        end: Sequence[float],
    ) -> list[float]:
        """How far each joint gets from `middle` in a stretch: as at one of its ends, but for turning."""
        if start_s < 0 < end_s:
            poses = zip(middle, start, self._after.position, end, strict=True)
            away = [max(abs(a - m), abs(b - m), abs(c - m)) for m, a, b, c in poses]
        else:
            away = [max(abs(a - m), abs(b - m)) for m, a, b in zip(middle, start, end, strict=True)]
        for joint, time_s, far in self._turns:
            if start_s <= time_s + _LATER_S and time_s - _LATER_S <= end_s:
                away[joint] += far
        return away

    def _refusal(self, position: Sequence[float], time_s: float, change: Sequence[float]) -> Violation | None:
        """What is too near, or may be in the stretch around `position`, and is nearer than it was before."""
        body, before = self._body, self._before.position
        when = "at the setpoint" if time_s <= 0 else f"{time_s * 1e3:.0f} ms into braking from the setpoint"
        *more, tip_more = change
        was = body.distances(before)
        for near in body.near(position, more):
            if near.distance_m < was[near.pair] - _SAME_M:
                row = body.pairs[near.pair]
                unseen = near.distance_m >= row.clearance_m
                text = f"{body.describe(near)}{_unseen(more[near.pair]) if unseen else ''}"
                return Violation(row.kind, f"{text}, {when}")
        for side, (room, had) in enumerate(zip(body.rooms(position), body.rooms(before), strict=True)):
            if room < tip_more and room < had - _SAME_M:
                text = f"{body.describe_side(position, side)}{_unseen(tip_more) if room >= 0 else ''}"
                return Violation("workspace", f"{text}, {when}")
        return None


def _unseen(more_m: float) -> str:
    return f" (and {more_m * 1e3:.1f} mm for what lies between the poses looked at)"
