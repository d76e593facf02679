"""The simulated network camera: an MJPEG stream over HTTP that any browser or OpenCV opens.

`/stream.mjpg` is multipart/x-mixed-replace; every part carries Content-Type, Content-Length and
`X-Capture-Monotonic-Ns` (CLOCK_MONOTONIC of the moment shown), `X-Boot-Id` (that clock's boot: on another
machine the stamp means nothing) and `X-Frame-Sequence`. `/snapshot.jpg` is one picture, `/` a page that shows
the stream. Each client has a thread; a slow one skips pictures and delays nobody.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BOUNDARY = "holdfast-frame"
SEND_TIMEOUT_S = 5.0
PICTURE_TIMEOUT_S = 2.0
SEND_BUFFER_BYTES = 65536
"""Small, so that a slow client sees old pictures replaced rather than queued."""
PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>vla-sim</title>
<body style="margin:0;background:#222;color:#ccc;font-family:sans-serif;text-align:center">
<h3>Holdfast simulated camera</h3>
<img src="/stream.mjpg" alt="camera" style="width:min(90vmin,768px);image-rendering:pixelated">
</body></html>
"""


def boot_id() -> str:
    """Which boot of which machine CLOCK_MONOTONIC belongs to."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Picture:
    jpeg: bytes
    stamp_ns: int
    sequence: int


class Stage:
    """Where the newest picture stands, for any number of waiting clients."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: Picture | None = None
        self._watchers = 0

    @property
    def wanted(self) -> bool:
        """Whether anyone watches."""
        return self._watchers > 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Counts the caller among those who watch."""
        with self._changed:
            self._watchers += 1
        try:
            yield
        finally:
            with self._changed:
                self._watchers -= 1

    def show(self, picture: Picture) -> None:
        with self._changed:
            self._newest = picture
            self._changed.notify_all()

    def wait_newer(self, sequence: int, timeout_s: float) -> Picture | None:
        """The newest picture once it is newer than `sequence`; None after the timeout."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._newest is not None and self._newest.sequence > sequence, timeout_s
            )
            newest = self._newest
            return newest if newest is not None and newest.sequence > sequence else None


class CameraServer(ThreadingHTTPServer):
    """Serves one `Stage`. `address` is fixed at the first opening, so that it can be re-opened there."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], stage: Stage) -> None:
        """Binds; raises `OSError` if the port is taken."""
        self.stage = stage
        self.boot_id = boot_id()
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def start(self) -> None:
        """Serves from a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Refuses new clients and cuts off those that are connected."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has gone by itself in the meantime

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients come and go; the standard traceback for each would say nothing."""


class _Handler(BaseHTTPRequestHandler):
    server_version = "vla-sim"

    @property
    def camera(self) -> CameraServer:
        assert isinstance(self.server, CameraServer)
        return self.server

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.request.settimeout(SEND_TIMEOUT_S)
        super().setup()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/stream.mjpg":
            self._stream()
        elif path == "/snapshot.jpg":
            self._snapshot()
        elif path == "/":
            self._send("text/html; charset=utf-8", PAGE)
        else:
            self.send_error(404, "there are /, /stream.mjpg and /snapshot.jpg")

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the access log of a camera is of no use."""

    def _send(self, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stamps(self, picture: Picture) -> dict[str, str]:
        return {
            "X-Capture-Monotonic-Ns": str(picture.stamp_ns),
            "X-Boot-Id": self.camera.boot_id,
            "X-Frame-Sequence": str(picture.sequence),
        }

    def _snapshot(self) -> None:
        stage = self.camera.stage
        before = stage.wait_newer(-1, 0.0)
        with stage.watched():
            picture = stage.wait_newer(before.sequence if before else -1, PICTURE_TIMEOUT_S)
        if picture is None:
            self.send_error(503, "the camera delivers no picture")
            return
        self._send("image/jpeg", picture.jpeg, self._stamps(picture))

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        with self.camera.stage.watched():
            self._send_pictures()

    def _send_pictures(self) -> None:
        sequence = -1
        while not self.camera.closing.is_set():
            picture = self.camera.stage.wait_newer(sequence, 0.5)
            if picture is None:
                continue
            sequence = picture.sequence
            head = [f"--{BOUNDARY}", "Content-Type: image/jpeg", f"Content-Length: {len(picture.jpeg)}"]
            head += [f"{name}: {value}" for name, value in self._stamps(picture).items()]
            self.wfile.write("\r\n".join([*head, "", ""]).encode() + picture.jpeg + b"\r\n")
