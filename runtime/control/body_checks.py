"""Checks of a setpoint by the arm's shape: distances, workspace, speed of the tip. Pure.

A setpoint is accepted only if the way to it and the whole way of braking from it keep all clearances. The
proof is not by dense sampling: from a pose at which everything is farther apart than its clearance by h, no
motion that changes distances by at most h can violate one, and `Body.weights` bound how much a motion changes
them. So a stretch of the way is proven by one pose in its middle, or else it is halved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .body import Body
from .smoother import Motion, Smoother
from .tools import Tools, Violation

if TYPE_CHECKING:
    from .config import CoreConfig

HALVINGS = 5
"""A way is halved at most so often."""
FINE_M = 0.0005
"""A stretch that changes distances by less than this to either side is not halved again."""
_SAME_M = 1e-9
"""Distances that differ by less are equal, but for rounding."""
_TOLERANCE = 1e-6
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
    allowed = limit * (1 + _TOLERANCE) + _TOLERANCE
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
        self._body, self._smoother, self._before, self._after, self._dt_s = (
            body,
            smoother,
            before,
            after,
            dt_s,
        )
        self._end_s = smoother.braking_s(after)
        self._turns = smoother.turning_back(after)
        self._distances: tuple[float, ...] | None = None
        self._rooms: tuple[float, ...] = ()

    def judge(self) -> Violation | None:
        first, last = self._before.position, self._at(self._end_s)
        middle = self._at(self._end_s / 2)
        more, tip_more = self._change(middle, (first, self._after.position, last), 0.0, self._end_s)
        if self._body.clear(middle, more, tip_more):
            return None
        step = self._stretch(-self._dt_s, first, 0.0, self._after.position, HALVINGS)
        return step or self._stretch(0.0, self._after.position, self._end_s, last, HALVINGS)

    def _stretch(
        self, start_s: float, start: Sequence[float], end_s: float, end: Sequence[float], halvings: int
    ) -> Violation | None:
        middle_s = (start_s + end_s) / 2
        middle = self._at(middle_s)
        more, tip_more = self._change(middle, (start, end), start_s, end_s)
        if self._body.clear(middle, more, tip_more):
            return None
        last = halvings == 0 or max(more, tip_more) <= FINE_M
        violation = self._refusal(middle, middle_s, *((more, tip_more) if last else (0.0, 0.0)))
        if violation is not None or last:
            return violation
        return self._stretch(start_s, start, middle_s, middle, halvings - 1) or self._stretch(
            middle_s, middle, end_s, end, halvings - 1
        )

    def _at(self, time_s: float) -> Sequence[float]:
        if time_s >= 0:
            return self._smoother.braking_at(self._after, time_s)
        share = 1 + time_s / self._dt_s
        return [a + (b - a) * share for a, b in zip(self._before.position, self._after.position, strict=True)]

    def _change(
        self, middle: Sequence[float], ends: Sequence[Sequence[float]], start_s: float, end_s: float
    ) -> tuple[float, float]:
        """By how much any distance, and the place of the tip, differ from those at `middle`, at most."""
        away = [max([abs(end[i] - m) for end in ends]) for i, m in enumerate(middle)]
        for joint, time_s, far in self._turns:
            # It gets farther than both ends of the stretch in which it turns.
            if start_s <= time_s + _LATER_S and time_s - _LATER_S <= end_s:
                away[joint] += far
        body = self._body
        return (
            sum([weight * x for weight, x in zip(body.weights, away, strict=True)]),
            sum([weight * x for weight, x in zip(body.tip_weights, away, strict=True)]),
        )

    def _refusal(
        self, position: Sequence[float], time_s: float, more_m: float, tip_more_m: float
    ) -> Violation | None:
        """What is nearer than its clearance and `more_m`, and nearer than before."""
        if self._distances is None:
            self._distances = self._body.distances(self._before.position)
            self._rooms = self._body.rooms(self._before.position)
        when = "at the setpoint" if time_s <= 0 else f"{time_s * 1e3:.0f} ms into braking from the setpoint"
        for near in self._body.near(position, more_m):
            if near.distance_m < self._distances[near.pair] - _SAME_M:
                text = self._body.describe(near)
                return Violation(self._body.pairs[near.pair].kind, f"{text}{_unseen(more_m)}, {when}")
        for side, (room, was) in enumerate(zip(self._body.rooms(position), self._rooms, strict=True)):
            if room < tip_more_m and room < was - _SAME_M:
                text = self._body.describe_side(position, side)
                return Violation("workspace", f"{text}{_unseen(tip_more_m)}, {when}")
        return None


def _unseen(more_m: float) -> str:
    return f" (and {more_m * 1e3:.1f} mm for what lies between the poses looked at)" if more_m else ""
