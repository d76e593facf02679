"""Starting and ending the simulator: what it leaves, what it refuses, what it records."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.drivers.simulated import camera_child
from holdfast.drivers.simulated.errors import SimulatorError
from holdfast.drivers.simulated.launch import start_simulator
from holdfast.drivers.simulated.truth import TruthClient
from holdfast.drivers.simulated.wire_log import (
    FROM_HOST,
    FROM_MOTORS,
    TruthRecord,
    WireLog,
    read_truth,
    read_wire_log,
)
from tests.processes import PATIENCE_S, children, wait_gone

pytestmark = [pytest.mark.sim, pytest.mark.real_time]

PING_1 = bytes.fromhex("ffff010201fb")
PONG_1 = bytes.fromhex("ffff010200fc")


def test_ends_cleanly_and_records_the_wire(tmp_path: Path) -> None:
    log = tmp_path / "wire.log"
    with start_simulator(tmp_path / "sim", wire_log=log) as simulator:
        camera = children(simulator.process.pid)
        with (
            pytest.raises(SimulatorError, match=f"pid {simulator.process.pid}"),
            start_simulator(tmp_path / "sim"),
        ):
            pass
        fd = os.open(simulator.port_path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, PING_1)
        answer = b""
        while len(answer) < len(PONG_1):
            answer += os.read(fd, 64)
        os.close(fd)
        assert answer == PONG_1
        simulator.process.send_signal(signal.SIGINT)
        assert simulator.process.wait(PATIENCE_S) == 0
    assert sorted(path.name for path in (tmp_path / "sim").iterdir()) == ["camera.log", "lock", "vla-sim.log"]
    records = list(read_wire_log(log))
    assert [(record.from_host, record.data) for record in records] == [(True, PING_1), (False, PONG_1)]
    assert records[0].stamp_ns < records[1].stamp_ns
    assert {record.torque for record in read_truth(log)} == {(0,) * 6}
    for pid in camera:
        wait_gone(pid)


def test_camera_dies_with_a_killed_simulator_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    with start_simulator(tmp_path) as simulator:
        (camera,) = children(simulator.process.pid)
        simulator.process.kill()
        wait_gone(camera)
    with start_simulator(tmp_path) as simulator:
        assert simulator.truth.statistics()["bad_checksums"] == 0


HOLDER = """
import sys, time
from pathlib import Path
from holdfast.drivers.simulated.launch import start_simulator
with start_simulator(Path(sys.argv[1]), realtime=False) as simulator:
    print(simulator.process.pid, flush=True)
    time.sleep(600)
"""
"""A program that starts a simulator and knows nothing of signals."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_it_ends_when_the_program_that_started_it_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    simulator = int(holder.stdout.readline())
    (camera,) = children(simulator)
    holder.send_signal(number)
    assert holder.wait(PATIENCE_S) == -number
    holder.stdout.close()
    wait_gone(simulator)
    wait_gone(camera)
    assert not (tmp_path / "arm").is_symlink(), "it has ended in order"


def test_a_dead_camera_ends_the_simulator(tmp_path: Path) -> None:
    with start_simulator(tmp_path) as simulator:
        (camera,) = children(simulator.process.pid)
        os.kill(camera, signal.SIGKILL)
        assert simulator.process.wait(PATIENCE_S) == 3
    assert "camera process has died" in (tmp_path / "vla-sim.log").read_text()


def test_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(SimulatorError, match=f"port {port}.*--port"),
            start_simulator(tmp_path, port=port),
        ):
            pass


def test_without_opengl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SimulatorError, match="libegl1"):
        camera_child.start_camera(
            tmp_path / "camera.log", port=0, seed=0, realtime=False, user_backend="nonsense"
        )


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--port", "70000"], 2, "--port must lie in"),
        (["--camera-fps", "0"], 2, "--camera-fps must lie in"),
        (["--seed", "-1"], 2, "--seed must not"),
        (["--baud", "300"], 2, "--baud must lie in"),
        (["--parent-fd", "987"], 2, "--parent-fd must be"),
        (["--dir", "/proc/holdfast"], 3, "cannot be used"),
        (["--wire-log", "/proc/holdfast/log"], 3, "cannot be written"),
        (["--port", "0", "--wire-log", "/dev/full"], 3, "/dev/full cannot be written any more"),
    ],
)
def test_refusals(tmp_path: Path, arguments: list[str], code: int, reason: str) -> None:
    command = [sys.executable, "-m", "holdfast.drivers.simulated.cli", "--dir", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == code
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys; from holdfast.drivers.simulated import cli; cli.build_parser(); "
        "assert not {'numpy', 'mujoco', 'cv2', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE_S)


def test_no_simulator_no_truth(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="start vla-sim"):
        TruthClient(tmp_path / "truth.sock")


def test_wire_log_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = WireLog(path)
    log.add(5, FROM_HOST, b"abc")
    log.add(7, FROM_MOTORS, b"")
    log.add_truth(8, [-70_000, 5], [3, 0], late_ns=2_000_999, skipped_steps=4)
    log.add(9, FROM_HOST, b"unfinished")
    log.close()
    path.write_bytes(path.read_bytes()[:-1])
    assert [(r.stamp_ns, r.from_host, r.data) for r in read_wire_log(path)] == [
        (5, True, b"abc"),
        (7, False, b""),
    ]
    assert list(read_truth(path)) == [TruthRecord(8, (-70_000, 5), (3, 0), 2000, 4)]
    path.write_bytes(b"something else")
    with pytest.raises(SimulatorError, match="no wire log"):
        list(read_wire_log(path))
