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
_ROUNDED = 1.001
"""For what rounding and `_NUDGES` may change."""
_NUDGES = (1e-9, 1e-6)
"""Relative: far below what any check of a setpoint can see."""
_GOOD = (ruckig.Result.Working, ruckig.Result.Finished)


class Smoother:
    """Computes the next `Motion`. Holds only Ruckig's scratch memory, so equal inputs give equal outputs.

    The requests are made once: making a new one for every joint took half the time of a tick.
    """

    def __init__(self, limits: KinematicLimits, dt_s: float) -> None:
        self._dt_s = dt_s
        joints = len(limits.velocity)
        self._limits = limits
        self._single = ruckig.Ruckig(1)
        self._path = ruckig.Trajectory(1)
        self._requests = [_request(limits, i, i + 1) for i in range(joints)]
        # All joints in one go: where all can be there in the time that they have, each takes just that.
        self._all = ruckig.Ruckig(joints)
        self._all_path = ruckig.Trajectory(joints)
        self._following = _request(limits, 0, joints)
        self._braking_path = ruckig.Trajectory(joints)
        self._braking_from: Motion | None = None
        self._braking_s = 0.0
        self._rest: tuple[float, ...] = ()
        self._braking = _request(limits, 0, joints)
        self._braking.control_interface = ruckig.ControlInterface.Velocity
        self._braking.synchronization = ruckig.Synchronization.No
        self._braking.target_velocity = [0.0] * joints

    def toward(
        self,
        motion: Motion,
        target: Sequence[float],
        target_velocity: Sequence[float],
        duration_s: float = LOOKAHEAD_S,
    ) -> Motion:
        """One tick on the way to `target` with `target_velocity`, to be there in `duration_s`.

        A joint that cannot be there in that time comes in the shortest time that it can. With 0 it is a pose:
        all joints arrive together, as soon as the slowest can. A joint for which Ruckig finds
        no path (its search has gaps at distances of nanometres) brakes in this tick. Raises `SmootherError`
        for values that are not finite. A state beyond the limits is brought back within them; the checks of
        the chain say whether it may be.
        """
        if not math.isfinite(sum(target) + sum(target_velocity)):
            raise SmootherError(f"the target {target} with velocity {target_velocity} is not finite")
        reachable = _without_run_up(motion, target, target_velocity, self._limits)
        minimum = duration_s if duration_s > 0 else None
        request, path = self._following, self._all_path
        request.current_position = motion.position
        request.current_velocity = motion.velocity
        request.current_acceleration = motion.acceleration
        request.target_position = target
        request.target_velocity = reachable
        request.minimum_duration = minimum
        if _attempt(self._all, request, path) is None and (minimum is None or path.duration <= minimum):
            # A pose is approached by all joints together: nearly straight, not past things to either side.
            return _finite(motion, *path.at_time(self._dt_s))
        # On a path, all together would wait for the slowest.
        return self._toward_one_by_one(motion, target, reachable, minimum)

    def _toward_one_by_one(
        self,
        motion: Motion,
        target: Sequence[float],
        target_velocity: Sequence[float],
        minimum: float | None,
    ) -> Motion:
        path, rows = self._path, []
        for request, p, v, a, wanted, wanted_velocity in zip(
            self._requests,
            motion.position,
            motion.velocity,
            motion.acceleration,
            target,
            target_velocity,
            strict=True,
        ):
            request.current_position = [p]
            request.current_velocity = [v]
            request.current_acceleration = [a]
            request.target_position = [wanted]
            request.target_velocity = [wanted_velocity]
            request.minimum_duration = minimum
            try:
                _calculate(self._single, request, path)
            except SmootherError:
                self._brake_one(request, path)
            rows.append([value[0] for value in path.at_time(self._dt_s)])
        return _finite(motion, *zip(*rows, strict=True))

    def brake(self, motion: Motion) -> Motion:
        """One tick of the fastest jerk-limited braking to rest."""
        return _finite(motion, *self._braked(motion).at_time(self._dt_s))

    def stopping_position(self, motion: Motion) -> tuple[float, ...]:
        """Where braking from `motion` comes to rest."""
        self._braked(motion)
        return self._rest

    def braking_s(self, motion: Motion) -> float:
        """How long the fastest braking from `motion` takes."""
        self._braked(motion)
        return self._braking_s

    def braking_at(self, motion: Motion, time_s: float) -> Sequence[float]:
        """The positions on that way, so long after `motion`."""
        return self._braked(motion).at_time(time_s)[0]

    def turning_back(self, motion: Motion) -> tuple[tuple[int, float, float], ...]:
        """(joint, when in s, how far from `motion` it is then, at most) for joints that turn on that way.

        Those decelerate by more than they need: taking the deceleration a back with jerk j costs a joint
        a^2 / 2j of its velocity v. If that is more than v, it comes to rest before its acceleration does, at
        the time t with v - a t + j t^2 / 2 = 0, and turns back.
        """
        turns = []
        for i, (v, a, jerk) in enumerate(
            zip(motion.velocity, motion.acceleration, self._limits.jerk, strict=True)
        ):
            if v * a < 0 and 2 * jerk * abs(v) < a * a:
                v, a = abs(v), abs(a)
                t = (a - math.sqrt(a * a - 2 * jerk * v)) / jerk
                turns.append((i, t, _ROUNDED * (v * t - a * t * t / 2 + jerk * t**3 / 6)))
        return tuple(turns)

    def _brake_one(self, request: ruckig.InputParameter, path: ruckig.Trajectory) -> None:
        request.control_interface = ruckig.ControlInterface.Velocity
        request.target_velocity = [0.0]
        request.minimum_duration = None
        try:
            _calculate(self._single, request, path)
        finally:
            request.control_interface = ruckig.ControlInterface.Position

    def _braked(self, motion: Motion) -> ruckig.Trajectory:
        """Several checks ask for the same braking: it is computed once."""
        if motion is self._braking_from:
            return self._braking_path
        self._braking_from = None
        request = self._braking
        request.current_position = motion.position
        request.current_velocity = motion.velocity
        request.current_acceleration = motion.acceleration
        path = self._braking_path
        _calculate(self._all, request, path)
        self._braking_from, self._braking_s = motion, path.duration
        # Joints that rest before the last one does, stay where they are.
        self._rest = tuple(path.at_time(self._braking_s)[0])
        return path


def _without_run_up(
    motion: Motion, target: Sequence[float], target_velocity: Sequence[float], limits: KinematicLimits
) -> list[float]:
    """Per joint the part of the target velocity that can be gained on the way to the target.

    Asked for more, a time-optimal trajectory backs up first to take a run. Over a distance d with
    acceleration a a joint gains v from v0 with v^2 = v0^2 + 2 a d (half of it is asked, for the jerk
    limit); with jerk j from rest v^3 = j d^2.
    """
    reachable = []
    for here, velocity, there, wanted, most, acceleration, jerk in zip(
        motion.position,
        motion.velocity,
        target,
        target_velocity,
        limits.velocity,
        limits.acceleration,
        limits.jerk,
        strict=True,
    ):
        sign = 1.0 if wanted >= 0 else -1.0
        distance = sign * (there - here)
        if distance <= 0:
            reachable.append(0.0)
            continue
        along = sign * velocity
        if along < 0:
            along = 0.0
        by_acceleration = math.sqrt(along * along + acceleration * distance)
        by_jerk = along + (jerk * distance * distance) ** (1 / 3)
        reachable.append(sign * min(sign * wanted, by_acceleration, by_jerk, 0.99 * most))
    return reachable


def _request(limits: KinematicLimits, first: int, end: int) -> ruckig.InputParameter:
    """A request with the limits of the joints `first` .. `end - 1`."""
    request = ruckig.InputParameter(end - first)
    request.max_velocity = limits.velocity[first:end]
    request.max_acceleration = limits.acceleration[first:end]
    request.max_jerk = limits.jerk[first:end]
    return request


def _calculate(otg: ruckig.Ruckig, request: ruckig.InputParameter, path: ruckig.Trajectory) -> None:
    """Fills `path`. Where a phase of the shortest path vanishes to the last bit, Ruckig sometimes finds none
    for a rounding error: it is asked again with a jerk limit that is a hair lower."""
    problem = _attempt(otg, request, path)
    if problem is None:
        return
    jerk = request.max_jerk
    for nudge in _NUDGES:
        request.max_jerk = [value * (1 - nudge) for value in jerk]
        again = _attempt(otg, request, path)
        request.max_jerk = jerk
        if again is None:
            return
    raise SmootherError(f"no trajectory within the limits: {problem}")


def _attempt(otg: ruckig.Ruckig, request: ruckig.InputParameter, path: ruckig.Trajectory) -> str | None:
    """What went wrong, if anything did."""
    try:
        result = otg.calculate(request, path)
    except ruckig.RuckigError as error:
        return str(error)
    return None if result in _GOOD else str(result)


def _finite(
    before: Motion, position: Sequence[float], velocity: Sequence[float], acceleration: Sequence[float]
) -> Motion:
    if not math.isfinite(sum(position) + sum(velocity) + sum(acceleration)):
        raise SmootherError(f"the trajectory from {before} is not finite")
    return Motion(tuple(position), tuple(velocity), tuple(acceleration))
