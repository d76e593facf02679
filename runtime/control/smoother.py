"""Jerk-limited online trajectories: from the commanded state towards a moving target, within limits.

Ruckig (Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States",
RSS 2021) computes the time-optimal trajectory anew at every tick; only its state one tick later is used.
The functions here are pure: state in, state out. The units are those of the joints (rad, or a gripper's own).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import ruckig


class SmootherError(ValueError):
    """The state or target cannot be continued within the limits; control turns it into a stop."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Commanded position, velocity and acceleration of every joint."""

    position: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]

    @classmethod
    def at_rest(cls, position: Sequence[float]) -> Motion:
        zero = (0.0,) * len(position)
        return cls(tuple(position), zero, zero)


@dataclass(frozen=True, slots=True)
class KinematicLimits:
    """Symmetric limits per joint."""

    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    jerk: tuple[float, ...]


class Smoother:
    """Computes the next `Motion`. Holds only Ruckig's scratch memory, so equal inputs give equal outputs."""

    def __init__(self, limits: KinematicLimits, dt_s: float) -> None:
        n = len(limits.velocity)
        self._dof = n
        self._dt_s = dt_s
        self._limits = limits
        self._otg = ruckig.Ruckig(n)
        self._trajectory = ruckig.Trajectory(n)

    def toward(self, motion: Motion, target: Sequence[float], target_velocity: Sequence[float]) -> Motion:
        """One tick towards `target`, arriving with `target_velocity` (clipped to the limits).

        Raises `SmootherError` for values that are not finite or a state that violates the limits.
        """
        request = self._request(motion)
        request.control_interface = ruckig.ControlInterface.Position
        request.target_position = list(target)
        request.target_velocity = [
            max(-0.99 * limit, min(0.99 * limit, v))
            for v, limit in zip(target_velocity, self._limits.velocity, strict=True)
        ]
        request.synchronization = ruckig.Synchronization.No
        return self._advance(request)

    def brake(self, motion: Motion) -> Motion:
        """One tick of the fastest jerk-limited braking to rest."""
        request = self._request(motion)
        request.control_interface = ruckig.ControlInterface.Velocity
        request.target_velocity = [0.0] * self._dof
        request.synchronization = ruckig.Synchronization.No
        return self._advance(request)

    def stopping_position(self, motion: Motion) -> tuple[float, ...]:
        """Where braking from `motion` comes to rest."""
        request = self._request(motion)
        request.control_interface = ruckig.ControlInterface.Velocity
        request.target_velocity = [0.0] * self._dof
        request.synchronization = ruckig.Synchronization.No
        self._calculate(request)
        position, _, _ = self._trajectory.at_time(self._trajectory.duration)
        return tuple(position)

    def _request(self, motion: Motion) -> ruckig.InputParameter:
        request = ruckig.InputParameter(self._dof)
        request.current_position = list(motion.position)
        request.current_velocity = list(motion.velocity)
        request.current_acceleration = list(motion.acceleration)
        request.max_velocity = list(self._limits.velocity)
        request.max_acceleration = list(self._limits.acceleration)
        request.max_jerk = list(self._limits.jerk)
        return request

    def _advance(self, request: ruckig.InputParameter) -> Motion:
        self._calculate(request)
        position, velocity, acceleration = self._trajectory.at_time(self._dt_s)
        motion = Motion(tuple(position), tuple(velocity), tuple(acceleration))
        if not all(map(math.isfinite, (*motion.position, *motion.velocity, *motion.acceleration))):
            raise SmootherError("the trajectory is not finite")
        return motion

    def _calculate(self, request: ruckig.InputParameter) -> None:
        try:
            result = self._otg.calculate(request, self._trajectory)
        except ruckig.RuckigError as error:
            raise SmootherError(f"no trajectory within the limits: {error}") from error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise SmootherError(f"no trajectory within the limits: {result}")
