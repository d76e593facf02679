"""Jerk-limited online trajectories: from the commanded state towards a moving target, within limits.

Ruckig (Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States",
RSS 2021) computes the trajectory anew at every tick; only its state one tick later is used. The target is
where the path will be `LOOKAHEAD_S` from now, to be reached in that time: the commanded position then follows
the path without lag, and corners are rounded instead of chased. (Aiming at the path's present point in the
shortest time lags by 90 ms, backs up before each start and jerks twice as much.) Every joint is computed by
itself, so one far target does not slow the others. Pure: state in, state out. Units are those of the joints.
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


LOOKAHEAD_S = 0.1
"""How far ahead on the path the smoother aims. Longer: smoother, but corners are cut more."""


class Smoother:
    """Computes the next `Motion`. Holds only Ruckig's scratch memory, so equal inputs give equal outputs."""

    def __init__(self, limits: KinematicLimits, dt_s: float) -> None:
        self._dt_s = dt_s
        self._limits = limits
        self._otg = ruckig.Ruckig(1)
        self._trajectory = ruckig.Trajectory(1)

    def toward(
        self,
        motion: Motion,
        target: Sequence[float],
        target_velocity: Sequence[float],
        duration_s: float = LOOKAHEAD_S,
    ) -> Motion:
        """One tick on the way to `target` with `target_velocity`, to be there in `duration_s` (0: at once).

        What cannot be reached in that time is approached in the shortest time. Raises `SmootherError` for
        values that are not finite or a state that violates the limits.
        """
        return self._advance(
            motion,
            [
                self._request(motion, i, target[i], target_velocity[i], duration_s)
                for i in range(len(motion.position))
            ],
        )

    def brake(self, motion: Motion) -> Motion:
        """One tick of the fastest jerk-limited braking to rest."""
        return self._advance(motion, [self._braking(motion, i) for i in range(len(motion.position))])

    def stopping_position(self, motion: Motion) -> tuple[float, ...]:
        """Where braking from `motion` comes to rest."""
        rest = []
        for i in range(len(motion.position)):
            self._calculate(self._braking(motion, i))
            position, _, _ = self._trajectory.at_time(self._trajectory.duration)
            rest.append(position[0])
        return tuple(rest)

    def _state(self, motion: Motion, i: int) -> ruckig.InputParameter:
        request = ruckig.InputParameter(1)
        request.current_position = [motion.position[i]]
        request.current_velocity = [motion.velocity[i]]
        request.current_acceleration = [motion.acceleration[i]]
        request.max_velocity = [self._limits.velocity[i]]
        request.max_acceleration = [self._limits.acceleration[i]]
        request.max_jerk = [self._limits.jerk[i]]
        return request

    def _request(
        self, motion: Motion, i: int, target: float, velocity: float, duration_s: float
    ) -> ruckig.InputParameter:
        request = self._state(motion, i)
        request.target_position = [target]
        request.target_velocity = [self._without_run_up(motion, i, target, velocity)]
        if duration_s > 0:
            request.minimum_duration = duration_s
        return request

    def _braking(self, motion: Motion, i: int) -> ruckig.InputParameter:
        request = self._state(motion, i)
        request.control_interface = ruckig.ControlInterface.Velocity
        request.target_velocity = [0.0]
        return request

    def _without_run_up(self, motion: Motion, i: int, target: float, velocity: float) -> float:
        """The part of the target velocity that can be gained on the way to the target.

        Asked for more, a time-optimal trajectory backs up first to take a run. Over a distance d with
        acceleration a a joint gains v from v0 with v^2 = v0^2 + 2 a d (half of it is asked, for the jerk
        limit); with jerk j from rest v^3 = j d^2.
        """
        if not (math.isfinite(target) and math.isfinite(velocity)):
            raise SmootherError(f"the target {target} with velocity {velocity} is not finite")
        sign = math.copysign(1.0, velocity)
        distance = sign * (target - motion.position[i])
        if distance <= 0:
            return 0.0
        along = max(0.0, sign * motion.velocity[i])
        by_acceleration = math.sqrt(along**2 + self._limits.acceleration[i] * distance)
        by_jerk = along + (self._limits.jerk[i] * distance**2) ** (1 / 3)
        limit = 0.99 * self._limits.velocity[i]
        return sign * min(abs(velocity), by_acceleration, by_jerk, limit)

    def _advance(self, motion: Motion, requests: list[ruckig.InputParameter]) -> Motion:
        position, velocity, acceleration = [], [], []
        for request in requests:
            self._calculate(request)
            p, v, a = self._trajectory.at_time(self._dt_s)
            position.append(p[0])
            velocity.append(v[0])
            acceleration.append(a[0])
        if not all(map(math.isfinite, (*position, *velocity, *acceleration))):
            raise SmootherError(f"the trajectory from {motion} is not finite")
        return Motion(tuple(position), tuple(velocity), tuple(acceleration))

    def _calculate(self, request: ruckig.InputParameter) -> None:
        try:
            result = self._otg.calculate(request, self._trajectory)
        except ruckig.RuckigError as error:
            raise SmootherError(f"no trajectory within the limits: {error}") from error
        if result not in (ruckig.Result.Working, ruckig.Result.Finished):
            raise SmootherError(f"no trajectory within the limits: {result}")
