"""The ground-truth channel: JSON lines over a UNIX socket, for evaluation and tests only.

Requests: `{"cmd": "reset", "seed": 1, "task": "touch", "colour": "red"}` (cubes anew; the arm stays where it
is unless `"keep_arm": false`), `{"cmd": "carousel", "rate_rad_s": 0.15}` (cubes go round until the next
reset), `{"cmd": "verdict"}`, `{"cmd": "fault", "kind": ..., ...}` (see `faults.KINDS`), `{"cmd":
"statistics"}`. Every answer has `ok`; a refusal has `error`, any other `at_ns` (CLOCK_MONOTONIC, ns, just
before it took effect). A policy must never see this.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SimulatorError

MAX_LINE = 65536
TIMEOUT_S = 10.0

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class TruthServer:
    """Serves the socket from the caller's loop: poll `fds`, then `serve` the readable ones."""

    def __init__(self, path: Path, handler: Handler) -> None:
        """Binds; raises `SimulatorError` if that cannot be."""
        self.path = path
        self._handler = handler
        self._clients: dict[int, tuple[socket.socket, bytearray]] = {}
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise SimulatorError(
                f"the socket {path} cannot be made ({error}); choose a shorter --dir"
            ) from error
        self._listener.listen()
        self._listener.setblocking(False)

    def fds(self) -> list[int]:
        return [self._listener.fileno(), *self._clients]

    def serve(self, fd: int) -> None:
        """Deals with a readable descriptor of `fds`."""
        if fd == self._listener.fileno():
            client, _ = self._listener.accept()
            client.setblocking(False)
            self._clients[client.fileno()] = client, bytearray()
        elif fd in self._clients:
            self._read(fd)

    def close(self) -> None:
        for client, _ in self._clients.values():
            client.close()
        self._clients.clear()
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _read(self, fd: int) -> None:
        client, buffer = self._clients[fd]
        try:
            data = client.recv(MAX_LINE)
            buffer += data
            while data and (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                client.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except OSError:
            data = b""  # the client has gone, or does not read its answers
        if not data or len(buffer) > MAX_LINE:
            del self._clients[fd]
            client.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError as error:
            return {"ok": False, "error": f"not JSON: {error}"}
        if not isinstance(request, dict):
            return {"ok": False, "error": "a request is a JSON object"}
        return self._handler(request)


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true in the simulation now."""

    at_ns: int
    """CLOCK_MONOTONIC; the state is that of the last physics step before."""
    success: bool
    wrong_object: bool
    touched: tuple[str, ...]
    holding: bool
    time_s: float
    """Simulated time of the episode."""
    qpos: tuple[float, ...]
    """True joint positions, robot joint order: rad; the gripper's jaw in m."""
    tip: tuple[float, float, float]
    """The gripper's tip, m."""
    cubes: dict[str, tuple[float, float, float]]
    """Centres of the cubes by colour, m."""


class TruthClient:
    """A client of the channel. Not thread-safe."""

    def __init__(self, path: str | Path, timeout_s: float = TIMEOUT_S) -> None:
        """Connects; raises `SimulatorError` if no simulator listens there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise SimulatorError(
                f"no simulator listens at {path} ({error.strerror}); start vla-sim"
            ) from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> TruthClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, **request: object) -> dict[str, Any]:
        """One request; raises `SimulatorError` if it is refused or the simulator has gone."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise SimulatorError(f"the simulator does not answer on its truth channel: {error}") from error
        if not line:
            raise SimulatorError("the simulator closed its truth channel: it has ended")
        answer = json.loads(line)
        if not answer.pop("ok", False):
            raise SimulatorError(f"the simulator refused {request}: {answer.get('error')}")
        return answer

    def reset(
        self, seed: int, task: str | None = None, colour: str | None = None, *, keep_arm: bool = True
    ) -> str:
        """Places the cubes anew and starts an episode; returns its instruction."""
        answer = self.ask(cmd="reset", seed=seed, task=task, colour=colour, keep_arm=keep_arm)
        return str(answer["instruction"])

    def turn_carousel(self, rate_rad_s: float) -> None:
        """Sets the cubes going round the arm until the next reset; 0 stops them."""
        self.ask(cmd="carousel", rate_rad_s=rate_rad_s)

    def verdict(self) -> Truth:
        """How the episode stands, and the true state."""
        answer = self.ask(cmd="verdict")
        tuples = {name: tuple(answer[name]) for name in ("touched", "qpos", "tip")}
        cubes = {colour: tuple(centre) for colour, centre in answer["cubes"].items()}
        return Truth(**{**answer, **tuples, "cubes": cubes})

    def fault(self, kind: str, **arguments: float) -> int:
        """Breaks something (see `faults.KINDS`); returns when: CLOCK_MONOTONIC, ns."""
        return int(self.ask(cmd="fault", kind=kind, **arguments)["at_ns"])

    def clear(self) -> int:
        """Mends everything; returns when. After a loss of power the motors are limp and have forgotten their
        RAM; one that a protection has switched off stays off until its torque register is written."""
        return self.fault("clear")

    def statistics(self) -> dict[str, Any]:
        """Counters of the simulator: skipped physics, bad checksums, lost bytes."""
        return self.ask(cmd="statistics")
