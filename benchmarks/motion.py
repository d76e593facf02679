"""What an attempt's motion was like: jerk, jumps where chunks begin, ages, standstill. Pure, on arrays.

All of it is about the arm's joints (rad); the gripper is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..runtime.control.smoother import Motion

Floats = NDArray[np.float64]
_BEFORE, _AFTER = 3, 3
"""Ticks on either side of a boundary from which its jumps are taken."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One attempt, tick by tick (T ticks, J arm joints)."""

    dt_s: float
    target: Floats
    """[T, J]: what the strategy asked for; the commanded position where it asked for nothing."""
    position: Floats
    """[T, J], and the next two likewise: the commanded motion."""
    velocity: Floats
    acceleration: Floats
    began: NDArray[np.bool_]
    """[T]: a chunk took effect in this tick."""
    age_s: Floats
    """[T]: age of the newest observation behind the command; NaN where no chunk was followed."""

    @property
    def boundaries(self) -> NDArray[np.int64]:
        """Ticks at which a chunk followed on another, with enough ticks on both sides to measure a jump."""
        ticks = np.flatnonzero(self.began)[1:]
        return ticks[(ticks >= _BEFORE) & (ticks <= len(self.began) - _AFTER)]

    @property
    def waiting(self) -> NDArray[np.bool_]:
        """[T]: the first chunk had begun, and none was there to follow: it had run out."""
        return np.isnan(self.age_s) & (np.cumsum(self.began) > 0)


@dataclass(slots=True)
class Recorder:
    """Collects a `Trace`."""

    dt_s: float
    joints: Sequence[int]
    """Indices of the arm's joints."""
    _rows: list[tuple[tuple[float, ...] | None, Motion, bool, float]] = field(default_factory=list)

    def add(self, target: tuple[float, ...] | None, motion: Motion, began: bool, age_s: float) -> None:
        """One tick: what was asked for, what is commanded, whether a chunk took effect, the age behind it."""
        self._rows.append((target, motion, began, age_s))

    def trace(self) -> Trace:
        joints = list(self.joints)

        def column(rows: list[tuple[float, ...]]) -> Floats:
            return (
                np.array(rows, float).reshape(len(rows), -1)[:, joints]
                if rows
                else np.empty((0, len(joints)))
            )

        targets, motions, began, ages = zip(*self._rows, strict=True) if self._rows else ((), (), (), ())
        return Trace(
            self.dt_s,
            column([t or m.position for t, m in zip(targets, motions, strict=True)]),
            column([m.position for m in motions]),
            column([m.velocity for m in motions]),
            column([m.acceleration for m in motions]),
            np.array(began, bool),
            np.array(ages, float),
        )


def jerk(trace: Trace) -> Floats:
    """[T, J]: jerk of the commanded joints (rad/s^3); the arm starts at rest."""
    before = np.vstack([np.zeros_like(trace.acceleration[:1]), trace.acceleration])
    return np.diff(before, axis=0) / trace.dt_s


def target_jumps(trace: Trace) -> Floats:
    """[B, 3]: at each boundary, by how much what is ASKED FOR leaves its own trend; the largest joint counts.

    Let k be the boundary's tick and D(m) = p[m] - 2 p[m-1] + p[m-2] the second difference.

    - Position (rad) and velocity (rad/s): the difference at k between the parabola through the targets of
      ticks k - 3 .. k - 1, continued, and the parabola through ticks k .. k + 2.
    - Acceleration (rad/s^2): the larger change of D / dt^2 from k - 1 to k and to k + 1: what following the
      target exactly would take beyond the trend. A jump of the position or a corner counts in full here,
      while a curve without either shows its own change of acceleration only.
    """
    p, dt = trace.target, trace.dt_s
    k = trace.boundaries
    a, b, c = p[k - 3], p[k - 2], p[k - 1]
    d, e, f = p[k], p[k + 1], p[k + 2]
    position = d - (3 * c - 3 * b + a)
    velocity = (-3 * d + 4 * e - f) / (2 * dt) - (5 * c - 8 * b + 3 * a) / (2 * dt)
    trend = c - 2 * b + a
    acceleration = np.maximum(np.abs(d - 2 * c + b - trend), np.abs(e - 2 * d + c - trend)) / dt**2
    return _largest(position, velocity, acceleration)


def command_jumps(trace: Trace) -> Floats:
    """[B, 3]: the same of what is COMMANDED, in the tick k of the boundary: position against
    p + v dt + a dt^2 / 2, velocity against v + a dt, acceleration against a, of tick k - 1. Here position,
    velocity and acceleration are the smoother's own, no differences of samples."""
    p, v, a, dt = trace.position, trace.velocity, trace.acceleration, trace.dt_s
    k = trace.boundaries
    b = k - 1
    return _largest(p[k] - (p[b] + v[b] * dt + a[b] * dt**2 / 2), v[k] - (v[b] + a[b] * dt), a[k] - a[b])


def _largest(*jumps: Floats) -> Floats:
    return np.stack([np.abs(jump).max(axis=1, initial=0.0) for jump in jumps], axis=1)
