"""The bus suite over a pty and over a socket, and what concerns only one of them."""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.drivers import transport
from holdfast.drivers.arm import open_arm
from holdfast.drivers.errors import BusError, BusTimeout, ConfigError, Disconnected, PortError
from holdfast.drivers.probe import fitting_robots, probe
from holdfast.drivers.transport import latency_timer_ms, open_port

from .bus_rigs import Rig, busy_lock, rig_on_pty, rig_on_socket
from .bus_suite import BusSuite

NOBODY = 65534
TIOCGEXCL = 0x80045440
"""Whether a terminal is exclusive (asm-generic/ioctls.h)."""


@pytest.fixture
def pty_rig(tmp_path: Path) -> Iterator[Rig]:
    rig = rig_on_pty(tmp_path)
    yield rig
    rig.close()


class TestFeetechOnPty(BusSuite):
    @pytest.fixture
    def rig(self, pty_rig: Rig) -> Rig:
        return pty_rig


class TestFeetechOnSocket(BusSuite):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = rig_on_socket()
        yield rig
        rig.close()


def test_probe_finds_the_motors_and_the_robots_they_fit(pty_rig: Rig) -> None:
    found = probe(pty_rig.url, motor_ids=range(1, 8))
    assert [(motor.motor_id, motor.model) for motor in found] == [(i, "sts3215") for i in range(1, 7)]
    assert {"sim_arm", "so100", "so101"} <= set(fitting_robots(found))


def test_probe_writes_nothing(pty_rig: Rig) -> None:
    probe(pty_rig.url, motor_ids=range(1, 7))
    assert {pty_rig.heard[at + 4] for at in range(0, len(pty_rig.heard), 8)} == {2}


def test_a_motor_of_another_model_is_refused(pty_rig: Rig) -> None:
    pty_rig.servos[2].put("model", 2825)
    arm = open_arm(pty_rig.url, pty_rig.robot, pty_rig.calibration, lambda frame: None)
    with pytest.raises(ConfigError, match=r"motor 3 .* sts3250"):
        arm.connect()


def test_another_calibration_shows_in_the_check(pty_rig: Rig) -> None:
    pty_rig.servos[0].put("homing_offset", 7)
    arm = open_arm(pty_rig.url, pty_rig.robot, pty_rig.calibration, lambda frame: None)
    arm.connect()
    (row,) = [row for row in arm.check() if not row.ok]
    arm.close()
    assert (row.name, row.expected, row.actual) == ("shoulder_pan: homing offset", "112", "7")
    assert "calibrat" in row.fix


def test_the_calls_before_connect_say_so(pty_rig: Rig) -> None:
    arm = open_arm(pty_rig.url, pty_rig.robot, pty_rig.calibration, lambda frame: None)
    with pytest.raises(PortError, match="connect"):
        arm.read()


def test_a_sinking_arm_is_not_armed(pty_rig: Rig) -> None:
    arm = open_arm(pty_rig.url, pty_rig.robot, pty_rig.calibration, sink(pty_rig))
    arm.connect()
    with pytest.raises(BusError, match="come to rest"):
        arm.prepare()
    arm.close()


def sink(rig: Rig) -> Callable[[bytes], None]:
    """A guard that lets a joint sink while goals are written."""

    def guard(frame: bytes) -> None:
        if frame[4] == 3 and frame[5] == 42:
            rig.servos[1].actual += 20

    return guard


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("serial:/dev/does-not-exist", PortError, "does not exist"),
        ("serial:/dev/null", PortError, "not a serial port"),
        ("serial:/etc/hostname", PortError, "not a serial port"),
        ("socket://127.0.0.1:1", PortError, "cannot connect"),
        ("socket://127.0.0.1", ConfigError, "expected socket://host:port"),
        ("socket://127.0.0.1:none", ConfigError, "malformed"),
        ("/dev/ttyUSB0", ConfigError, "did you mean serial:/dev/ttyUSB0"),
        ("can:0", ConfigError, "expected serial:"),
    ],
)
def test_a_wrong_port_is_refused_with_a_reason(url: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_port(url, 1_000_000)


def test_a_busy_port_is_refused(pty_rig: Rig) -> None:
    path = pty_rig.url.removeprefix("serial:")
    other = busy_lock(path)
    with pytest.raises(PortError, match="busy"):
        open_port(pty_rig.url, 1_000_000)
    os.close(other)
    open_port(pty_rig.url, 1_000_000).close()


def test_a_second_arm_on_the_same_port_is_refused(pty_rig: Rig) -> None:
    first = open_port(pty_rig.url, 1_000_000)
    with pytest.raises(PortError, match="busy"):
        open_port(pty_rig.url, 1_000_000)
    first.close()


def test_a_port_is_kept_from_those_who_ask_for_no_lock(pty_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pty_rig.url.removeprefix("serial:")
    for exempt, exclusive in ((transport._PSEUDO_TERMINALS, 0), ((), 1)):
        monkeypatch.setattr(transport, "_PSEUDO_TERMINALS", exempt)
        before = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        port = open_port(pty_rig.url, 1_000_000)
        mark = bytearray(4)
        fcntl.ioctl(before, TIOCGEXCL, mark)
        port.close()
        fcntl.ioctl(before, termios.TIOCNXCL)
        os.close(before)
        assert int.from_bytes(mark, "little") == exclusive


def test_a_serial_server_serves_one_client_at_a_time() -> None:
    rig = rig_on_socket()
    first = open_arm(rig.url, rig.robot, rig.calibration, lambda frame: None)
    first.connect()
    second = open_arm(rig.url, rig.robot, rig.calibration, lambda frame: None)
    with pytest.raises(Disconnected):
        second.connect()
    first.read()
    first.close()
    second.connect()
    second.close()
    rig.close()


def test_no_permission_is_refused(pty_rig: Rig) -> None:
    path = os.path.realpath(pty_rig.url.removeprefix("serial:"))
    os.chmod(path, 0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        with pytest.raises(PortError, match=r"no permission .* dialout"):
            open_port(f"serial:{path}", 1_000_000)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("register", "value", "row"),
    [
        ("min_position", 0, "range min"),
        ("max_position", 4095, "range max"),
        ("homing_offset", 0, "homing offset"),
        ("mode", 1, "mode"),
        ("response_level", 0, "answers to writes"),
        ("return_delay", 250, "return delay"),
        ("i_gain", 4, "gain i"),
        ("present_voltage", 30, "voltage"),
    ],
)
def test_every_register_that_matters_is_a_row(pty_rig: Rig, register: str, value: int, row: str) -> None:
    pty_rig.servos[1].put(register, value)
    arm = open_arm(pty_rig.url, pty_rig.robot, pty_rig.calibration, lambda frame: None)
    arm.connect()
    failed = [found for found in arm.check() if not found.ok]
    arm.close()
    assert f"shoulder_lift: {row}" in [found.name for found in failed]
    assert all(found.fix for found in failed)


def test_a_mute_port_times_out_without_spinning(pty_rig: Rig) -> None:
    """The SDKs burn a core while they wait."""
    pty_rig.faults.power_lost = True
    port = open_port(pty_rig.url, 1_000_000)
    times = os.times()
    with pytest.raises(BusTimeout):
        port.exchange(b"\xff\xff\x01\x02\x01\xfb", 6, 300_000_000)
    spent = os.times()
    port.close()
    assert spent.user + spent.system - times.user - times.system < 0.15


def test_the_latency_timer_is_read_from_the_adapter(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB7" / "device"
    device.mkdir(parents=True)
    (device / "latency_timer").write_text("16\n")
    assert latency_timer_ms("serial:/dev/ttyUSB7", tmp_path) == 16
    assert latency_timer_ms("serial:/dev/ttyACM0", tmp_path) is None
    assert latency_timer_ms("socket://host:1", tmp_path) is None
