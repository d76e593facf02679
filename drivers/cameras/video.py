"""Video files, played at their own rate, and network streams (RTSP, HTTP video) through OpenCV's FFmpeg."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import cv2

from ..errors import CameraLost, CameraOpenError
from ..types import StampSource
from .source import POLL_S, Picture, arrival_stamp, rgb
from .spec import CameraSpec

OPEN_TIMEOUT_MS = 8_000
READ_TIMEOUT_MS = 3_000
MAX_FPS = 240.0


class VideoFileSource:
    """A video file as a camera: frame n is delivered at start + n/rate; late frames are skipped."""

    def __init__(self, spec: CameraSpec, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._spec = spec
        self._clock = clock
        self._capture: cv2.VideoCapture | None = None
        self._period_ns = 0
        self._due_ns = 0

    def open(self) -> None:
        path = self._spec.address
        if not os.path.exists(path):
            raise CameraOpenError(
                f"camera {self._spec.label}: no such file; expected a device, a URL or a video file"
            )
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise CameraOpenError(
                f"camera {self._spec.label}: not a readable file (check its owner and mode)"
            )
        self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise CameraOpenError(f"camera {self._spec.label}: not a video that OpenCV can read")
        rate = self._spec.fps or self._capture.get(cv2.CAP_PROP_FPS)
        if not 0.1 <= rate <= MAX_FPS:
            raise CameraOpenError(
                f"camera {self._spec.label}: the file declares {rate:g} frames/s; give the rate as ?fps=30"
            )
        self._period_ns = round(1e9 / rate)
        self._due_ns = self._clock()

    def read(self, halt: threading.Event) -> Picture | None:
        assert self._capture is not None
        wait_s = (self._due_ns - self._clock()) / 1e9
        if wait_s > 0:
            halt.wait(min(wait_s, POLL_S))
            if self._clock() < self._due_ns:
                return None
        skipped = 0
        while self._clock() - self._due_ns > self._period_ns and self._capture.grab():
            self._due_ns += self._period_ns
            skipped += 1
        ok, decoded = self._capture.read()
        if not ok:
            self._rewind()
            return None
        self._due_ns += self._period_ns
        image, arrival_ns = rgb(decoded), self._clock()
        if image is None:
            raise CameraLost(
                f"camera {self._spec.label}: a picture of {decoded.shape} {decoded.dtype} is no colour"
            )
        stamp = arrival_stamp(arrival_ns, self._spec.latency_ms)
        return Picture(image, stamp, StampSource.ARRIVAL, arrival_ns, skipped)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()

    def _rewind(self) -> None:
        assert self._capture is not None
        if not self._spec.loop:
            raise CameraLost(f"camera {self._spec.label}: the video has ended (add ?loop=1 to repeat it)")
        self._capture.release()
        self._capture = cv2.VideoCapture(self._spec.address, cv2.CAP_FFMPEG)
        if not self._capture.isOpened() or not self._capture.grab():
            raise CameraLost(f"camera {self._spec.label}: the video cannot be read again from its start")


class FfmpegSource:
    """A network stream through OpenCV's FFmpeg. It blocks in FFmpeg, at most `READ_TIMEOUT_MS`."""

    def __init__(self, spec: CameraSpec, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._spec = spec
        self._clock = clock
        self._capture: cv2.VideoCapture | None = None

    def open(self) -> None:
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS,
        ]  # fmt: skip
        self._capture = cv2.VideoCapture(self._spec.address, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise CameraOpenError(
                f"camera {self._spec.label}: no stream there that FFmpeg can read within "
                f"{OPEN_TIMEOUT_MS / 1000:g} s; check address, user and password"
            )

    def read(self, halt: threading.Event) -> Picture | None:
        assert self._capture is not None
        if not self._capture.grab():
            raise CameraLost(
                f"camera {self._spec.label}: the stream ended or was silent; check camera and network"
            )
        arrival_ns = self._clock()
        ok, decoded = self._capture.retrieve()
        image = rgb(decoded) if ok else None
        if image is None:
            return None
        stamp = arrival_stamp(arrival_ns, self._spec.latency_ms)
        return Picture(image, stamp, StampSource.ARRIVAL, arrival_ns)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
