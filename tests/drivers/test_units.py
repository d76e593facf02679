"""Ticks, rad, percent and LeRobot's units: against LeRobot's own formulas, written out again here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.drivers.calibration import Calibration, JointCalibration, find_calibration
from holdfast.drivers.errors import ConfigError
from holdfast.drivers.robots.schema import load_robot
from holdfast.drivers.units import JointUnits

ROBOT = load_robot("sim_arm")
UNITS = JointUnits(ROBOT, find_calibration(ROBOT))
ROWS = UNITS.calibration.joints
GRIPPER = 5


def with_drive_mode() -> JointUnits:
    rows = tuple(JointCalibration(r.id, 1, r.homing_offset, r.range_min, r.range_max) for r in ROWS)
    return JointUnits(ROBOT, Calibration(Path("turned.json"), rows))


def lerobot_normalise(ticks: int, row: JointCalibration, mode: str) -> float:
    """LeRobot 0.4.4, `MotorsBus._normalize`, for a Feetech bus."""
    low, high = row.range_min, row.range_max
    bounded = min(high, max(low, ticks))
    if mode == "pm100_of_range":
        norm = (((bounded - low) / (high - low)) * 200) - 100
        return -norm if row.drive_mode else norm
    if mode == "0_100_of_range":
        norm = ((bounded - low) / (high - low)) * 100
        return 100 - norm if row.drive_mode else norm
    return (ticks - (low + high) / 2) * 360 / 4095


def lerobot_unnormalise(value: float, row: JointCalibration, mode: str) -> int:
    low, high = row.range_min, row.range_max
    if mode == "pm100_of_range":
        value = -value if row.drive_mode else value
        return int(((min(100.0, max(-100.0, value)) + 100) / 200) * (high - low) + low)
    if mode == "0_100_of_range":
        value = 100 - value if row.drive_mode else value
        return int((min(100.0, max(0.0, value)) / 100) * (high - low) + low)
    return int((value * 4095 / 360) + (low + high) / 2)


modes = st.sampled_from(["pm100_of_range", "0_100_of_range", "deg"])


@pytest.mark.parametrize("units", [UNITS, with_drive_mode()], ids=["plain", "turned"])
@given(index=st.integers(0, 5), ticks=st.integers(0, 4095), mode=modes)
def test_what_a_policy_sees_is_what_lerobot_recorded(
    units: JointUnits, index: int, ticks: int, mode: str
) -> None:
    position = units.to_positions([ticks] * 6)[index]
    row = units.calibration.joints[index]
    assert units.to_policy(index, position, mode) == pytest.approx(
        lerobot_normalise(ticks, row, mode), abs=1e-9
    )


@pytest.mark.parametrize("units", [UNITS, with_drive_mode()], ids=["plain", "turned"])
@given(index=st.integers(0, 5), value=st.floats(-120, 120), mode=modes)
def test_what_a_policy_commands_reaches_lerobots_tick(
    units: JointUnits, index: int, value: float, mode: str
) -> None:
    row = units.calibration.joints[index]
    assume(0 <= lerobot_unnormalise(value, row, mode) < 4095)
    pose = [joint.start for joint in ROBOT.joints]
    pose[index] = units.from_policy(index, value, mode)
    ticks = units.to_ticks(pose)[index]
    # LeRobot cuts the fraction off, Holdfast rounds.
    assert 0 <= ticks - lerobot_unnormalise(value, row, mode) <= 1


@given(st.lists(st.integers(0, 4095), min_size=6, max_size=6))
def test_ticks_survive_the_way_to_robot_units_and_back(ticks: list[int]) -> None:
    assert UNITS.to_ticks(UNITS.to_positions(ticks)) == ticks


def test_a_quarter_turn_is_1024_ticks() -> None:
    middle = ROWS[0].middle
    assert UNITS.to_positions([middle + 1024] * 6)[0] == pytest.approx(math.pi / 2)
    assert UNITS.to_velocities([4096] * 6)[0] == pytest.approx(2 * math.pi)


def test_the_gripper_is_percent_of_its_range_and_not_clamped() -> None:
    row = ROWS[GRIPPER]
    ends = [UNITS.to_positions([t] * 6)[GRIPPER] for t in (row.range_min, row.range_max, row.range_min - 15)]
    assert ends[:2] == [0, 100]
    assert ends[2] < -1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 5.0])
def test_what_has_no_tick_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        UNITS.to_ticks([bad, 0, 0, 0, 0, 0])


@given(st.integers(0, 5), st.data())
def test_goal_ticks_of_positions_inside_lie_in_the_goal_range(index: int, draw: st.DataObject) -> None:
    low, high = UNITS.reachable(index)
    value = draw.draw(st.floats(low, high))
    pose = [joint.start for joint in ROBOT.joints]
    pose[index] = value
    first, last = UNITS.goal_tick_range(index, low, high)
    assert first <= UNITS.to_ticks(pose)[index] <= last
    assert ROWS[index].range_min <= first < last <= ROWS[index].range_max


def test_a_narrow_calibration_cuts_the_limits() -> None:
    rows = list(ROWS)
    rows[0] = JointCalibration(1, 0, 0, 1748, 2348)
    low, high = JointUnits(ROBOT, Calibration(Path("narrow.json"), tuple(rows))).reachable(0)
    assert (low, high) == pytest.approx((-300 * math.tau / 4096, 300 * math.tau / 4096))


def test_a_pose_outside_the_calibrated_range_is_refused() -> None:
    rows = list(ROWS)
    rows[3] = JointCalibration(4, 0, 0, 1748, 2348)
    with pytest.raises(ConfigError, match="wrist_flex: the start pose"):
        JointUnits(ROBOT, Calibration(Path("narrow.json"), tuple(rows)))


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: rad, deg"):
        UNITS.from_policy(0, 1.0, "m")
