"""From the text of `--camera` to a camera."""

from __future__ import annotations

import threading

from ..types import Camera
from .http_stream import HttpStream
from .mjpeg import MjpegSource
from .source import Picture, Source
from .spec import CameraSpec, parse_camera
from .threaded import ThreadedCamera
from .v4l2 import V4l2Source
from .video import FfmpegSource, VideoFileSource


def open_camera(spec: str | CameraSpec, *, open_timeout_s: float = 10.0) -> Camera:
    """A camera that is not started yet: `start()` opens it. Its `name` is empty when `spec` gives none.

    `spec`: `[NAME=]ADDRESS[?options]`, see `spec.FORMS`. Raises `CameraOpenError` for a malformed one.
    """
    parsed = parse_camera(spec) if isinstance(spec, str) else spec
    return ThreadedCamera(parsed.name, parsed.label, lambda: _source(parsed), open_timeout_s)


def _source(spec: CameraSpec) -> Source:
    if spec.kind == "http":
        return _HttpSource(spec)
    return {"v4l2": V4l2Source, "rtsp": FfmpegSource, "file": VideoFileSource}[spec.kind](spec)


class _HttpSource:
    """MJPEG by our own reader; any other video over HTTP by FFmpeg. The server's Content-Type decides."""

    def __init__(self, spec: CameraSpec) -> None:
        self._spec = spec
        self._source: Source | None = None

    def open(self) -> None:
        # One connection: small cameras serve a single client.
        stream = HttpStream(self._spec.address)
        kind = stream.headers.get("Content-Type", "").lower()
        if kind.startswith("video/") or "mpegurl" in kind:
            stream.close()
            self._source = FfmpegSource(self._spec)
        else:
            self._source = MjpegSource(self._spec, stream)
        self._source.open()

    def read(self, halt: threading.Event) -> Picture | None:
        return None if self._source is None else self._source.read(halt)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
