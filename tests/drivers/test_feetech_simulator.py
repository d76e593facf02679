"""The driver against the whole simulated robot: its own process, physics, a real pty."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import pytest

from holdfast.drivers.arm import open_arm
from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.errors import BusError, Disconnected
from holdfast.drivers.simulated.launch import start_simulator

from .bus_rigs import patient_robot

pytestmark = [pytest.mark.sim, pytest.mark.real_time]
SECONDS = 20.0


@pytest.mark.parametrize("bus", ["pty", "socket"])
def test_an_arm_is_armed_moves_and_is_released(tmp_path: Path, bus: Literal["pty", "socket"]) -> None:
    robot = patient_robot()
    with start_simulator(tmp_path, bus=bus, camera_fps=1, realtime=False) as simulator:
        arm = open_arm(simulator.arm_url, robot, find_calibration(robot), lambda frame: None)
        arm.connect()
        assert [row for row in arm.check() if not row.ok] == []
        start = arm.prepare().position
        arm.energise()
        target = [start[0] + 0.2, *start[1:5], 40.0]
        deadline = time.monotonic() + SECONDS
        reached = False
        while not reached and time.monotonic() < deadline:
            arm.command(target)
            state = arm.read()
            reached = state.position[0] == pytest.approx(target[0], abs=0.03) and state.position[5] > 30
        assert reached
        arm.release()
        simulator.truth.fault("unplug")
        with pytest.raises(Disconnected):
            arm.read()
        simulator.truth.fault("replug")
        arm.connect()
        arm.read()
        arm.close()


def test_damage_costs_single_cycles_only(tmp_path: Path) -> None:
    robot = patient_robot()
    with start_simulator(tmp_path, camera_fps=1, realtime=False) as simulator:
        arm = open_arm(simulator.arm_url, robot, find_calibration(robot), lambda frame: None)
        arm.connect()
        simulator.truth.fault("corrupt", every=5)
        good = [_works(arm.read) for _ in range(40)]
        arm.close()
        assert 30 <= sum(good) < 40


def _works(call: object) -> bool:
    assert callable(call)
    try:
        call()
    except BusError:
        return False
    return True
