"""The bus process's side of the camera: starting it with an OpenGL back-end that works, feeding it states."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from . import camera_link
from .camera_link import Shot
from .errors import SimulatorError

BACKENDS = ("egl", "osmesa")
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0
REASON_CHARACTERS = 200
PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"


class CameraChild:
    """The running camera process."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, port: int) -> None:
        self._process = process
        self._link = link
        self.url = f"http://127.0.0.1:{port}/stream.mjpg"
        link.setblocking(False)

    def shoot(self, shot: Shot) -> None:
        """Hands a state over; a camera that lags loses states rather than delaying the caller.

        Raises `SimulatorError` if the camera process has died.
        """
        try:
            self._link.send(camera_link.pack(shot))
        except BlockingIOError:
            return
        except OSError as error:
            raise SimulatorError(
                f"the camera process has died (exit status {self._process.poll()}); see camera.log"
            ) from error

    def close(self) -> None:
        """Ends the process."""
        self._link.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
            return
        self._process.kill()
        self._process.wait()


def start_camera(
    log: Path, *, port: int, seed: int, realtime: bool, user_backend: str | None = None
) -> CameraChild:
    """Starts the camera process with the user's MUJOCO_GL, or else the first back-end that works.

    Raises `SimulatorError` if the port is taken or no back-end works (naming the packages to install).
    """
    failures: list[str] = []
    for backend in (user_backend,) if user_backend else BACKENDS:
        child = _try_backend(backend, log, port, seed, realtime)
        if isinstance(child, CameraChild):
            return child
        failures.append(f"{backend}: {child}")
    raise SimulatorError(
        f"the camera cannot render ({'; '.join(failures)}); install {PACKAGES}; details: {log}"
    )


def _try_backend(backend: str, log: Path, port: int, seed: int, realtime: bool) -> CameraChild | str:
    """A running camera, or why it did not come up; raises `SimulatorError` where trying on is of no use."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "holdfast.drivers.simulated.camera_process", "--fd", str(far.fileno())]
    command += ["--port", str(port), "--seed", str(seed), *([] if realtime else ["--no-rt"])]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[far.fileno()],
            start_new_session=True,
            # Software rendering in the caller's thread: workers would not share its priority.
            env={"LP_NUM_THREADS": "0", **os.environ, "MUJOCO_GL": backend},
        )
    far.close()
    near.settimeout(START_TIMEOUT_S)
    try:
        answer = near.recv(camera_link.MAX_BYTES)
    except TimeoutError:
        answer = b""
        process.kill()
    if not answer:
        near.close()
        process.wait()
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return (
            lines[-1].strip()[:REASON_CHARACTERS] if lines else f"no answer, exit status {process.returncode}"
        )
    report = json.loads(answer)
    if "error" in report:
        near.close()
        process.wait()
        raise SimulatorError(report["error"])
    return CameraChild(process, near, report["port"])
