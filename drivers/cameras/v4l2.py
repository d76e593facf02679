"""A camera of the kernel (V4L2) through OpenCV, with the kernel's own stamps.

OpenCV hides much: a stalled device blocks in select, buffers with the error flag read as good, and the first
frames may be old. The stamps tell: they are the kernel's (videodev2.h, V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC).
"""

from __future__ import annotations

import errno
import fcntl
import glob
import grp
import os
import stat
import struct
import threading
import time
from collections.abc import Callable

import cv2

from ..errors import CameraLost, CameraOpenError
from ..types import StampSource
from .source import Picture, arrival_stamp, rgb
from .spec import CameraSpec

VIDIOC_QUERYCAP = 0x80685600
_CAPABILITY = struct.Struct("=16s32s32sIII12x")
V4L2_CAP_VIDEO_CAPTURE = 0x00000001
V4L2_CAP_DEVICE_CAPS = 0x80000000

SELECT_TIMEOUT_S = 2
KERNEL_STAMP_WINDOW_NS = 2_000_000_000
"""At start, a kernel stamp must lie within this before the arrival, else its clock is another one."""
FAST_FAILURES = 20
"""Reads that fail at once, in a row, after which the device counts as lost."""


class V4l2Source:
    """One `/dev/videoN`."""

    def __init__(self, spec: CameraSpec, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._spec = spec
        self._clock = clock
        self._capture: cv2.VideoCapture | None = None
        self._kernel_clock: bool | None = None
        self._failures = 0

    def open(self) -> None:
        check_device(self._spec.address)
        # OpenCV has no other way to set this; 10 s, its default, outlasts every other deadline here.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(SELECT_TIMEOUT_S))
        capture = cv2.VideoCapture(os.path.realpath(self._spec.address), cv2.CAP_V4L2)
        self._capture = capture
        if not capture.isOpened():
            raise CameraOpenError(
                f"camera {self._spec.label} is busy, or offers no picture format: close the other program "
                f"(`fuser -v {self._spec.address}` names it) and try again"
            )
        # The format before the size: OpenCV would else settle on YUYV, whose bandwidth USB cannot carry.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._spec.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._spec.height)
        capture.set(cv2.CAP_PROP_FPS, self._spec.fps or 30.0)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def read(self, halt: threading.Event) -> Picture | None:
        assert self._capture is not None
        started_ns = self._clock()
        if not self._capture.grab():
            self._failed(self._clock() - started_ns, halt)
            return None
        arrival_ns = self._clock()
        kernel_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        ok, decoded = self._capture.retrieve()
        image = rgb(decoded) if ok else None
        if image is None:
            return None
        self._failures = 0
        if self._kernel_clock is None:
            self._kernel_clock = on_our_clock(kernel_ns, arrival_ns)
        stamp_ns, source = stamp(kernel_ns, arrival_ns, self._kernel_clock, self._spec.latency_ms)
        return Picture(image, stamp_ns, source, arrival_ns)

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()

    def _failed(self, after_ns: int, halt: threading.Event) -> None:
        if not os.path.exists(self._spec.address):
            raise CameraLost(f"camera {self._spec.label} was unplugged")
        if after_ns > 500_000_000:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAST_FAILURES:
            raise CameraLost(f"camera {self._spec.label} no longer delivers: unplug it and plug it in again")
        halt.wait(0.01)


def on_our_clock(kernel_ns: int, arrival_ns: int) -> bool:
    """Whether the kernel's first stamp can be of CLOCK_MONOTONIC: it lies shortly before the arrival."""
    return 0 <= arrival_ns - kernel_ns <= KERNEL_STAMP_WINDOW_NS


def stamp(kernel_ns: int, arrival_ns: int, kernel_clock: bool, latency_ms: float) -> tuple[int, StampSource]:
    """A picture's stamp (ns): the kernel's where its clock is ours and it gave one, never in the future."""
    if kernel_clock and kernel_ns > 0:
        return min(kernel_ns, arrival_ns), StampSource.KERNEL
    return arrival_stamp(arrival_ns, latency_ms), StampSource.ARRIVAL


def check_device(path: str) -> None:
    """Raises `CameraOpenError` unless `path` is a capture device that we may open."""
    try:
        info = os.stat(path)
    except FileNotFoundError as error:
        found = ", ".join(sorted(glob.glob("/dev/video*"))) or "none (is the camera plugged in?)"
        raise CameraOpenError(f"camera {path} does not exist; cameras of this machine: {found}") from error
    except OSError as error:
        raise CameraOpenError(f"camera {path}: {error.strerror}") from error
    if not stat.S_ISCHR(info.st_mode):
        raise CameraOpenError(f"{path} is not a camera device; expected e.g. /dev/video0")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CameraOpenError(open_message(path, error, info.st_gid)) from error
    try:
        answer = fcntl.ioctl(descriptor, VIDIOC_QUERYCAP, bytes(_CAPABILITY.size))
    except OSError as error:
        raise CameraOpenError(f"{path} is not a camera: it does not speak V4L2 ({error.strerror})") from error
    finally:
        os.close(descriptor)
    if not captures(answer):
        raise CameraOpenError(
            f"{path} delivers no pictures (a metadata or output node); try the other /dev/video* nodes"
        )


def captures(answer: bytes) -> bool:
    """Whether the answer to VIDIOC_QUERYCAP is that of a node which captures pictures."""
    _driver, _card, _bus, _version, capabilities, device = _CAPABILITY.unpack(answer)
    own = device if capabilities & V4L2_CAP_DEVICE_CAPS else capabilities
    return bool(own & V4L2_CAP_VIDEO_CAPTURE)


def open_message(path: str, error: OSError, group_id: int) -> str:
    """What to do about a device that could not be opened; `group_id` is the group which owns it."""
    if error.errno in (errno.EACCES, errno.EPERM):
        try:
            group = grp.getgrgid(group_id).gr_name
        except KeyError:
            group = str(group_id)
        return (
            f"no permission to open camera {path}: join its group with `sudo usermod -aG {group} $USER`, "
            "then log in again"
        )
    if error.errno == errno.EBUSY:
        return f"camera {path} is busy: close the other program (`fuser -v {path}` names it) and try again"
    return f"camera {path} cannot be opened: {error.strerror}"
