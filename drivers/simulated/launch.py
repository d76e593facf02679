"""Starting the simulated robot from tests, benchmarks and the demo."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import SimulatorError
from .truth import TruthClient

START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulated robot."""

    process: subprocess.Popen[bytes]
    arm_url: str
    """`serial:<folder>/arm`, or `socket://127.0.0.1:<port>`"""
    camera_url: str
    truth: TruthClient

    @property
    def port_path(self) -> str:
        """The serial port as a path (bus `pty`)."""
        return self.arm_url.removeprefix("serial:")


@contextlib.contextmanager
def start_simulator(
    folder: Path,
    *,
    bus: Literal["pty", "socket"] = "pty",
    baud: int = 1_000_000,
    port: int = 0,
    seed: int = 0,
    camera_fps: float = 30.0,
    realtime: bool = True,
    wire_log: Path | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Simulator]:
    """A simulator in its own process, ready; ended on leaving. Its stderr goes to `folder`/vla-sim.log.

    It ends by itself when this process is gone, however that came about (SIGKILL, say): it watches a pipe
    of which this process holds the other end.

    Raises `SimulatorError` with the end of that log if it does not come up.
    """
    command = [sys.executable, "-m", "holdfast.drivers.simulated.cli", "--dir", str(folder)]
    command += [
        "--bus",
        bus,
        "--baud",
        str(baud),
        "--port",
        str(port),
        "--seed",
        str(seed),
        "--camera-fps",
        str(camera_fps),
    ]
    command += [] if realtime else ["--no-rt"]
    command += ["--wire-log", str(wire_log)] if wire_log else []
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / "vla-sim.log"
    parent_fd, held_fd = os.pipe()
    try:
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*command, "--parent-fd", str(parent_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[parent_fd],
                start_new_session=True,
            )
    except OSError:
        os.close(held_fd)
        raise
    finally:
        os.close(parent_fd)
    try:
        ready = _ready_line(process, log, timeout_s)
        with TruthClient(ready["truth"]) as truth:
            yield Simulator(process, ready["arm"], ready["camera"], truth)
    finally:
        _end(process)
        os.close(held_fd)


def _ready_line(process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> dict[str, str]:
    """The line that the simulator prints when everything is up."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(fd, 4096) if readable else b""
        if not data:
            tail = log.read_text(errors="replace").strip()[-500:]
            reason = tail or f"nothing was said within {timeout_s:g} s"
            raise SimulatorError(f"vla-sim did not come up: {reason}")
        line += data
    return json.loads(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends exactly this process: asks first, then insists."""
    process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
