"""MJPEG over HTTP: stamps from the part's headers where they are of this machine's clock, else arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CameraLost, CameraOpenError
from ..types import StampSource
from .http_stream import HttpStream
from .multipart import MultipartError, MultipartParser, Part, boundary_of
from .source import POLL_S, Picture, arrival_stamp, rgb
from .spec import CameraSpec

STAMP_HEADER = "x-capture-monotonic-ns"
BOOT_HEADER = "x-boot-id"
MAX_READS = 64
"""Reads without waiting in a row, so that a sender that never pauses cannot keep a frame from being shown."""


class MjpegSource:
    """An HTTP stream of JPEG pictures. A silent stream is not lost: its frame grows old, and that is seen."""

    def __init__(
        self, spec: CameraSpec, stream: HttpStream | None = None, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`stream`: the response, where it is open already."""
        self._spec = spec
        self._clock = clock
        self._boot_id = boot_id()
        self._stream = stream
        self._parser: MultipartParser | None = None

    def open(self) -> None:
        self._stream = self._stream or HttpStream(self._spec.address)
        content_type = self._stream.headers.get("Content-Type", "")
        try:
            self._parser = MultipartParser(boundary_of(content_type))
        except MultipartError as error:
            raise CameraOpenError(
                f"camera {self._spec.label}: {error}; give the address of the stream, not of a page"
            ) from error

    def read(self, halt: threading.Event) -> Picture | None:
        assert self._stream is not None
        assert self._parser is not None
        newest: Part | None = None
        arrived = 0
        timeout_s = POLL_S
        for _ in range(MAX_READS):
            data = self._stream.read(timeout_s)
            if data is None:
                break
            if data == b"":
                raise CameraLost(
                    f"camera {self._spec.label}: the stream was closed; check the camera and its server"
                )
            try:
                parts = self._parser.feed(data, self._clock())
            except MultipartError as error:
                raise CameraLost(f"camera {self._spec.label}: the stream is broken: {error}") from error
            newest = parts[-1] if parts else newest
            arrived += len(parts)
            timeout_s = 0.0
        return None if newest is None else self._picture(newest, arrived - 1)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _picture(self, part: Part, skipped: int) -> Picture | None:
        image = decode_jpeg(part.body)
        if image is None:
            return None
        stamp = header_stamp(part, self._boot_id)
        if stamp is not None:
            return Picture(image, stamp, StampSource.HEADER, part.arrival_ns, skipped)
        stamp = arrival_stamp(part.arrival_ns, self._spec.latency_ms)
        return Picture(image, stamp, StampSource.ARRIVAL, part.arrival_ns, skipped)


def header_stamp(part: Part, our_boot_id: str) -> int | None:
    """The capture stamp in the headers (ns), where it can be trusted: written by this very machine since it
    was started (same boot id) and not in the future. An old stamp is trusted: the picture IS old."""
    if not our_boot_id or part.headers.get(BOOT_HEADER) != our_boot_id:
        return None
    raw = part.headers.get(STAMP_HEADER, "")
    if not raw.isascii() or not raw.isdigit() or len(raw) > 19:
        return None
    stamp = int(raw)
    return stamp if stamp <= part.arrival_ns else None


def decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """[h, w, 3] RGB, or None when it is no picture."""
    if not data:
        return None
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if decoded is None else rgb(decoded)


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """This boot of this machine; empty where the kernel does not tell."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
