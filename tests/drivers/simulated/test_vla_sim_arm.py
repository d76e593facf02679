"""The running simulator's arm, driven by Feetech's own SDK, unmodified, over the serial port."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from holdfast.drivers.simulated.errors import SimulatorError
from holdfast.drivers.simulated.launch import Simulator

sdk: Any = pytest.importorskip("scservo_sdk")
pytestmark = pytest.mark.sim

IDS = (1, 2, 3, 4, 5, 6)
TORQUE, GOAL, PRESENT, STATUS = 40, 42, 56, 65
PATIENCE_S = 20.0
TRIES = 30
"""A pty of a busy machine may stall for longer than the SDK waits."""


class Host:
    """The SDK on one port, insisting."""

    def __init__(self, path: str) -> None:
        self.port = sdk.PortHandler(path)
        assert self.port.openPort()
        assert self.port.setBaudRate(1_000_000)
        self.packets = sdk.PacketHandler(0)

    def close(self) -> None:
        self.port.closePort()

    def once(self, method: str, *arguments: int) -> tuple:
        self.port.ser.reset_input_buffer()
        return getattr(self.packets, method)(self.port, *arguments)

    def call(self, method: str, *arguments: int) -> tuple:
        """Result and error byte, after as many tries as it takes."""
        result = sdk.COMM_NOT_AVAILABLE
        for _ in range(TRIES):
            *value, result, error = self.once(method, *arguments)
            if result == sdk.COMM_SUCCESS:
                return (*value, error)
        raise AssertionError(f"{method}{arguments}: {self.packets.getTxRxResult(result)}")

    def read2(self, servo_id: int, address: int) -> int:
        return self.call("read2ByteTxRx", servo_id, address)[0]

    def write1(self, servo_id: int, address: int, value: int) -> int:
        return self.call("write1ByteTxRx", servo_id, address, value)[0]

    def write2(self, servo_id: int, address: int, value: int) -> int:
        return self.call("write2ByteTxRx", servo_id, address, value)[0]


@pytest.fixture
def host(simulator: Simulator) -> Iterator[Host]:
    host = Host(simulator.port_path)
    yield host
    for servo_id in IDS:
        host.once("write1ByteTxRx", servo_id, TORQUE, 0)
    host.close()


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def go(host: Host, servo_id: int, by: int) -> int:
    """Sends a motor `by` ticks away with torque on; returns the goal."""
    goal = host.read2(servo_id, PRESENT) + by
    host.write2(servo_id, GOAL, goal)
    host.write1(servo_id, TORQUE, 1)
    return goal


def test_ping_finds_six_sts3215_and_no_more(host: Host) -> None:
    assert [host.call("ping", servo_id)[0] for servo_id in IDS] == [777] * 6
    assert host.once("ping", 7)[1] == sdk.COMM_RX_TIMEOUT


def test_goal_with_torque_moves_the_arm(simulator: Simulator, host: Host) -> None:
    before = simulator.truth.verdict().qpos[0]
    goal = go(host, 1, 300)
    assert eventually(lambda: abs(host.read2(1, PRESENT) - goal) <= 4)
    assert simulator.truth.verdict().qpos[0] - before == pytest.approx(300 * 2 * 3.14159 / 4096, abs=0.03)
    go(host, 1, -300)


def test_goal_without_torque_moves_nothing(host: Host) -> None:
    at = host.read2(1, PRESENT)
    host.write2(1, GOAL, at + 400)
    time.sleep(0.3)
    assert abs(host.read2(1, PRESENT) - at) <= 4


def test_sync_write_and_sync_read(host: Host) -> None:
    goals = {servo_id: host.read2(servo_id, PRESENT) + 20 for servo_id in IDS}
    writer = sdk.GroupSyncWrite(host.port, host.packets, GOAL, 2)
    for servo_id, goal in goals.items():
        writer.addParam(servo_id, [goal & 255, goal >> 8])
    assert writer.txPacket() == sdk.COMM_SUCCESS
    reader = sdk.GroupSyncRead(host.port, host.packets, GOAL, 2)
    for servo_id in IDS:
        reader.addParam(servo_id)

    def arrived() -> bool:
        host.port.ser.reset_input_buffer()
        return reader.txRxPacket() == sdk.COMM_SUCCESS

    assert eventually(arrived)
    assert {servo_id: reader.getData(servo_id, GOAL, 2) for servo_id in IDS} == goals


def test_port_can_be_closed_and_opened_again(simulator: Simulator, host: Host) -> None:
    second = Host(simulator.port_path)
    second.close()
    third = Host(simulator.port_path)
    assert third.call("ping", 1)[0] == 777
    third.close()


def test_no_reply_is_sooner_than_the_wire(simulator: Simulator) -> None:
    ping, reply_bytes, byte_ns = bytes.fromhex("ffff010201fb"), 6, 10_000
    fd = os.open(simulator.port_path, os.O_RDWR | os.O_NOCTTY)
    for _ in range(300):
        start_ns = time.monotonic_ns()
        os.write(fd, ping)
        got = 0
        while got < reply_bytes:
            got += len(os.read(fd, 64))
        assert time.monotonic_ns() - start_ns >= (len(ping) + reply_bytes) * byte_ns
    os.close(fd)


def test_error_bits(simulator: Simulator, host: Host) -> None:
    simulator.truth.fault("error_bits", id=2, bits=32)
    assert host.call("read2ByteTxRx", 2, PRESENT)[1] == 32
    assert host.call("read2ByteTxRx", 1, PRESENT)[1] == 0
    simulator.truth.clear()
    assert host.call("read2ByteTxRx", 2, PRESENT)[1] == 0


def test_silent_servo_holds_but_does_not_answer(simulator: Simulator, host: Host) -> None:
    go(host, 3, 0)
    simulator.truth.fault("servo_silent", id=3)
    assert host.once("read2ByteTxRx", 3, PRESENT)[1] == sdk.COMM_RX_TIMEOUT
    assert host.call("ping", 4)[0] == 777
    simulator.truth.fault("servo_silent", id=3, on=0)
    assert host.call("read1ByteTxRx", 3, TORQUE)[0] == 1


@pytest.mark.parametrize("kind", ["corrupt", "drop_byte"])
def test_damaged_replies(simulator: Simulator, host: Host, kind: str) -> None:
    simulator.truth.fault(kind, every=1)
    assert all(host.once("read2ByteTxRx", 1, PRESENT)[1] != sdk.COMM_SUCCESS for _ in range(5))
    simulator.truth.fault(kind, every=0)
    assert host.call("read2ByteTxRx", 1, PRESENT)


def test_late_reply_comes_after_the_sdk_gave_up(simulator: Simulator, host: Host) -> None:
    simulator.truth.fault("late", ms=300)
    assert host.once("read2ByteTxRx", 1, PRESENT)[1] == sdk.COMM_RX_TIMEOUT
    assert eventually(lambda: host.port.getBytesAvailable() == 8)


def test_power_loss_makes_the_arm_limp_and_forgetful(simulator: Simulator, host: Host) -> None:
    go(host, 1, 0)
    host.write1(1, 41, 77)
    simulator.truth.fault("power_loss")
    time.sleep(0.1)
    assert host.once("ping", 1)[1] == sdk.COMM_RX_TIMEOUT
    simulator.truth.clear()
    assert eventually(lambda: host.call("read1ByteTxRx", 1, TORQUE)[0] == 0)
    assert host.call("read1ByteTxRx", 1, 41)[0] == 0


def test_jammed_joint_stays_and_trips_the_overload_protection(simulator: Simulator, host: Host) -> None:
    host.write1(2, 35, 10)  # protection time 0.1 s
    simulator.truth.fault("jam", id=2)
    at = host.read2(2, PRESENT)
    go(host, 2, 200)
    assert eventually(lambda: host.call("read1ByteTxRx", 2, STATUS)[0] == 32)
    assert abs(host.read2(2, PRESENT) - at) <= 8
    simulator.truth.clear()
    go(host, 2, 0)
    assert host.call("read2ByteTxRx", 2, PRESENT)[1] == 0


def test_unplug_and_replug(simulator: Simulator) -> None:
    fd = os.open(simulator.port_path, os.O_RDWR | os.O_NOCTTY)
    simulator.truth.fault("unplug")
    assert not os.path.lexists(simulator.port_path)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(fd, b"x")
    os.close(fd)
    simulator.truth.fault("replug")
    host = Host(simulator.port_path)
    assert host.call("ping", 1)[0] == 777
    host.close()


def test_reset_places_cubes_and_leaves_the_arm(simulator: Simulator) -> None:
    before = simulator.truth.verdict()
    assert "red" in simulator.truth.reset(11, "touch", "red")
    first = simulator.truth.verdict()
    simulator.truth.reset(12, "pick", "blue")
    second = simulator.truth.verdict()
    assert first.qpos == pytest.approx(before.qpos, abs=0.02)
    assert first.cubes.keys() == {"red", "green", "blue"}
    assert first.cubes != second.cubes
    assert not second.success
    assert second.time_s < first.time_s + 5


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"cmd": "dance"}, "cmd is one of"),
        ({"cmd": "carousel", "speed": 1}, "speed"),
        ({"cmd": "fault", "kind": "gremlin"}, "no fault 'gremlin'"),
        ({"cmd": "fault", "kind": "corrupt"}, "needs every"),
        ({"cmd": "fault", "kind": "jam", "id": 9}, "no motor has id 9"),
        ({"cmd": "fault", "kind": "unplug", "id": 1}, "not \\['id'\\]"),
        ({"cmd": "reset"}, "seed"),
        ({"cmd": "reset", "seed": 1, "colour": "mauve"}, "mauve"),
    ],
)
def test_refused_requests(simulator: Simulator, request_: dict[str, object], reason: str) -> None:
    with pytest.raises(SimulatorError, match=reason):
        simulator.truth.ask(**request_)
