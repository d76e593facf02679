"""Single rows of `vla-run --check`: they judge as control will."""

from __future__ import annotations

import argparse
import fcntl
import os
from pathlib import Path

import pytest

from holdfast.drivers.arm import CheckRow
from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.robots.schema import load_robot, robot_path
from holdfast.drivers.units import JointUnits
from holdfast.runtime import check as room
from holdfast.runtime.control.deadlines import START_PERCENT, START_TOLERANCE

from .control import wire_devices

ROBOT = load_robot("sim_arm")


@pytest.mark.parametrize("index", [0, 5])
def test_resting_is_judged_by_the_tolerance_and_the_calibrated_range_of_control(index: int):
    calibration = find_calibration(ROBOT, None, None, {}, robot_folder=robot_path("sim_arm").parent)
    joint, (low, high) = ROBOT.joints[index], JointUnits(ROBOT, calibration).reachable(index)
    slack = START_PERCENT if joint.gripper else START_TOLERANCE
    for value, ok in ((low - 0.9 * slack, True), (low - 1.1 * slack, False), (high + 1.1 * slack, False)):
        row = room._resting_row(joint, (low, high), value)
        assert row.ok == ok
        assert f"{slack:g}" in row.expected


@pytest.mark.parametrize(
    ("reason", "reset", "ok"),
    [(None, False, True), ("policy_lost", False, False), ("policy_lost", True, True)],
)
def test_an_earlier_stop_is_settled_by_reset(reason: str | None, reset: bool, ok: bool):
    row = room._latch_row(reason, reset)
    assert row.ok == ok
    assert (reason or "none") in row.actual


@pytest.mark.parametrize(
    ("name", "write_gains", "ok"),
    [("elbow: gain p", True, True), ("elbow: gain p", False, False), ("elbow: mode", True, False)],
)
def test_gains_about_to_be_written_may_differ(name: str, write_gains: bool, ok: bool):
    row = room._register_row(CheckRow(name, "16", "32", False, "fix it"), write_gains)
    assert row.ok == ok
    assert "32" in row.actual


def test_inputs_are_opened_and_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fcntl, "ioctl", wire_devices.ioctl)
    keys = wire_devices.Keys(tmp_path / "event0")
    stop, reset = f"evdev:{keys.path}?key=KEY_SPACE", f"evdev:{keys.path}?key=KEY_ENTER"
    rows = list(room._input_rows([stop], [reset]))
    assert [(row.what, row.ok) for row in rows] == [("stop input", True), ("reset input", True)]
    assert "ACME Button" in rows[0].actual
    keys.press(57)
    assert [row.ok for row in room._input_rows([stop], [reset])] == [False, True]
    assert [row.ok for row in room._input_rows(["evdev:/dev/nothing", "x"], [])] == [False, False, False]
    same = list(room._input_rows([reset], [reset]))
    assert not same[-1].ok
    assert "two keys" in same[-1].fix
    assert list(room._input_rows([], [])) == []


def test_the_watchdog_is_looked_at_without_being_started(tmp_path: Path):
    dog = wire_devices.Dog(tmp_path / "watchdog")
    assert [row.ok for row in room._watchdog_rows(str(dog.path))] == [True]
    assert dog.eaten() == b""
    assert [row.ok for row in room._watchdog_rows("/dev/nothing")] == [False]
    assert list(room._watchdog_rows(None)) == []


def test_the_real_time_rows_say_what_the_set_up_comes_to_and_leave_this_process_alone():
    before = os.sched_getscheduler(0), os.sched_getaffinity(0)
    assert room._real_time_rows("off", None) == []
    strict, warn = room._real_time_rows("strict", None)[0], room._real_time_rows("warn", None)[0]
    assert warn.ok
    assert strict.actual == warn.actual
    assert strict.ok == (strict.actual == "all succeed")
    assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == before


def test_a_core_that_is_not_there_fails_strict_alone():
    strict, warn = room._real_time_rows("strict", 9999)[0], room._real_time_rows("warn", 9999)[0]
    assert (strict.ok, warn.ok) == (False, True)
    assert "own core" in strict.actual


def test_the_arithmetic_of_the_schedule_is_shown_at_full_length_below_the_table(
    capsys: pytest.CaptureFixture[str],
):
    line = "frame 45 ms + this inference 85 ms + the next 85 ms, each with its hand-over = 215 ms " * 2
    row = room.Row("schedule (newest)", "it lasts", "ok, 535 ms to spare", True, arithmetic=(line, "limits"))
    room._show([row], argparse.Namespace(json=False))
    shown = capsys.readouterr().out
    assert f"schedule (newest): {line}\nschedule (newest): limits\n" in shown
    assert "535 ms to spare" in shown.partition("schedule (newest): ")[0]
