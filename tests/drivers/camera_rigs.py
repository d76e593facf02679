"""The far ends of the camera tests: a real HTTP server on a socket, and real video files."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2

from holdfast.drivers.cameras.mjpeg import boot_id
from holdfast.drivers.types import StampSource

from .camera_suite import PICTURES, SIZE


class HttpRig:
    """Serves multipart/x-mixed-replace at /stream and a page at /page."""

    stamp_source = StampSource.HEADER

    def __init__(self) -> None:
        self.pictures = "moving"
        self.fps = 30.0
        self.frames: int | None = None
        self.stalls_after: int | None = None
        self.content_length = True
        self.stamp_headers = True
        self.age_ns = 0
        """How old the header stamps claim to be; negative: in the future."""
        self.boot_id = boot_id()
        self.junk_after_ns = 0
        self.halt = threading.Event()
        rig = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                rig.serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/stream"

    def show(self, pictures: str, *, fps: float = 30.0, frames: int | None = None) -> str:
        self.pictures, self.fps, self.frames = pictures, fps, frames
        return self.url

    def stall(self) -> str:
        # Without a length only the next boundary ends a picture: two are sent so that one is complete.
        self.stalls_after = 1 if self.content_length else 2
        return self.show("moving")

    def wrong_format(self) -> str:
        return self.url.replace("/stream", "/page")

    def missing(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{free.getsockname()[1]}/stream"

    def close(self) -> None:
        self.halt.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        if not handler.path.startswith("/stream"):
            handler.send_response(404 if handler.path == "/nothing" else 200)
            handler.send_header("Content-Type", "text/html")
            handler.end_headers()
            handler.wfile.write(b"<html>a page</html>")
            return
        handler.send_response(200)
        handler.send_header("Content-Type", 'multipart/x-mixed-replace; boundary="--frame"')
        handler.end_headers()
        index = 0
        try:
            while not self.halt.is_set() and index != self.frames:
                if self.stalls_after is not None and index >= self.stalls_after:
                    self.halt.wait(30)
                    return
                handler.wfile.write(self.part(index))
                index += 1
                self.halt.wait(1 / self.fps)
        except OSError:
            return  # The camera has hung up.

    def part(self, index: int) -> bytes:
        picture = cv2.cvtColor(PICTURES[self.pictures](index), cv2.COLOR_RGB2BGR)
        body = cv2.imencode(".jpg", picture)[1].tobytes()
        headers = ["Content-Type: image/jpeg"]
        if self.content_length:
            headers.append(f"Content-Length: {len(body)}")
        if self.stamp_headers:
            headers.append(f"X-Capture-Monotonic-Ns: {time.monotonic_ns() - self.age_ns}")
            headers.append(f"X-Boot-Id: {self.boot_id}")
        return b"--frame\r\n" + "\r\n".join(headers).encode() + b"\r\n\r\n" + body + b"\r\n"


class VideoServer:
    """Serves one video file over HTTP as `video/x-msvideo`, once, from its beginning."""

    def __init__(self, path: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/x-msvideo")
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(path.read_bytes())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/clip.avi"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class FileRig:
    """Writes video files (MJPEG in AVI, which every build of OpenCV reads and writes)."""

    stamp_source = StampSource.ARRIVAL

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def show(self, pictures: str, *, fps: float = 30.0, frames: int | None = None) -> str:
        path = self.folder / "clip.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, SIZE)
        for index in range(frames or 60):
            writer.write(cv2.cvtColor(PICTURES[pictures](index), cv2.COLOR_RGB2BGR))
        writer.release()
        return str(path) if frames else f"{path}?loop=1"

    def stall(self) -> str:
        address = self.show("moving", fps=1, frames=60)
        return f"{address}?fps=0.1"

    def wrong_format(self) -> str:
        path = self.folder / "notes.avi"
        path.write_text("this is no video\n" * 100)
        return str(path)

    def missing(self) -> str:
        return str(self.folder / "absent.mp4")
