"""Ticks of a servo <-> the robot's units, and LeRobot's units <-> both.

The robot's unit of a joint is the shaft's true angle in rad, zero in the middle of the calibrated range
(4096 ticks to a turn), or for a gripper the percentage of that range. LeRobot (0.4.4,
`MotorsBus._normalize`) measures degrees with a divisor of 4095 and ignores `drive_mode` for them; its
percentages are clamped to the range and honour `drive_mode`. A policy trained on its data must meet exactly
these conversions, so they stand here as pure functions over (unrounded) ticks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .calibration import TICKS_PER_TURN, Calibration, JointCalibration
from .errors import ConfigError
from .robots.schema import Robot

TICKS_PER_RAD = TICKS_PER_TURN / (2 * math.pi)
LEROBOT_TICKS_PER_DEGREE = (TICKS_PER_TURN - 1) / 360
POLICY_UNITS = ("rad", "deg", "pm100_of_range", "0_100_of_range")


def ticks_from_degrees(value: float, joint: JointCalibration) -> float:
    """LeRobot's DEGREES. LeRobot cuts the fraction off; ours keeps it, since a smoother follows."""
    return value * LEROBOT_TICKS_PER_DEGREE + joint.middle


def degrees_from_ticks(ticks: float, joint: JointCalibration) -> float:
    return (ticks - joint.middle) / LEROBOT_TICKS_PER_DEGREE


def ticks_from_pm100(value: float, joint: JointCalibration) -> float:
    """LeRobot's RANGE_M100_100: -100..100 over the calibrated range, clamped to it."""
    signed = -value if joint.drive_mode else value
    return (_clamp(signed, -100.0, 100.0) + 100) / 200 * joint.span + joint.range_min


def pm100_from_ticks(ticks: float, joint: JointCalibration) -> float:
    inside = _clamp(ticks, joint.range_min, joint.range_max)
    value = (inside - joint.range_min) / joint.span * 200 - 100
    return -value if joint.drive_mode else value


def ticks_from_0_100(value: float, joint: JointCalibration) -> float:
    """LeRobot's RANGE_0_100: 0..100 over the calibrated range, clamped to it."""
    signed = 100 - value if joint.drive_mode else value
    return _clamp(signed, 0.0, 100.0) / 100 * joint.span + joint.range_min


def range_0_100_from_ticks(ticks: float, joint: JointCalibration) -> float:
    inside = _clamp(ticks, joint.range_min, joint.range_max)
    value = (inside - joint.range_min) / joint.span * 100
    return 100 - value if joint.drive_mode else value


def ticks_from_rad(value: float, joint: JointCalibration) -> float:
    """The shaft's true angle; zero in the middle of the calibrated range."""
    return value * TICKS_PER_RAD + joint.middle


def rad_from_ticks(ticks: float, joint: JointCalibration) -> float:
    return (ticks - joint.middle) / TICKS_PER_RAD


Conversion = Callable[[float, JointCalibration], float]

TO_TICKS: dict[str, Conversion] = {
    "rad": ticks_from_rad,
    "deg": ticks_from_degrees,
    "pm100_of_range": ticks_from_pm100,
    "0_100_of_range": ticks_from_0_100,
}
FROM_TICKS: dict[str, Conversion] = {
    "rad": rad_from_ticks,
    "deg": degrees_from_ticks,
    "pm100_of_range": pm100_from_ticks,
    "0_100_of_range": range_0_100_from_ticks,
}


class JointUnits:
    """The conversions of one calibrated robot, all in robot joint order. Affine, and never clamping:
    a gripper squeezed 1 % beyond its calibrated end reads -1, not 0."""

    def __init__(self, robot: Robot, calibration: Calibration) -> None:
        if len(calibration.joints) != len(robot.joints):
            raise ConfigError(
                f"calibration {calibration.path} has {len(calibration.joints)} joints, robot {robot.name} "
                f"has {len(robot.joints)}"
            )
        self.robot = robot
        self.calibration = calibration
        self._affine = tuple(
            _affine(joint.unit, row) for joint, row in zip(robot.joints, calibration.joints, strict=True)
        )
        for index, joint in enumerate(robot.joints):
            low, high = self.reachable(index)
            for pose, value in (("start", joint.start), ("park", joint.park)):
                if not low <= value <= high:
                    raise ConfigError(
                        f"joint {joint.name}: the {pose} pose {value} of robot {robot.name} lies outside "
                        f"[{low:.3f}, {high:.3f}], the range of calibration {calibration.path}; calibrate "
                        "the joint through its whole range, or adapt the robot file"
                    )

    def to_ticks(self, positions: Sequence[float]) -> list[int]:
        """Robot units -> goal ticks (rounded). Raises `ValueError` for the non-finite and not encodable."""
        ticks = []
        for value, (offset, scale) in zip(positions, self._affine, strict=True):
            exact = offset + value * scale
            if not 0 <= exact <= TICKS_PER_TURN - 1:
                raise ValueError(f"position {value} is tick {exact}, outside the encoder's 0..4095")
            ticks.append(round(exact))
        return ticks

    def to_positions(self, ticks: Sequence[float]) -> tuple[float, ...]:
        """Ticks -> robot units (rad, grippers percent)."""
        return tuple(
            [(tick - offset) / scale for tick, (offset, scale) in zip(ticks, self._affine, strict=True)]
        )

    def to_velocities(self, ticks_s: Sequence[float]) -> tuple[float, ...]:
        """ticks/s -> robot units per second."""
        return tuple([speed / scale for speed, (_, scale) in zip(ticks_s, self._affine, strict=True)])

    def reachable(self, index: int) -> tuple[float, float]:
        """The robot file's position limits of a joint, cut to its calibrated range (robot units).

        The servo itself clamps goals to its calibrated range: a target beyond would never be reached.
        """
        offset, scale = self._affine[index]
        row = self.calibration.joints[index]
        ends = sorted(((row.range_min - offset) / scale, (row.range_max - offset) / scale))
        low, high = self.robot.joints[index].limits.position
        return max(low, ends[0]), min(high, ends[1])

    def goal_tick_range(self, index: int, low: float, high: float) -> tuple[int, int]:
        """The goal ticks (lowest, highest) that positions from `low` to `high` can round to, cut to the
        calibrated range."""
        offset, scale = self._affine[index]
        row = self.calibration.joints[index]
        ends = sorted((offset + low * scale, offset + high * scale))
        return max(row.range_min, round(ends[0])), min(row.range_max, round(ends[1]))

    def from_policy(self, index: int, value: float, unit: str) -> float:
        """A value of `POLICY_UNITS` -> the robot's unit of that joint. Other units: `ConfigError`."""
        offset, scale = self._affine[index]
        return (_conversion(TO_TICKS, unit)(value, self.calibration.joints[index]) - offset) / scale

    def to_policy(self, index: int, value: float, unit: str) -> float:
        """The robot's unit -> a value of `POLICY_UNITS`, as LeRobot would have recorded it."""
        offset, scale = self._affine[index]
        return _conversion(FROM_TICKS, unit)(offset + value * scale, self.calibration.joints[index])


def _affine(unit: str, row: JointCalibration) -> tuple[float, float]:
    """(offset, scale) with ticks = offset + value * scale."""
    if unit == "rad":
        return row.middle, TICKS_PER_RAD
    if row.drive_mode:
        return row.range_max, -row.span / 100
    return row.range_min, row.span / 100


def _conversion(table: dict[str, Conversion], unit: str) -> Conversion:
    if unit not in table:
        raise ConfigError(f"unit {unit!r} cannot be converted for a servo joint; known: {', '.join(table)}")
    return table[unit]


def _clamp(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))
