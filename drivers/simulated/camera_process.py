"""The process that renders the world and serves the pictures.

It gets states of the world on a SEQPACKET socket (`camera_link`), answers once with a line of JSON
(`{"port": N}` or `{"error": "..."}`) and ends when the other end of the socket is closed. The OpenGL back-end
is that of MUJOCO_GL, which must be set before.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from typing import TYPE_CHECKING

from . import camera_link
from .camera_link import BLACK, DROP, FREEZE, REPEAT, UNPLUG, Shot
from .mjpeg import CameraServer, Picture, Stage
from .realtime import CAMERA_PRIORITY, prefer_fifo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .eye import Eye

HOST = "127.0.0.1"
REOPEN_S = 0.1


class CameraProcess:
    """Renders what is wanted and keeps the server open or, for the fault `camera_unplug`, closed."""

    def __init__(self, link: socket.socket, eye: Eye, port: int) -> None:
        """Opens the server; raises `OSError` if the port is taken."""
        self._link = link
        self._eye = eye
        self._stage = Stage()
        self._server: CameraServer | None = CameraServer((HOST, port), self._stage)
        self.port: int = self._server.server_address[1]
        self._jpeg: bytes | None = None
        self._stamp_ns = 0
        self._server.start()

    def run(self) -> None:
        """Serves until the other end is closed."""
        while (shot := self._newest_shot()) is not None:
            self._plug(not shot.faults & UNPLUG)
            if self._server is None or shot.faults & DROP or not self._stage.wanted:
                continue
            if not (shot.faults & (FREEZE | REPEAT) and self._jpeg):
                self._jpeg = self._eye.jpeg(self._look(shot))
            if not shot.faults & REPEAT:
                # A frozen camera goes on stamping: it does not know.
                self._stamp_ns = shot.stamp_ns
            self._stage.show(Picture(self._jpeg, self._stamp_ns or shot.stamp_ns, shot.sequence))
        self._plug(False)

    def _look(self, shot: Shot) -> NDArray[np.uint8]:
        if shot.faults & BLACK:
            return self._eye.darkness(shot.sequence)
        return self._eye.render(shot.state, shot.sequence)

    def _newest_shot(self) -> Shot | None:
        """Waits for a state and takes the newest one there is; None at the end of the connection."""
        data = self._link.recv(camera_link.MAX_BYTES)
        if not data:
            return None
        while True:
            try:
                newer = self._link.recv(camera_link.MAX_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return camera_link.unpack(data)
            if not newer:
                return None
            data = newer

    def _plug(self, plugged: bool) -> None:
        if plugged and self._server is None:
            try:
                self._server = CameraServer((HOST, self.port), self._stage)
            except OSError:
                time.sleep(REOPEN_S)  # taken by another process meanwhile: tried again with the next state
                return
            self._server.start()
        elif not plugged and self._server is not None:
            self._server.stop()
            self._server = None


def main(argv: list[str] | None = None) -> int:
    """Entry point; started by the bus process, not by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-rt", action="store_true")
    options = parser.parse_args(argv)
    link = socket.socket(fileno=options.fd)
    from .eye import Eye

    eye = Eye(seed=options.seed)
    if not options.no_rt:
        prefer_fifo(CAMERA_PRIORITY, children=True)
    try:
        camera = CameraProcess(link, eye, options.port)
    except OSError as error:
        reason = f"port {options.port} of {HOST} cannot be used ({error.strerror}); choose another: --port"
        link.send(json.dumps({"error": reason}).encode())
        return 3
    link.send(json.dumps({"port": camera.port}).encode())
    camera.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
