"""The simulated robot's main loop: motor port, physics in real time, camera states, truth channel.

One thread and `select`: it sleeps until the next reply, physics step or frame is due, or bytes arrive.
Replies come first; physics runs on an absolute grid and gives way to a reply that is nearly due.
"""

from __future__ import annotations

import gc
import json
import select
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..robots.schema import FOLDER, load_robot
from . import camera_link
from .camera_child import CameraChild
from .camera_link import Shot
from .faults import FaultRequestError, Faults, apply_fault
from .plant import Plant, calibrated_servos
from .pty_port import PtyPort
from .socket_port import SocketPort
from .truth import TruthServer
from .wire import Reply, ServoBus
from .wire_log import FROM_HOST, FROM_MOTORS, WireLog
from .world import World

STEP_NS = round(World.STEP_S * 1e9)
SPIN_NS = 50_000
"""It wakes up so long before a reply is due and watches the clock: timers are that late."""
SKIP_NS = 250_000_000
"""Physics that has fallen further behind gives the time up instead of rushing after it."""
STEP_COST_NS = 300_000
"""A physics step is not begun when a reply is due sooner than this."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run the simulated robot."""

    folder: Path
    bus: Literal["pty", "socket"] = "pty"
    baud: int = 1_000_000
    port: int = 8090
    """Of the camera; 0: any free one."""
    seed: int = 0
    camera_fps: float = 30.0
    realtime: bool = True
    wire_log: Path | None = None


class HostPort(Protocol):
    """The simulator's end of the line to the host: `PtyPort` or `SocketPort`."""

    lost_bytes: int

    @property
    def url(self) -> str: ...
    @property
    def plugged(self) -> bool: ...
    def fds(self) -> list[int]: ...
    def plug(self) -> None: ...
    def unplug(self) -> None: ...
    def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...


class SimulatedRobot:
    """The arm on its motor port. `run` until one of the stop descriptors is readable."""

    def __init__(self, options: Options, camera: CameraChild, log: WireLog | None) -> None:
        """Creates the port and the truth socket in the folder; raises `SimulatorError`."""
        robot = load_robot("sim_arm")
        calibration = json.loads((FOLDER / str(robot.calibration)).read_text())
        servos, offsets = calibrated_servos(robot.joint_names, calibration)
        self._faults = Faults()
        self._ids = frozenset(robot.motor_ids)
        self._world = World(options.seed)
        self._plant = Plant(self._world, servos, offsets, self._faults)
        self._bus = ServoBus(servos, self._faults, options.baud)
        self._camera = camera
        self._log = log
        self._frame_ns = round(1e9 / options.camera_fps)
        self._camera_changed = False
        """The camera's faults have changed: it hears of them with the next step, not with the next frame."""
        self._frames = 0
        self._replies: deque[Reply] = deque()
        """In order; `due_ns` here is when to hand over."""
        self._skipped_steps = 0
        self.truth = TruthServer(options.folder / "truth.sock", self._handle)
        self.port: HostPort = PtyPort(options.folder / "arm") if options.bus == "pty" else SocketPort()

    def close(self) -> None:
        """Removes the port and the socket; the camera and the log belong to the caller."""
        self.port.unplug()
        self.truth.close()

    def run(self, *stop_fds: int | None) -> None:
        """The loop, until one of `stop_fds` is readable or at its end; raises `SimulatorError` if the camera
        process dies."""
        stops = [fd for fd in stop_fds if fd is not None]
        gc.collect()
        gc.freeze()
        step_ns = frame_ns = time.monotonic_ns()
        while True:
            now_ns = time.monotonic_ns()
            now_ns = self._deliver(now_ns)
            reply_ns = self._replies[0].due_ns if self._replies else None
            if step_ns <= now_ns and (reply_ns is None or reply_ns > now_ns + STEP_COST_NS):
                if now_ns - step_ns > SKIP_NS:
                    self._skipped_steps += (now_ns - step_ns) // STEP_NS
                    step_ns += (now_ns - step_ns) // STEP_NS * STEP_NS
                self._plant.step()
                self._witness(step_ns)
                if step_ns >= frame_ns or self._camera_changed:
                    self._shoot(step_ns)
                    if step_ns >= frame_ns:
                        frame_ns = max(frame_ns + self._frame_ns, step_ns - self._frame_ns)
                step_ns += STEP_NS
            if self._log is not None:
                self._log.flush_if_due(now_ns)
            wake_ns = step_ns
            if reply_ns is not None:
                # An overdue step waits for a reply that is nearly due.
                wake_ns = reply_ns - SPIN_NS if step_ns <= now_ns else min(step_ns, reply_ns - SPIN_NS)
            if not self._wait(wake_ns, stops):
                return

    def _wait(self, due_ns: int, stop_fds: list[int]) -> bool:
        """Sleeps until `due_ns` or until bytes arrive, which it deals with; False to end."""
        port_fds = self.port.fds()
        fds = [*stop_fds, *self.truth.fds(), *port_fds]
        timeout_s = max(0, due_ns - time.monotonic_ns()) * 1e-9
        readable, _, _ = select.select(fds, [], [], timeout_s)
        if not readable:
            return True
        if any(fd in readable for fd in stop_fds):
            return False
        if any(fd in readable for fd in port_fds):
            self._hear()
        for fd in readable:
            if fd not in port_fds:
                self.truth.serve(fd)
        return True

    def _hear(self) -> None:
        data = self.port.read()
        now_ns = time.monotonic_ns()
        if data:
            if self._log is not None:
                self._log.add(now_ns, FROM_HOST, data)
            self._replies.extend(self._bus.feed(data, now_ns))

    def _deliver(self, now_ns: int) -> int:
        """Hands over the replies that are due; returns the time after it."""
        while self._replies and self._replies[0].due_ns <= now_ns + SPIN_NS:
            reply = self._replies.popleft()
            while time.monotonic_ns() < reply.due_ns:
                pass
            data = reply.data
            self.port.write(data)
            now_ns = time.monotonic_ns()
            if self._log is not None and self.port.plugged:
                self._log.add(now_ns, FROM_MOTORS, data)
        return now_ns

    def _witness(self, step_ns: int) -> None:
        """Writes down what the physics step that was due at `step_ns` came to."""
        if self._log is not None:
            now_ns = time.monotonic_ns()
            late_ns = now_ns - step_ns
            self._log.add_truth(now_ns, self._plant.ticks, self._plant.torque, late_ns, self._skipped_steps)

    def _shoot(self, stamp_ns: int) -> None:
        self._frames += 1
        self._camera_changed = False
        faults = camera_link.camera_faults(self._faults)
        self._camera.shoot(Shot(stamp_ns, self._frames, faults, self._world.snapshot()))

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers one request of the truth channel. `at_ns`: when it took effect."""
        at_ns = time.monotonic_ns()
        arguments = {key: value for key, value in request.items() if key not in ("cmd", "kind")}
        try:
            answer = self._carry_out(request, arguments)
        except (FaultRequestError, ValueError, TypeError) as error:
            return {"ok": False, "error": str(error)}
        if answer is None:
            return {"ok": False, "error": "cmd is one of reset, carousel, verdict, fault, statistics"}
        return {"ok": True, "at_ns": at_ns, **answer}

    def _carry_out(self, request: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any] | None:
        match request.get("cmd"):
            case "reset":
                return {"instruction": self._reset(**arguments)}
            case "carousel":
                self._world.turn_carousel(**arguments)
                return {}
            case "verdict":
                return self._verdict()
            case "fault":
                camera = camera_link.camera_faults(self._faults)
                apply_fault(self._faults, request.get("kind"), arguments, self._ids)
                self._follow_faults()
                self._camera_changed |= camera_link.camera_faults(self._faults) != camera
                return {}
            case "statistics":
                return self._statistics()
        return None

    def _reset(
        self, seed: int, task: str | None = None, colour: str | None = None, keep_arm: bool = True
    ) -> str:
        episode = self._world.reset(seed, task, colour, keep_arm=keep_arm)
        if not keep_arm:
            self._plant.settle_goals()
        return episode.instruction

    def _verdict(self) -> dict[str, Any]:
        sight = self._world.sight()
        return {
            **asdict(self._world.judge()),
            "qpos": self._world.joints().tolist(),
            "tip": sight.tip.tolist(),
            "cubes": {colour: centre.tolist() for colour, centre in sight.cubes.items()},
        }

    def _statistics(self) -> dict[str, Any]:
        return {
            "skipped_physics_s": self._skipped_steps * World.STEP_S,
            "bad_checksums": self._bus.bad_checksums,
            "answered_requests": self._bus.answered,
            "damaged_answers": self._bus.damaged,
            "lost_bytes": self.port.lost_bytes,
            "frames": self._frames,
        }

    def _follow_faults(self) -> None:
        """Brings about at once what was asked, rather than with the next step or reply."""
        faults = self._faults
        self._plant.follow_faults()
        if faults.unplugged:
            self.port.unplug()
        else:
            self.port.plug()
        if faults.unplugged or faults.power_lost:
            self._replies.clear()  # what was still on its way
