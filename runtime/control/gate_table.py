"""The gate's table for a Feetech robot: what its file and calibration allow to be written, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ...drivers.robots.schema import Motor, Robot
from ...drivers.units import JointUnits
from .gate import GatePhase, GateTable, Rule

TORQUE_ENABLE, ACCELERATION, GOAL_POSITION, GOAL_TIME, GOAL_SPEED, TORQUE_LIMIT = 40, 41, 42, 44, 46, 48
LOCK = 55
GAINS: tuple[tuple[Literal["p", "i", "d"], int], ...] = (("p", 21), ("d", 22), ("i", 23))
FULL_TORQUE = 1000
SETTLE_TICKS = 6
"""Half a degree."""


def feetech_table(
    robot: Robot, units: JointUnits, resting: Sequence[float], *, write_gains: bool = False
) -> GateTable:
    """`resting` are the measured positions at arming: a joint that rests slightly outside its limits may be
    held there, so its range of goals is widened to that position and what it may settle until it is held."""
    goals = {}
    for index, (joint, rest) in enumerate(zip(robot.joints, units.to_ticks(resting), strict=True)):
        ticks = units.goal_tick_range(index, *units.reachable(index))
        outside = (min(ticks[0], rest - SETTLE_TICKS), max(ticks[1], rest + SETTLE_TICKS))
        goals[joint.motor.id] = ticks if ticks[0] <= rest <= ticks[1] else outside
    goal = Rule(GOAL_POSITION, 2, goals)
    ids = robot.motor_ids

    def same(address: int, width: int, low: int, high: int) -> Rule:
        return Rule(address, width, dict.fromkeys(ids, (low, high)))

    def declared(address: int, width: int, value: Callable[[Motor], int]) -> Rule:
        exact = {joint.motor.id: value(joint.motor) for joint in robot.joints}
        return Rule(address, width, {motor_id: (v, v) for motor_id, v in exact.items()})

    arm = [
        goal,
        same(TORQUE_ENABLE, 1, 0, 1),
        same(GOAL_TIME, 2, 0, 0),
        same(GOAL_SPEED, 2, 0, 0),
        declared(ACCELERATION, 1, lambda motor: motor.acceleration),
        declared(TORQUE_LIMIT, 2, lambda motor: round(motor.torque_limit * FULL_TORQUE)),
    ]
    if write_gains:
        arm.append(same(LOCK, 1, 0, 1))
        arm += [declared(address, 1, lambda motor, gain=gain: motor.gains[gain]) for gain, address in GAINS]
    return {
        GatePhase.CONNECT: (),
        GatePhase.ARM: tuple(arm),
        GatePhase.RUN: (goal,),
        GatePhase.STOP: (goal, same(TORQUE_ENABLE, 1, 0, 0)),
    }
