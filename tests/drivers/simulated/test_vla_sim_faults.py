"""Faults of the running simulator, as the real driver meets them, byte by byte, and in the log's truth."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.drivers.arm import Arm, open_arm
from holdfast.drivers.calibration import find_calibration
from holdfast.drivers.errors import BusTimeout, CorruptReply, MotorFault
from holdfast.drivers.simulated.errors import SimulatorError
from holdfast.drivers.simulated.launch import Simulator, start_simulator
from holdfast.drivers.simulated.truth import TruthClient
from holdfast.drivers.simulated.wire_log import DRIVEN, TORQUE_ON, TruthRecord, read_truth, read_wire_log
from tests.drivers.bus_rigs import patient_robot

pytestmark = [pytest.mark.sim, pytest.mark.real_time]

PATIENCE_S = 20.0
SUPPLY_V = 7.4
ON = TORQUE_ON | DRIVEN


@dataclass(frozen=True)
class Rig:
    simulator: Simulator
    log: Path

    @property
    def truth(self) -> TruthClient:
        return self.simulator.truth

    def last(self) -> TruthRecord:
        return list(read_truth(self.log))[-1]

    def await_truth(self, condition: Callable[[TruthRecord], bool]) -> TruthRecord:
        deadline = time.monotonic() + PATIENCE_S
        while not condition(record := self.last()):
            assert time.monotonic() < deadline, record
            time.sleep(0.02)
        return record


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("sim")
    with start_simulator(folder, camera_fps=1, wire_log=folder / "wire.log") as simulator:
        yield Rig(simulator, folder / "wire.log")


@pytest.fixture
def rig(running: Rig) -> Iterator[Rig]:
    """Sound, with its motors as after switching on."""
    running.truth.fault("power_loss")
    running.truth.clear()
    yield running
    running.truth.clear()


@pytest.fixture
def arm(rig: Rig) -> Iterator[Arm]:
    """The real driver, connected; torque off."""
    robot = patient_robot()
    arm = open_arm(rig.simulator.arm_url, robot, find_calibration(robot), lambda frame: None)
    arm.connect()
    yield arm
    arm.close()


@pytest.fixture
def holding(arm: Arm) -> Arm:
    arm.prepare()
    arm.energise()
    return arm


def raw(rig: Rig, request: str, size: int) -> str:
    """The first `size` bytes that come back for a request, all in hexadecimal."""
    fd = os.open(rig.simulator.port_path, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(fd, bytes.fromhex(request))
        answer = b""
        while len(answer) < size:
            answer += os.read(fd, size - len(answer))
    finally:
        os.close(fd)
    return answer.hex()


READ_62_TO_65_OF_2 = "ffff0204023e04b5"


def test_a_sagging_supply_on_the_wire(rig: Rig) -> None:
    assert raw(rig, READ_62_TO_65_OF_2, 10) == "ffff0206004a1e00008f"
    rig.truth.fault("voltage", id=2, volts=3.5)
    assert raw(rig, READ_62_TO_65_OF_2, 10) == "ffff020601231e0001b4"
    rig.truth.fault("voltage", id=2, volts=0)
    assert raw(rig, READ_62_TO_65_OF_2, 10) == "ffff0206004a1e00008f"


def test_overheating_and_overload_on_the_wire(rig: Rig) -> None:
    rig.truth.fault("temperature", id=2, celsius=80)
    assert raw(rig, READ_62_TO_65_OF_2, 10) == "ffff0206044a50000455"
    rig.truth.fault("overload", id=2)
    assert raw(rig, READ_62_TO_65_OF_2, 10) == "ffff0206244a50002415"


def test_a_doubled_answer_and_one_with_another_id_on_the_wire(rig: Rig) -> None:
    rig.truth.fault("duplicate", every=1)
    assert raw(rig, "ffff010201fb", 12) == "ffff010200fc" * 2
    rig.truth.clear()
    rig.truth.fault("wrong_id", every=1)
    assert raw(rig, "ffff010201fb", 6) == "ffff020200fb"
    assert raw(rig, "ffff060201f6", 6) == "ffff010200fc"


def test_the_driver_reads_voltage_and_temperature_and_their_bits(rig: Rig, arm: Arm) -> None:
    rig.truth.fault("voltage", id=2, volts=3.5)
    rig.truth.fault("temperature", id=3, celsius=80)
    state = arm.read()
    assert state.voltage_v == pytest.approx((SUPPLY_V, 3.5, *[SUPPLY_V] * 4))
    assert state.temperature_c[2] == 80
    assert state.faults == (0, 1, 4, 0, 0, 0)
    rig.truth.fault("voltage", volts=15)
    assert arm.read().voltage_v == pytest.approx([15.0] * 6)
    rig.truth.clear()
    state = arm.read()
    assert state.voltage_v == pytest.approx([SUPPLY_V] * 6)
    assert state.faults == (0,) * 6
    assert max(state.temperature_c) < 60


@pytest.mark.parametrize(
    ("kind", "arguments", "bit"), [("overload", {}, 32), ("temperature", {"celsius": 71}, 4)]
)
def test_a_protection_lets_go_until_torque_is_written(
    rig: Rig, holding: Arm, kind: str, arguments: dict[str, float], bit: int
) -> None:
    rig.await_truth(lambda record: record.torque == (ON,) * 6)
    rig.truth.fault(kind, id=4, **arguments)
    assert holding.read().faults == (0, 0, 0, bit, 0, 0)
    record = rig.await_truth(lambda record: record.torque[3] != ON)
    assert record.torque == (ON, ON, ON, TORQUE_ON, ON, ON)
    with pytest.raises(MotorFault):
        holding.prepare()
    rig.truth.clear()
    time.sleep(0.1)
    assert rig.last().torque[3] == TORQUE_ON, "nothing starts by itself"
    holding.release()
    rig.await_truth(lambda record: record.torque == (0,) * 6)
    assert holding.read().faults == (0,) * 6


def test_a_stuck_encoder_stands_still_while_the_shaft_turns(rig: Rig, holding: Arm) -> None:
    start = holding.read().position
    before = rig.last().ticks
    rig.truth.fault("stuck_encoder", id=1)
    for step in range(40):
        holding.command([start[0] + 0.005 * step, *start[1:]])
        time.sleep(0.01)
    rig.await_truth(lambda record: record.ticks[0] > before[0] + 100)
    state = holding.read()
    assert state.position[0] == pytest.approx(start[0], abs=0.004)
    assert state.velocity[0] == 0
    assert state.faults == (0,) * 6
    rig.truth.fault("stuck_encoder", id=1, on=0)
    assert holding.read().position[0] > start[0] + 0.15


@pytest.mark.parametrize("kind", ["duplicate", "wrong_id"])
def test_the_driver_takes_no_answer_that_is_not_the_one(rig: Rig, arm: Arm, kind: str) -> None:
    rig.truth.fault(kind, every=1)
    for _ in range(7):
        with pytest.raises(CorruptReply):
            arm.read()
    rig.truth.clear()
    arm.read()


def test_after_a_loss_of_power_the_motors_are_limp_and_forgetful(rig: Rig, holding: Arm) -> None:
    rig.truth.fault("power_loss")
    with pytest.raises(BusTimeout):
        holding.read()
    assert rig.await_truth(lambda record: record.torque[0] == 0).torque == (0,) * 6
    rig.truth.fault("power_back")
    assert holding.torque() == (False,) * 6
    assert raw(rig, "ffff0104022901ce", 7) == "ffff01030000fb", "acceleration"
    rig.truth.fault("power_loss")
    rig.truth.clear()
    assert holding.torque() == (False,) * 6


def test_the_motors_do_not_speak_after_power_is_lost(rig: Rig, arm: Arm) -> None:
    for _ in range(5):
        at_ns = rig.truth.fault("power_loss")
        with pytest.raises(BusTimeout):
            arm.read()
        end_ns = rig.truth.fault("power_back")
        time.sleep(0.05)
        spoken = [r.stamp_ns for r in read_wire_log(rig.log) if not r.from_host]
        assert not [stamp_ns for stamp_ns in spoken if at_ns < stamp_ns < end_ns]


def test_the_truth_goes_on_while_the_bus_is_unplugged(rig: Rig, holding: Arm) -> None:
    start = holding.read().position
    before = rig.last().ticks[0]
    holding.command([start[0] + 0.3, *start[1:]])
    at_ns = rig.truth.fault("unplug")
    rig.await_truth(lambda record: abs(record.ticks[0] - before) > 180)
    moving = [record for record in read_truth(rig.log) if record.stamp_ns > at_ns]
    assert len({record.ticks[0] for record in moving}) > 10, "the servo goes on to its goal"
    assert all(record.torque == (ON,) * 6 for record in moving)


def test_the_truth_is_close_behind_and_complete(rig: Rig) -> None:
    lags_s = []
    for _ in range(40):
        time.sleep(0.011)
        lags_s.append((time.monotonic_ns() - rig.last().stamp_ns) * 1e-9)
    assert min(lags_s) < 0.05
    records = list(read_truth(rig.log))
    stamps = [record.stamp_ns for record in records]
    assert stamps == sorted(stamps)
    first, last = records[0], records[-1]
    steps = (last.stamp_ns - last.late_us * 1000 - first.stamp_ns + first.late_us * 1000) / 5e6
    assert len(records) - 1 + last.skipped_steps - first.skipped_steps == pytest.approx(steps, abs=1)


def test_every_answer_says_when(rig: Rig) -> None:
    stamps = [time.monotonic_ns()]
    stamps += [
        rig.truth.fault("jam", id=1),
        rig.truth.clear(),
        rig.truth.ask(cmd="reset", seed=4)["at_ns"],
        rig.truth.verdict().at_ns,
        rig.truth.ask(cmd="carousel", rate_rad_s=0)["at_ns"],
        rig.truth.statistics()["at_ns"],
    ]
    stamps.append(time.monotonic_ns())
    assert stamps == sorted(stamps)
    with pytest.raises(SimulatorError, match="no motor has id 9"):
        rig.truth.fault("voltage", id=9, volts=3)
