"""The far ends of motor buses for the driver suite: simulated servos on a pty and on a TCP socket.

The servos are the simulator's pure state machine with wire time; the motors are ideal (they are where their
goal is at once), so that a stale answer shows as a wrong position.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from holdfast.drivers.calibration import Calibration, find_calibration
from holdfast.drivers.robots.schema import Robot, load_robot
from holdfast.drivers.simulated.faults import Faults
from holdfast.drivers.simulated.pty_port import PtyPort
from holdfast.drivers.simulated.servos import Servo
from holdfast.drivers.simulated.socket_port import SocketPort
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


Port = PtyPort | SocketPort


class Rig:
    """Servos behind a port, served by a thread. Change `faults` and `mangle` while it runs."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.url = port.url
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

        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(5)
        self.port.unplug()

    def unplug_safely(self) -> None:
        with self._lock:
            self.port.unplug()

    def replug_safely(self) -> None:
        with self._lock:
            self.port.plug()

    def _serve(self) -> None:
        due: list[Reply] = []
        while self._running:
            with self._lock:
                self._deliver(due)
                self._listen(due)
            if not self.port.plugged:
                time.sleep(0.002)

    def _deliver(self, due: list[Reply]) -> None:
        while due and due[0].due_ns <= time.monotonic_ns():
            self.port.write(due.pop(0).data)

    def _listen(self, due: list[Reply]) -> None:
        wait_s = 0.002 if not due else max(0.0, min(0.002, (due[0].due_ns - time.monotonic_ns()) / 1e9))
        if not select.select(self.port.fds(), [], [], wait_s)[0]:
            return
        data = self.port.read()
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


def rig_on_pty(folder: Path) -> Rig:
    """Servos on a pty behind a stable link."""
    return Rig(PtyPort(folder / "arm"))


def rig_on_socket() -> Rig:
    """Servos behind a TCP port, as a serial server offers them."""
    return Rig(SocketPort())


def busy_lock(path: str) -> int:
    """Locks a port as another program would; close the descriptor to free it."""
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd
