"""The far ends of motor buses for the driver suite: simulated servos on a pty and on a TCP socket.

The servos are the simulator's pure state machine with wire time; the motors are ideal (they are where their
goal is at once), so that a stale answer shows as a wrong position.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from holdfast.drivers.calibration import Calibration, find_calibration
from holdfast.drivers.robots.schema import Robot, load_robot
from holdfast.drivers.simulated.faults import Faults
from holdfast.drivers.simulated.pty_port import PtyPort
from holdfast.drivers.simulated.servos import Servo
from holdfast.drivers.simulated.wire import Reply, ServoBus

Mangle = Callable[[bytes], bytes]


def patient_robot() -> Robot:
    """The simulated arm's file with a reply time-out that a stalled pty of a busy machine does not reach."""
    robot = load_robot("sim_arm")
    return robot.model_copy(update={"bus": robot.bus.model_copy(update={"reply_timeout_ms": 120.0})})


def servos_of(calibration: Calibration) -> list[Servo]:
    """Servos as the calibration left them, each at the middle of its range, torque off."""
    servos = []
    for row in calibration.joints:
        servo = Servo(row.id, offset=row.homing_offset, limits=(row.range_min, row.range_max))
        servo.actual = round(row.middle) + row.homing_offset
        servo.power_up()
        servos.append(servo)
    return servos


class Line(Protocol):
    """The host's side of a wire, as the simulated servos see it."""

    @property
    def fd(self) -> int | None: ...
    def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...


class Rig:
    """Servos behind a line, served by a thread. Change `faults` and `mangle` while it runs."""

    url: str

    def __init__(self) -> None:
        self.robot = patient_robot()
        self.calibration = find_calibration(self.robot)
        self.servos = servos_of(self.calibration)
        self.faults = Faults()
        self.mangle: list[Mangle] = []
        """Each is applied to the next answer as a whole, once."""
        self.heard = bytearray()
        self._wire = ServoBus(self.servos, self.faults)
        self._lock = threading.Lock()
        self._running = True
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(5)
        self.unplug()

    def unplug(self) -> None:
        raise NotImplementedError

    def replug(self) -> None:
        raise NotImplementedError

    def line(self) -> Line | None:
        raise NotImplementedError

    def unplug_safely(self) -> None:
        with self._lock:
            self.unplug()

    def replug_safely(self) -> None:
        with self._lock:
            self.replug()

    def _serve(self) -> None:
        due: list[Reply] = []
        while self._running:
            with self._lock:
                line = self.line()
                self._deliver(line, due)
                self._listen(line, due)
            if line is None:
                time.sleep(0.002)

    def _deliver(self, line: Line | None, due: list[Reply]) -> None:
        while due and due[0].due_ns <= time.monotonic_ns():
            reply = due.pop(0)
            if line is not None:
                line.write(reply.data)

    def _listen(self, line: Line | None, due: list[Reply]) -> None:
        if line is None or line.fd is None:
            return
        wait_s = 0.002 if not due else max(0.0, min(0.002, (due[0].due_ns - time.monotonic_ns()) / 1e9))
        if not select.select([line.fd], [], [], wait_s)[0]:
            return
        data = line.read()
        self.heard += data
        for at, piece in enumerate(data.split(b"\xff\xff")):
            due += self._answer((b"\xff\xff" if at else b"") + piece)

    def _answer(self, request: bytes) -> list[Reply]:
        """Frame by frame, so that a read behind a goal in the same packet sees the motors moved."""
        replies = self._wire.feed(request, time.monotonic_ns())
        if replies and self.mangle:
            whole = b"".join(reply.data for reply in replies)
            replies = [Reply(replies[-1].due_ns, self.mangle.pop(0)(whole))]
        for servo in self.servos:
            drive = servo.drive(0.001)
            servo.feel(drive.goal_actual if drive.torque else servo.actual, 0, 0.0, 0.001)
        return replies


class PtyRig(Rig):
    """Servos on a pty behind a stable link."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._pty = PtyPort(folder / "arm")
        self.url = f"serial:{self._pty.link}"
        self.start()

    def line(self) -> Line | None:
        return self._pty if self._pty.fd is not None else None

    def unplug(self) -> None:
        self._pty.unplug()

    def replug(self) -> None:
        self._pty.plug()


class SocketRig(Rig):
    """Servos behind a TCP port, as a serial server offers them. One client at a time, the newest."""

    def __init__(self) -> None:
        super().__init__()
        self._client: socket.socket | None = None
        self._server: socket.socket | None = None
        self._port = 0
        self.replug()
        self.url = f"socket://127.0.0.1:{self._port}"
        self.start()

    @property
    def fd(self) -> int | None:
        return self._client.fileno() if self._client else None

    def line(self) -> Line | None:
        if self._server is not None and select.select([self._server], [], [], 0)[0]:
            self._hang_up()
            self._client = self._server.accept()[0]
            self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self if self._client is not None else None

    def read(self) -> bytes:
        assert self._client is not None
        data = b""
        with contextlib.suppress(OSError):
            data = self._client.recv(4096)
        if not data:
            self._hang_up()
        return data

    def write(self, data: bytes) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.sendall(data)

    def unplug(self) -> None:
        self._hang_up()
        if self._server is not None:
            self._server.close()
            self._server = None

    def replug(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self._port))
        self._port = self._server.getsockname()[1]

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def busy_lock(path: str) -> int:
    """Locks a port as another program would; close the descriptor to free it."""
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd
