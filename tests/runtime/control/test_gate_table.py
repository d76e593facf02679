"""The gate's table, number by number as in the servo's data sheet: what may be written, and when."""

from __future__ import annotations

import pytest

from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits
from holdfast.runtime.control.gate import GatePhase, Rule
from holdfast.runtime.control.gate_table import feetech_table

ROBOT = load_robot("so101")
UNITS = JointUnits(ROBOT, find_calibration(load_robot("sim_arm")))
START = [joint.start for joint in ROBOT.joints]
IDS = range(1, 7)
GOALS = {i + 1: UNITS.goal_tick_range(i, *UNITS.reachable(i)) for i in range(6)}
GOAL = Rule(42, 2, GOALS)
ARM = (
    GOAL,
    Rule(40, 1, dict.fromkeys(IDS, (0, 1))),  # torque on or off; 128 would re-zero the servo
    Rule(44, 2, dict.fromkeys(IDS, (0, 0))),  # goal time
    Rule(46, 2, dict.fromkeys(IDS, (0, 0))),  # goal speed
    Rule(41, 1, dict.fromkeys(IDS, (254, 254))),  # acceleration
    Rule(48, 2, {**dict.fromkeys(range(1, 6), (1000, 1000)), 6: (500, 500)}),  # torque limit
)
GAINS = (
    Rule(55, 1, dict.fromkeys(IDS, (0, 1))),  # lock of the EEPROM
    Rule(21, 1, dict.fromkeys(IDS, (16, 16))),  # P
    Rule(22, 1, dict.fromkeys(IDS, (32, 32))),  # D
    Rule(23, 1, dict.fromkeys(IDS, (0, 0))),  # I
)


def test_the_whole_table() -> None:
    expected = {
        GatePhase.CONNECT: (),
        GatePhase.ARM: ARM,
        GatePhase.RUN: (GOAL,),
        GatePhase.STOP: (GOAL, Rule(40, 1, dict.fromkeys(IDS, (0, 0)))),
    }
    assert feetech_table(ROBOT, UNITS, START) == expected
    with_gains = feetech_table(ROBOT, UNITS, START, write_gains=True)
    assert with_gains == expected | {GatePhase.ARM: (*ARM, *GAINS)}
    assert set(expected) == set(GatePhase)


@pytest.mark.parametrize(
    ("end", "beyond", "allowed"),
    [
        (0, -10, (-16, 0)),
        (0, -1, (-7, 0)),
        (0, 0, (0, 0)),
        (0, 3, (0, 0)),
        (1, -3, (0, 0)),
        (1, 0, (0, 0)),
        (1, 1, (0, 7)),
    ],
)
def test_a_joint_that_rests_outside_its_limits_may_be_held_there(
    monkeypatch: pytest.MonkeyPatch, end: int, beyond: int, allowed: tuple[int, int]
) -> None:
    """Half a degree to settle (six ticks) away from the limits; up to the other limit; only that joint."""
    low, high = GOALS[3]
    ticks = UNITS.to_ticks(START)
    ticks[2] = GOALS[3][end] + beyond
    monkeypatch.setattr(UNITS, "to_ticks", lambda positions: ticks)
    goals = feetech_table(ROBOT, UNITS, START)[GatePhase.RUN][0].allowed
    assert goals == GOALS | {3: (low + allowed[0], high + allowed[1])}
