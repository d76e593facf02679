"""vla-sim: the simulated robot, with a real serial or TCP port, motor protocol and camera stream."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bus_process import Options

EXIT_OK, EXIT_USAGE, EXIT_REFUSED = 0, 2, 3
EPILOG = """When everything is up, one line of JSON appears on stdout: arm (URL for vla-run --arm), camera
(URL for vla-run --camera, or a browser), truth (socket of the ground-truth channel) and pid. Ends on Ctrl-C
or SIGTERM. Exit codes: 0 ended by signal, 2 usage, 3 could not start or the camera died."""


def build_parser() -> argparse.ArgumentParser:
    """The command line; imports nothing heavy."""
    parser = argparse.ArgumentParser(prog="vla-sim", description=__doc__, epilog=EPILOG)
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where the port and sockets are made")
    parser.add_argument(
        "--bus",
        choices=("pty", "socket"),
        default="pty",
        help="what the motors are on: a serial port (default), or a TCP port of this machine",
    )
    parser.add_argument(
        "--baud", type=int, default=1_000_000, help="of the motor bus (default 1000000, as in sim_arm.yaml)"
    )
    parser.add_argument("--port", type=int, default=8090, help="camera port on 127.0.0.1; 0 = any free one")
    parser.add_argument("--seed", type=int, default=0, help="of the first placement and the sensor noise")
    parser.add_argument("--camera-fps", type=float, default=30.0, help="frames per second (default 30)")
    parser.add_argument("--no-rt", action="store_true", help="do not ask for real-time priority")
    parser.add_argument("--wire-log", type=Path, metavar="FILE", help="record every byte on the motor bus")
    parser.add_argument(
        "--parent-fd",
        type=int,
        metavar="FD",
        help="for programs that start vla-sim: it also ends when the other end of this inherited pipe closes",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of `vla-sim`; returns the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.port <= 65535:
        parser.error(f"--port must lie in 0..65535, got {arguments.port}")
    if not 1 <= arguments.camera_fps <= 120:
        parser.error(f"--camera-fps must lie in 1..120, got {arguments.camera_fps}")
    if not 9600 <= arguments.baud <= 10_000_000:
        parser.error(f"--baud must lie in 9600..10000000, got {arguments.baud}")
    if arguments.seed < 0:
        parser.error(f"--seed must not be negative, got {arguments.seed}")
    if arguments.parent_fd is not None and not _is_open(arguments.parent_fd):
        parser.error(f"--parent-fd must be an open descriptor, got {arguments.parent_fd}")
    user_backend = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"  # only the camera process renders
    try:
        from .bus_process import Options
        from .errors import SimulatorError
    except ImportError as error:
        print(f"vla-sim: {error}; install the extra: pip install 'holdfast[sim]'", file=sys.stderr)
        return EXIT_REFUSED
    from .folder import default_folder

    options = Options(
        folder=(arguments.dir or default_folder()).absolute(),
        bus=arguments.bus,
        baud=arguments.baud,
        port=arguments.port,
        seed=arguments.seed,
        camera_fps=arguments.camera_fps,
        realtime=not arguments.no_rt,
        wire_log=arguments.wire_log,
    )
    try:
        run(options, user_backend, arguments.parent_fd)
    except SimulatorError as error:
        print(f"vla-sim: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_OK


def run(options: Options, user_backend: str | None = None, parent_fd: int | None = None) -> None:
    """Runs the simulated robot until SIGINT, SIGTERM or the end of file at `parent_fd`.

    Raises `SimulatorError`.
    """
    from .bus_process import SimulatedRobot
    from .camera_child import start_camera
    from .folder import FolderLock
    from .realtime import BUS_PRIORITY, prefer_fifo
    from .wire_log import WireLog

    with contextlib.ExitStack() as stack:
        stop_fd = stack.enter_context(_signals())
        stack.callback(FolderLock(options.folder).release)
        log = WireLog(options.wire_log) if options.wire_log else None
        if log is not None:
            stack.callback(log.close)
        camera = start_camera(
            options.folder / "camera.log",
            port=options.port,
            seed=options.seed,
            realtime=options.realtime,
            user_backend=user_backend,
        )
        stack.callback(camera.close)
        robot = SimulatedRobot(options, camera, log)
        stack.callback(robot.close)
        if options.realtime and (reason := prefer_fifo(BUS_PRIORITY, children=False)):
            print(f"vla-sim: {reason}", file=sys.stderr)
        ready = {
            "arm": robot.port.url,
            "camera": camera.url,
            "truth": str(robot.truth.path),
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        robot.run(stop_fd, parent_fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Turns SIGINT and SIGTERM into bytes on a descriptor, which is given."""
    near, far = socket.socketpair()
    far.setblocking(False)
    previous_fd = signal.set_wakeup_fd(far.fileno())
    previous = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield near.fileno()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        near.close()
        far.close()


if __name__ == "__main__":
    raise SystemExit(main())
